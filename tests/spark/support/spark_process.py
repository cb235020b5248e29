"""The test's side of ``spark_server.py``: one Spark that many tests use, and what they ask of it."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.files import PYTHON, spark_jars

_PROGRAM = Path(__file__).with_name("spark_server.py")
#: Conf of every Spark of the tests: two cores, little memory, nothing to look at.
CONF: Mapping[str, str] = {
    "spark.master": "local[2]",
    "spark.driver.memory": "1g",
    # Short lives: the optimizing compiler costs more than it saves here.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
}


class SparkFailed(Exception):
    """What was asked for ended in an error in Spark.

    :param trace: the driver's traceback.
    """

    def __init__(self, error: str, trace: str) -> None:
        super().__init__(error)
        self.trace = trace


def with_jars() -> dict[str, str]:
    """Return the conf that puts the jars on the class path."""
    return {"spark.jars": ",".join(map(str, spark_jars()))}


def environment() -> dict[str, str]:
    """Return the environment of a driver: nothing of the test's own Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "PYTHON", "SPARK", "VIRTUAL_ENV"))}
    return {**kept, "PYSPARK_PYTHON": str(PYTHON), "PYSPARK_DRIVER_PYTHON": str(PYTHON), "SPARK_LOCAL_IP": "127.0.0.1"}


class SparkProcess:
    """A Spark driver with its JVM, for as long as the ``with`` block lasts; it takes some seconds to start.

    :param home: folder for its conf, its log (``log``) and what it writes beside tables.
    :param conf: of the Spark session, over ``CONF``; by default the jars of the tests.
    """

    def __init__(self, home: Path, conf: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.log = home / "log"
        self._conf = {
            **CONF,
            "spark.sql.warehouse.dir": str(home / "warehouse"),
            "spark.local.dir": str(home / "local"),
            **(with_jars() if conf is None else conf),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: dict[Any, Future[Any]] = {}
        self._guard = threading.Lock()
        self._number = 0
        self.version = ""

    def __enter__(self) -> SparkProcess:  # noqa: PYI034 - typing.Self is not in Python 3.10
        """Start it, and wait until it is ready."""
        self.home.mkdir(parents=True, exist_ok=True)
        conf = self.home / "conf.json"
        conf.write_text(json.dumps(self._conf))
        here, there = socket.socketpair()
        ready = self._asked["ready"] = Future()
        with there, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(PYTHON), str(_PROGRAM), str(conf), str(there.fileno())],
                pass_fds=[there.fileno()],
                cwd=self.home,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._channel = here.makefile("rw", encoding="utf-8")
        self._socket = here
        threading.Thread(target=self._listen, daemon=True).start()
        self.version = ready.result(timeout=300)["version"]
        return self

    def __exit__(self, *_: object) -> None:
        """End it and its JVM."""
        assert self._process is not None
        family = [self._process, *psutil.Process(self._process.pid).children(recursive=True)]
        self._socket.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        _, left = psutil.wait_procs(family[1:], timeout=10)
        for process in left:
            process.kill()
        self._socket.close()

    def run(self, job: Mapping[str, Any]) -> None:
        """Run a job as a driver does.

        :raises SparkFailed: it ended in an error.
        """
        self._ask({"do": "run", "job": job}).result()

    def start(self, job: Mapping[str, Any]) -> Future[Any]:
        """Begin to run a job, and return its end to come."""
        return self._ask({"do": "run", "job": job})

    def sql(self, catalog: SharedCatalog, *statements: str, conf: Mapping[str, str] | None = None) -> pa.Table:
        """Run statements in a new session whose current catalog is ``catalog``, and return the rows of the last one."""
        request = {"do": "sql", "statements": statements, "conf": {**_in(catalog), **(conf or {})}}
        return pa.ipc.open_stream(base64.b64decode(self._ask(request).result())).read_all()

    def script(self, catalog: SharedCatalog, code: str, **given: Any) -> Any:
        """Execute Python in the driver, with ``spark`` and ``given``, and return what it leaves in ``result``."""
        return self._ask({"do": "script", "code": code, "given": given, "conf": _in(catalog)}).result()

    def _ask(self, request: Mapping[str, Any]) -> Future[Any]:
        answer: Future[Any] = Future()
        with self._guard:
            self._number += 1
            self._asked[self._number] = answer
            self._channel.write(json.dumps({**request, "id": self._number}) + "\n")
            self._channel.flush()
        return answer

    def _listen(self) -> None:
        for line in self._channel:
            answer = json.loads(line)
            with self._guard:
                future = self._asked.pop(answer["id"])
            if "error" in answer:
                future.set_exception(SparkFailed(answer["error"], answer["trace"]))
            else:
                future.set_result(answer["value"])
        with self._guard:
            left, self._asked = self._asked, {}
        for future in left.values():
            future.set_exception(SparkFailed("Spark is gone", self.log.read_text(errors="replace")[-5000:]))


def _in(catalog: SharedCatalog) -> dict[str, str]:
    return {**catalog.conf(), "spark.sql.defaultCatalog": catalog.name}
