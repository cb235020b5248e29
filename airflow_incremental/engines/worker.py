"""One DuckDB connection, used from one thread of its own, that can be stopped from any other at any time.

The caller's thread only waits, so Python's signal handlers (Airflow's kill and timeout arrive as signals in the main
thread) run at once and not when a long query returns.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

import duckdb

from airflow_incremental.core.errors import TransformError

P = ParamSpec("P")
T = TypeVar("T")

#: An interrupt that arrives before its query has started is lost; it is sent again after this many seconds.
_AGAIN = 0.2


class TransformInterrupted(TransformError):
    """The transform was stopped from outside (killed, timed out) or by the machine (memory, disk); another try may pass."""

    retryable = True


class Worker:
    """Runs functions that use ``con``, one after another, in one thread."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="duckdb")
        self._running: Future[Any] | None = None
        self._stopped = False

    def check(self) -> None:
        """Go on only if nobody asked to stop.

        :raises TransformInterrupted: somebody did.
        """
        if self._stopped:
            raise TransformInterrupted(
                "the transform was stopped before it ended",
                hint="nothing was committed; a retry runs it again from the same plan",
            )

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in the worker's thread and return what it returns.

        :raises TransformInterrupted: :meth:`stop` was called, before or meanwhile.
        """
        self.check()
        future = self._pool.submit(function, *args, **kwargs)
        self._running = future
        while not wait([future], timeout=_AGAIN).done:
            if self._stopped:
                self.con.interrupt()
        try:
            return future.result()
        except Exception:
            self.check()  # what an interrupted query says is not what happened
            raise

    def stop(self) -> None:
        """Stop what runs, and refuse what comes; from any thread."""
        self._stopped = True
        self.con.interrupt()

    def close(self) -> None:
        """Stop what still runs (after an exception in the caller's thread), wait for its end, close the connection."""
        running = self._running
        if running is not None and not running.done():
            self.stop()
            while not wait([running], timeout=_AGAIN).done:
                self.con.interrupt()
        self._pool.shutdown(wait=True)
        self.con.close()
