"""A running transform can be stopped: by another thread, by a signal handler, by an exception that a signal raises."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_incremental.engines.relations import open_connection
from airflow_incremental.engines.worker import TransformInterrupted, Worker
from tests.unit.engines.support import ENGINE, plan, read_of, run

#: Would run for hours.
FOREVER = "SELECT count(*) AS n FROM range(10000000000000) t(i) WHERE hash(i) % 7 = 3"
ROWS = pa.table({"id": list(range(200_000))})


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[..., Any]], None]]:
    """Have a function called in the main thread, as a signal handler, after a moment."""
    before = signal.getsignal(signal.SIGALRM)

    def after_a_moment(handler: Callable[..., Any]) -> None:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)

    yield after_a_moment
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def endless(_: Any, __: Any) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        while True:
            time.sleep(0.01)
            yield pa.record_batch({"n": [1]})

    return pa.RecordBatchReader.from_batches(pa.schema([("n", pa.int64())]), batches())


def inside(relations: Any, __: Any) -> pa.Table:
    return relations["src"].query("src_", FOREVER).to_arrow_table()


@pytest.mark.parametrize(
    ("transform", "order_by"),
    [(FOREVER, ()), (FOREVER, ("n",)), (endless, ()), (endless, ("n",)), (inside, ())],
    ids=["sql", "sql, sorted", "stream", "stream, sorted", "inside a function"],
)
def test_another_thread_stops_it(transform: Any, order_by: tuple[str, ...]) -> None:
    timer = threading.Timer(0.3, ENGINE.interrupt)
    timer.start()
    with pytest.raises(TransformInterrupted, match="the transform was stopped before it ended") as caught:
        run(transform, read_of(ROWS), order_by=order_by)
    timer.join()
    assert caught.value.retryable
    assert run("SELECT 1 AS n").to_pylist() == [{"n": 1}], "the engine can be used again"


def test_a_signal_handler_stops_it(alarm: Callable[..., None]) -> None:
    alarm(lambda *_: ENGINE.interrupt())
    with pytest.raises(TransformInterrupted):
        run(FOREVER)


@pytest.mark.parametrize("order_by", [(), ("n",)])
def test_an_exception_from_a_signal_handler_gets_through(
    alarm: Callable[..., None], tmp_path: Path, order_by: tuple[str, ...]
) -> None:
    """Airflow's timeouts come like this; what was running is stopped and cleared away before they go on."""

    def handler(*_: Any) -> None:
        raise TimeoutError("too long")

    alarm(handler)
    with pytest.raises(TimeoutError, match="too long"):
        run(FOREVER, order_by=order_by, work_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("duckdb")]


def test_a_stopped_stream_gives_nothing_more() -> None:
    with ENGINE.run("FROM src", [read_of(ROWS)], plan(), target_schema=None) as batches:
        assert batches.read_next_batch().num_rows
        ENGINE.interrupt()
        with pytest.raises(TransformInterrupted):
            batches.read_next_batch()


def test_a_stop_that_comes_between_two_queries_is_not_lost(tmp_path: Path) -> None:
    worker = Worker(open_connection(tmp_path, threads=1))
    begun, stopped = threading.Event(), threading.Event()

    def query() -> Any:
        begun.set()
        stopped.wait()  # DuckDB forgets an interrupt that comes before its query
        return worker.con.execute(FOREVER).fetchall()

    def stop() -> None:
        begun.wait()
        worker.stop()
        stopped.set()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(TransformInterrupted):
        worker.call(query)
    with pytest.raises(TransformInterrupted):
        worker.call(lambda: 1)
    thread.join()
    worker.close()


def test_nothing_to_stop_is_fine() -> None:
    ENGINE.interrupt()
    assert run("SELECT 1 AS n").num_rows == 1
