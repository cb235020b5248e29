"""Iceberg's own REST catalog server, a Java process that keeps its tables in PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx

from demo.config import free_port
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.files import rest_catalog_jars

_STARTS_IN = 60  # seconds


class RestCatalogServer:
    """The server of Iceberg's REST compatibility kit, for as long as the ``with`` block lasts.

    It is told everything by its environment: ``CATALOG_JDBC_SCHEMA__VERSION`` is the property ``jdbc.schema-version``. Clients
    get no ``FileIO`` from it, so each uses its own default for what a location says: here a folder.

    :param database: SQLAlchemy URL of a PostgreSQL database for the tables' current metadata.
    :param warehouse: folder of the tables.
    :param log: where what it says is kept.
    """

    def __init__(self, *, database: str, warehouse: Path, log: Path) -> None:
        self._database = urlsplit(database)
        self._warehouse = warehouse
        self._log = log
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[Any] | None = None

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def catalog(self) -> SharedCatalog:
        """The catalog it serves."""
        return SharedCatalog(
            name="lake",
            properties={"type": "rest", "uri": self.address},
            spark={"type": "rest", "uri": self.address},
        )

    def __enter__(self) -> RestCatalogServer:  # noqa: PYI034 - typing.Self is not in Python 3.10
        """Start it, and wait until it answers."""
        self._warehouse.mkdir(parents=True, exist_ok=True)
        self._output = self._log.open("wb")
        database = self._database
        environment = {
            "PATH": os.environ["PATH"],
            "CATALOG_REST_PORT": str(self.port),
            "CATALOG_WAREHOUSE": f"file://{self._warehouse}",
            "CATALOG_URI": f"jdbc:postgresql://{database.hostname}:{database.port}{database.path}",
            "CATALOG_JDBC_USER": database.username or "",
            "CATALOG_JDBC_SCHEMA__VERSION": "V1",
        }
        self._process = subprocess.Popen(
            [
                "java",
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-cp",
                os.pathsep.join(map(str, rest_catalog_jars())),
                "org.apache.iceberg.rest.RESTCatalogServer",
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self._wait(self._process)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        assert self._process is not None
        assert self._output is not None
        self._process.terminate()
        self._process.wait(timeout=30)
        self._output.close()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _STARTS_IN
        while time.monotonic() < end and process.poll() is None:
            try:
                httpx.get(f"{self.address}/v1/config", timeout=5).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.1)
            else:
                return
        process.kill()
        msg = f"the REST catalog server does not answer; it said:\n{self._log.read_text()[-3000:]}"
        raise AssertionError(msg)
