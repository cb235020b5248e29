"""A Spark Connect server of the tests' own, on loopback."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import psutil

from demo.config import free_port
from tests.spark.support.files import PYTHON
from tests.spark.support.spark_process import CONF, environment, with_jars

_STARTS_IN = 180  # seconds


class ConnectServer:
    """Spark with its Connect server, for as long as the ``with`` block lasts.

    :param home: folder for its log and what it writes beside tables.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ConnectServer:  # noqa: PYI034 - typing.Self is not in Python 3.10
        """Start it, and wait until it listens."""
        self.home.mkdir(parents=True, exist_ok=True)
        own = {
            "spark.sql.warehouse.dir": str(self.home / "warehouse"),
            "spark.local.dir": str(self.home / "local"),
            "spark.connect.grpc.binding.address": "127.0.0.1",
            "spark.connect.grpc.binding.port": str(self.port),
        }
        conf = [item for key, value in {**CONF, **own, **with_jars()}.items() for item in ("--conf", f"{key}={value}")]
        main = ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(PYTHON.with_name("spark-submit")), *conf, *main],
                cwd=self.home,
                env={**environment(), "PATH": f"{PYTHON.parent}:{environment()['PATH']}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + _STARTS_IN
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.2)
        self._end()
        msg = f"the Spark Connect server does not listen:\n{self.log.read_text(errors='replace')[-3000:]}"
        raise AssertionError(msg)

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._end()

    def _end(self) -> None:
        assert self._process is not None
        try:
            family = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            family = []
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=30)
        for process in psutil.wait_procs(family[1:], timeout=5)[1]:
            process.kill()
