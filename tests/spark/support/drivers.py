"""Drivers that may die: a ``spark-submit`` of its own for each job, whose processes a test finds, stops and kills."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from tests.spark.support.files import PYTHON, ROOT
from tests.spark.support.spark_process import CONF, environment, with_jars

#: A driver whose executor is a JVM of its own, with one core and 1,024 MiB.
ONE_EXECUTOR = "local-cluster[1,1,1024]"
T = TypeVar("T")


class Driver:
    """One application by ``spark-submit`` in client mode, for as long as the ``with`` block lasts.

    The process that is started becomes the driver's JVM; the driver's Python is its child, and so are executors that are
    processes of their own. They are one session of the system, by which all of them are found and killed in the end.

    :param home: folder for its log and what it writes beside tables.
    :param application: program for the driver's Python.
    :param master: ``local[2]`` runs tasks in the driver's JVM; ``ONE_EXECUTOR`` does not.
    """

    def __init__(
        self,
        home: Path,
        application: Path,
        *arguments: str,
        master: str = CONF["spark.master"],
        conf: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.log = home / "log"
        own = {"spark.sql.warehouse.dir": str(home / "warehouse"), "spark.local.dir": str(home / "local")}
        self._conf = {**CONF, **own, **with_jars(), "spark.master": master, **(conf or {})}
        self._program = [str(application), *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Driver:  # noqa: PYI034 - typing.Self is not in Python 3.10
        """Start it; returns at once."""
        self.home.mkdir(parents=True, exist_ok=True)
        conf = [item for key, value in self._conf.items() for item in ("--conf", f"{key}={value}")]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(PYTHON.with_name("spark-submit")), *conf, *self._program],
                cwd=self.home,
                env={**environment(), "PYTHONPATH": str(ROOT), "SPARK_HOME": str(self._spark_home())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what is left of it."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(timeout=30)

    def wait(self, timeout: float = 600) -> int:
        """Wait for its end and return its exit code (negative: the signal)."""
        assert self._process is not None
        return self._process.wait(timeout)

    def running(self) -> bool:
        """Say whether its JVM has not ended."""
        assert self._process is not None
        return self._process.poll() is None

    def jvm(self) -> psutil.Process:
        """Return the driver's JVM, once it has started."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        return self.wait_for(lambda: process if process.name() == "java" else None)

    def python(self) -> psutil.Process:
        """Return the driver's Python, once it has started."""
        program = self._program[0]
        return self.wait_for(lambda: next((p for p in self.processes() if program in _words(p)[1:2]), None))

    def executor(self) -> psutil.Process:
        """Return the JVM of an executor, once one has started."""
        main = "org.apache.spark.executor.CoarseGrainedExecutorBackend"
        return self.wait_for(
            lambda: next((p for p in self.processes() if p.name() == "java" and main in _words(p)), None)
        )

    def stop(self) -> None:
        """Stop all its processes (SIGSTOP), as a machine does that is suspended, and wait until they have stopped."""
        self._signal(signal.SIGSTOP)
        self.wait_for(lambda: all(map(_is_stopped, self.processes())) or None)

    def go_on(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)
        self.wait_for(lambda: not any(map(_is_stopped, self.processes())) or None)

    def _signal(self, number: int) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def wait_for(self, look: Callable[[], T | None], timeout: float = 300) -> T:
        """Look again and again until something is found, as long as the driver runs."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = look()
            if found is not None:
                return found
            assert self.running(), f"the driver has ended:\n{self.log.read_text(errors='replace')[-3000:]}"
            time.sleep(0.05)
        msg = f"not found within {timeout} s:\n{self.log.read_text(errors='replace')[-3000:]}"
        raise AssertionError(msg)

    def processes(self) -> Sequence[psutil.Process]:
        """Return its processes that have not ended."""
        assert self._process is not None
        found = [p for p in psutil.process_iter() if _session(p.pid) == self._process.pid]
        return [p for p in found if _status(p) not in (psutil.STATUS_ZOMBIE, None)]

    def _spark_home(self) -> Path:
        """Return Spark's home, made of links: a worker of ``local-cluster`` writes there."""
        home, installed = self.home / "spark", next(PYTHON.parents[1].glob("lib/python*/site-packages/pyspark"))
        home.mkdir(exist_ok=True)
        for name in ("bin", "jars", "python"):
            link = home / name
            if (installed / name).exists() and not link.is_symlink():
                link.symlink_to(installed / name)
        return home


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _status(process: psutil.Process) -> str | None:
    try:
        return process.status()
    except psutil.Error:
        return None


def _is_stopped(process: psutil.Process) -> bool:
    return _status(process) == psutil.STATUS_STOPPED


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
