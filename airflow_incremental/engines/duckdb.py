"""The embedded engine: a transform over the bound sources, in a DuckDB of its own, streamed out as Arrow batches."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import duckdb
import pyarrow as pa

from airflow_incremental.core.plan import Plan
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.engines.output import Fitter
from airflow_incremental.engines.relations import bind, bind_ranges, open_connection
from airflow_incremental.engines.transform import Transform, order_terms, produce, translate
from airflow_incremental.engines.worker import Worker

#: Rows of one Arrow batch that comes out of DuckDB: a multiple of its vectors, small enough for wide rows.
BATCH_ROWS = 16 * 2048


@attrs.define
class _Running:
    """The queries of one engine that run now, so that another thread or a signal handler can stop them."""

    workers: list[Worker] = attrs.field(factory=list)
    lock: threading.Lock = attrs.field(factory=threading.Lock)


@attrs.frozen(kw_only=True)
class DuckDBEngine:
    """Runs a transform in DuckDB.

    A transform is the text of one SELECT statement, or a function ``f(relations, plan)`` that gets a mapping of names to DuckDB
    relations and the plan, and returns a pyarrow Table, a pyarrow RecordBatchReader or a DuckDB relation. Either reads the sources
    by the names they are declared under, and ``plan_ranges`` (range_start, range_end: TIMESTAMPTZ, half-open): the event times the
    plan replaces, or else adds to.

    :param memory_limit: what DuckDB may use before it spills to disk, such as ``"2GB"``; default 80% of the memory it sees.
    :param threads: default one per core.
    """

    memory_limit: str | None = None
    threads: int | None = None
    _running: _Running = attrs.field(factory=_Running, init=False, eq=False, repr=False)

    @contextmanager
    def run(
        self,
        transform: Transform,
        reads: Sequence[SourceRead],
        plan: Plan,
        *,
        target_schema: pa.Schema | None,
        order_by: Sequence[str] = (),
        work_dir: Path | None = None,
    ) -> Iterator[pa.RecordBatchReader]:
        """Run a transform and stream its rows; leaving the context stops what still runs and removes what was spilled.

        :param target_schema: schema of the rows that come out, checked and converted without loss; None leaves the transform's own.
        :param order_by: columns, or ``hour(column)``, ``day(..)``, ``month(..)``, ``year(..)``, that the rows are sorted by.
        :param work_dir: where the database and what it spills live while the context is open; default is the system's.
        :raises TransformError: the transform fails, names an unknown source, or returns columns or values that do not fit.
        :raises TransformInterrupted: :meth:`interrupt` was called, or memory or disk ran out.
        """
        names = [read.name for read in reads]
        with self._worker(reads, plan, work_dir) as worker:
            made = produce(worker, transform, names, plan)
            if isinstance(made, pa.RecordBatchReader):
                made = _fitted(made.schema, made, target_schema)
                if order_by:  # sorted after it was fitted: DuckDB has no types for some of Arrow's encodings
                    made = worker.con.from_arrow(made)
            if isinstance(made, duckdb.DuckDBPyRelation):
                if order_by:
                    made = made.order(order_terms(made, order_by))
                reader = worker.call(_open, made, names)
                made = _fitted(reader.schema, _batches(worker, reader, names), target_schema)
            yield made

    def schema(
        self, transform: Transform, reads: Sequence[SourceRead], plan: Plan, *, work_dir: Path | None = None
    ) -> pa.Schema:
        """Return the columns a transform returns, as types an Iceberg table can have.

        SQL is not run for it; a callable is, because nothing else tells.
        """
        names = [read.name for read in reads]
        with self._worker(reads, plan, work_dir) as worker:
            made = produce(worker, transform, names, plan)
            if isinstance(made, pa.RecordBatchReader):
                return made.schema
            return worker.call(lambda: made.limit(0).to_arrow_table().schema)

    def interrupt(self) -> None:
        """Stop every query this engine runs now; from any thread or signal handler. They raise ``TransformInterrupted``."""
        for worker in list(self._running.workers):
            worker.stop()

    @contextmanager
    def _worker(self, reads: Sequence[SourceRead], plan: Plan, work_dir: Path | None) -> Iterator[Worker]:
        if work_dir is not None:
            Path(work_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="engine-", dir=work_dir) as directory:
            worker = Worker(open_connection(directory, memory_limit=self.memory_limit, threads=self.threads))
            self._running.workers.append(worker)
            try:
                for read in reads:
                    worker.call(bind, worker.con, read)
                worker.call(bind_ranges, worker.con, plan)
                yield worker
            finally:
                self._running.workers.remove(worker)
                worker.close()


def _open(relation: duckdb.DuckDBPyRelation, names: Sequence[str]) -> Any:
    """Start a relation's query; its rows stream out of it."""
    make = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader  # the name before DuckDB 1.5
    try:
        return make(BATCH_ROWS)
    except duckdb.Error as error:
        raise translate(error, names) from error


def _batches(worker: Worker, reader: Any, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    def read() -> Any:
        try:
            return reader.read_next_batch()
        except StopIteration:
            return None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise translate(error, names) from error

    while (batch := worker.call(read)) is not None:
        yield batch


def _fitted(schema: Any, batches: Iterable[Any], target: Any) -> Any:
    """Return a reader of the batches, in the target's schema if there is one."""
    if target is None:
        return pa.RecordBatchReader.from_batches(schema, batches)
    fitter = Fitter.between(schema, target)
    return pa.RecordBatchReader.from_batches(target, (fitter.fit(b) for b in batches))
