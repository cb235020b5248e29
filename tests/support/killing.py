"""Child processes that die, or stop, at a chosen instruction of a session.

A child counts the events of its session: before and after every catalog commit, and before and after every file written. At the
n-th event it sends itself a signal. Children are forked from a warm server that has imported everything but started no thread, so
one costs milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_PRELOAD = ["airflow_incremental.sessions.steps", "tests.support.world", "tests.support.killing"]


class Events:
    """Counts events and sends a signal at one of them; records their names in a pipe for the parent."""

    def __init__(self, at: int | None, sig: int, report: Any) -> None:
        self.at, self.sig, self.report, self.seen = at, sig, report, 0
        # Files are written by several threads.
        self.lock = threading.Lock()

    def __call__(self, name: str) -> None:
        """Note one event."""
        with self.lock:
            self.seen += 1
            self.report.send(name)
            if self.seen == self.at:
                os.kill(os.getpid(), self.sig)


def _instrument_deletions(events: Events) -> None:
    """Also count before and after every file that is deleted."""
    from pyiceberg.io.pyarrow import PyArrowFileIO

    from airflow_incremental.iceberg import sweep

    delete, remove = PyArrowFileIO.delete, sweep.remove

    def delete_file(self: Any, location: Any) -> None:
        events("before deletion")
        delete(self, location)
        events("after deletion")

    def remove_files(table: Any, found: Any) -> None:
        for item in found:
            events("before deletion")
            remove(table, [item])
            events("after deletion")

    PyArrowFileIO.delete = delete_file  # type: ignore[method-assign]
    sweep.remove = remove_files


def _instrument(events: Events) -> None:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.io.pyarrow import PyArrowFile

    commit, create = SqlCatalog.commit_table, PyArrowFile.create

    def commit_table(self: Any, table: Any, requirements: Any, updates: Any) -> Any:
        events("before commit")
        found = commit(self, table, requirements, updates)
        events("after commit")
        return found

    def create_file(self: Any, overwrite: bool = False) -> Any:  # noqa: FBT002  (pyiceberg's signature)
        kind = self.location.rsplit(".", 1)[-1]
        events(f"before {kind}")
        stream = create(self, overwrite)
        close = stream.close

        class Stream:
            """The stream, with its end noticed."""

            def __getattr__(self, name: str) -> Any:
                return getattr(stream, name)

            def close(self) -> None:
                done = stream.closed
                close()
                if not done:
                    events(f"after {kind}")

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                self.close()

        return Stream()

    SqlCatalog.commit_table = commit_table  # type: ignore[method-assign]
    PyArrowFile.create = create_file  # type: ignore[method-assign]


def _main(
    at: int | None, sig: int, report: Any, work: Callable[..., Any], args: tuple[Any, ...], *, deletions: bool
) -> None:
    events = Events(at, sig, report)
    _instrument(events)
    if deletions:
        _instrument_deletions(events)
    try:
        work(*args)
    except BaseException as error:  # noqa: BLE001  (the parent asks how the child ended)
        report.send(f"raised {type(error).__name__}: {error}")
        sys.exit(3)
    report.send("done")


class Child:
    """A child that runs ``work(*args)`` and sends itself ``sig`` at event number ``at`` (counted from 1).

    :param deletions: whether deletions of files are events, too.
    """

    def __init__(
        self,
        work: Callable[..., Any],
        *args: Any,
        at: int | None = None,
        sig: int = signal.SIGKILL,
        deletions: bool = False,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        self.reader, writer = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(
            target=_main,
            args=(at, sig, writer, work, args),
            kwargs={"deletions": deletions},
            daemon=True,
        )
        self.process.start()
        writer.close()
        self.events: list[str] = []

    def wait(self, timeout: float = 60) -> int | None:
        """Wait for the end and return the exit code (negative: the signal)."""
        self._drain()
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"child hangs after {self.events[-3:]}"
        return self.process.exitcode

    def wait_stopped(self, timeout: float = 60) -> bool:
        """Wait until the child has stopped itself; False if it ended first."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            state = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state == "T":
                return True
            if state == "Z":
                return False
            time.sleep(0.01)
        msg = "the child neither stopped nor ended"
        raise AssertionError(msg)

    def go_on(self) -> None:
        """Wake a stopped child."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def _drain(self) -> None:
        try:
            while True:
                self.events.append(self.reader.recv())
        except EOFError:
            pass
