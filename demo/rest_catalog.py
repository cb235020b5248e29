"""Iceberg's own REST catalog server, a Java process: a catalog that pyiceberg and Spark both open."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from demo.config import free_port
from demo.processes import Component, Keeper, stop_all
from demo.spark_home import rest_catalog_jars
from demo.stack import StackError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

#: Seconds in which it answers; an idle machine needs two.
_STARTS_IN = 120.0


class RestCatalogServer:
    """The server of Iceberg's REST compatibility kit, for as long as the ``with`` block lasts.

    It is told everything by its environment: ``CATALOG_JDBC_SCHEMA__VERSION`` is the property ``jdbc.schema-version``. Clients
    get no ``FileIO`` from it, so each uses its own default for what a location says: here a folder.

    :param database: SQLAlchemy URL of where it keeps which metadata file of each table is current: a SQLite file, or a database
        of PostgreSQL.
    :param warehouse: absolute folder of the tables; made when it is missing.
    :param log: file that takes what it says.
    """

    def __init__(self, *, database: str, warehouse: Path, log: Path) -> None:
        self.port = free_port()
        self._warehouse = warehouse
        self._keeper = Keeper()
        self._component = Component(
            name="REST catalog server",
            command=(
                *("java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", os.pathsep.join(map(str, rest_catalog_jars()))),
                "org.apache.iceberg.rest.RESTCatalogServer",
            ),
            environment={
                "PATH": os.environ["PATH"],
                "CATALOG_REST_PORT": str(self.port),
                "CATALOG_WAREHOUSE": f"file://{warehouse}",
                "CATALOG_JDBC_SCHEMA__VERSION": "V1",
                **_backend(database),
            },
            log=log,
        )

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RestCatalogServer:  # noqa: PYI034 - typing.Self is not in Python 3.10
        """Start it, and wait until it answers.

        :raises StackError: it does not.
        """
        self._warehouse.mkdir(parents=True, exist_ok=True)
        self._component.start()
        self._keeper.watch(self._component)
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._stop()

    def _stop(self) -> None:
        stop_all([self._component], grace=20)
        self._keeper.dismiss()

    def _wait(self) -> None:
        end = time.monotonic() + _STARTS_IN
        while time.monotonic() < end and self._component.exit_code is None:
            with suppress(httpx.HTTPError):
                httpx.get(f"{self.address}/v1/config", timeout=5, trust_env=False).raise_for_status()
                return
            time.sleep(0.1)
        msg = f"the REST catalog server does not answer. The end of {self._component.log}:\n{self._component.tail()}"
        raise StackError(msg)


def _backend(database: str) -> dict[str, str]:
    """Return the environment that tells the server of its database."""
    found = urlsplit(database)
    if found.scheme == "sqlite":
        # One client at a time: SQLite lets one write, and tells a second one to go away.
        return {"CATALOG_URI": f"jdbc:sqlite:{found.path.removeprefix('/')}", "CATALOG_CLIENTS": "1"}
    return {
        "CATALOG_URI": f"jdbc:postgresql://{found.hostname}:{found.port}{found.path}",
        "CATALOG_JDBC_USER": found.username or "",
    }
