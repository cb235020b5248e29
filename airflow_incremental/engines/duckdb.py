"""The embedded engine: a transform over the bound sources, in a DuckDB of its own, streamed out as Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import duckdb
import pyarrow as pa

from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.core.limits import check_engine
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.reads import Changes, SourceRead
from airflow_incremental.engines.columns import columns_of
from airflow_incremental.engines.extras import Extras
from airflow_incremental.engines.relations import bind, bind_ranges, open_connection
from airflow_incremental.engines.streams import arrow_rows, relation_rows
from airflow_incremental.engines.transform import Transform, order_terms, produce, translate
from airflow_incremental.engines.workdir import work_directory
from airflow_incremental.engines.worker import Worker


@attrs.frozen(kw_only=True)
class DuckDBEngine:
    """Runs a transform in DuckDB.

    A transform is the text of one SELECT statement, or a function ``f(relations, plan)`` that gets a mapping of names
    to DuckDB relations and the plan, and returns a pyarrow Table, a pyarrow RecordBatchReader or a DuckDB relation.
    Either reads the sources by the names they are declared under, and ``plan_ranges`` (range_start, range_end:
    TIMESTAMPTZ, half-open): the event times the plan replaces, or else adds to. Of a driver ``orders`` it can also ask for
    ``orders_changes`` (its rows that came or went, with ``_change_type``: ``insert`` or ``delete``), ``orders_ranges`` (the event
    times of these), and ``orders_bounds`` (one row: ``min_<column>``, ``max_<column>`` of each of its ``change_bounds``), whose
    values are variables as well: ``getvariable('orders_min_<column>')``.

    All relations share one connection: a function that reads one of them as a stream reads it to its end, or returns
    it, before it uses another.

    :param memory_limit: what DuckDB may use before it spills to disk, such as ``"2GB"``; default is 80% of the memory
        it sees.
    :param threads: default is one per core.
    :raises ArgumentError: DuckDB would not take one of them.
    """

    memory_limit: str | None = None
    threads: int | None = None
    #: What runs now, so that another thread or a signal handler can stop it.
    _workers: list[Worker] = attrs.field(factory=list, init=False, eq=False, repr=False)
    #: The database that is kept open, while one is.
    _kept: list[duckdb.DuckDBPyConnection] = attrs.field(factory=list, init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_engine(self.memory_limit, self.threads)

    @contextmanager
    def kept_open(self, work_dir: Path | None = None) -> Iterator[None]:
        """Use one database for all runs while the context is open: many small runs take longer to open theirs than to work.

        The runs have to follow one another. What one of them makes is gone before the next one begins.

        :param work_dir: as in :meth:`run`, whose own does not count meanwhile.
        """
        with work_directory(work_dir, "load") as directory:
            con = open_connection(directory, memory_limit=self.memory_limit, threads=self.threads)
            self._kept.append(con)
            try:
                yield
            finally:
                self._kept.remove(con)
                con.close()

    @contextmanager
    def run(
        self,
        transform: Transform,
        reads: Sequence[SourceRead],
        plan: Plan,
        *,
        target_schema: pa.Schema | None,
        changes: Sequence[Changes] = (),
        order_by: Sequence[str] = (),
        work_dir: Path | None = None,
    ) -> Iterator[pa.RecordBatchReader]:
        """Run a transform and stream its rows; leaving the context stops what still runs and removes what was spilled.

        :param target_schema: schema of the rows that come out, checked and converted without loss; None leaves the
            transform's own.
        :param changes: what may be asked of the drivers.
        :param order_by: what the rows are sorted by (spilling to disk): columns, or ``hour(column)``, ``day(column)``,
            ``month(column)``, ``year(column)``; nulls come last.
        :param work_dir: where the database and what it spills live while the context is open; default is the system's.
        :raises TransformError: the transform fails, names an unknown source, or returns columns or values that do not
            fit.
        :raises TransformInterrupted: :meth:`interrupt` was called, or memory or disk ran out.
        :raises PlanExpired: a file the plan reads is gone.
        """
        with self._bound(reads, plan, work_dir) as (worker, extras):
            extras.offer(changes)
            made = produce(worker, transform, extras, plan)
            reads = extras.reads
            if isinstance(made, duckdb.DuckDBPyRelation):
                if order_by:
                    made = made.order(order_terms(made, order_by))
                yield relation_rows(worker, made, target_schema, reads=reads)
                return
            # Fitted before they are sorted: DuckDB has no types for some of Arrow's encodings.
            failures: list[IncrementalError] = []
            rows = arrow_rows(worker, made, target_schema, failures)
            if not order_by:
                yield rows
                return
            # In a connection of its own: the rows may stream out of the first one, and a second query there would cut
            # them off (DuckDB before 2.0 without a word).
            with self._working(worker.con.cursor()) as sorter:
                relation = sorter.con.from_arrow(rows)
                relation = relation.order(order_terms(relation, order_by))
                yield relation_rows(sorter, relation, target_schema, reads=reads, failures=failures)

    def schema(
        self,
        transform: Transform,
        reads: Sequence[SourceRead],
        plan: Plan,
        *,
        changes: Sequence[Changes] = (),
        work_dir: Path | None = None,
    ) -> pa.Schema:
        """Return the columns a transform returns, as types an Iceberg table can have.

        SQL is not run for it and no row is read; a function is run over the real rows, because nothing else tells.

        :raises TransformError: as in :meth:`run`, or for columns without a type.
        """
        empty = isinstance(transform, str)
        if empty:
            reads = [attrs.evolve(read, parts=()) for read in reads]
        with self._bound(reads, plan, work_dir, empty=empty) as (worker, extras):
            extras.offer(changes)
            made = produce(worker, transform, extras, plan)
            if not isinstance(made, duckdb.DuckDBPyRelation):
                made = worker.con.cursor().from_arrow(pa.RecordBatchReader.from_batches(made.schema, []))
            return columns_of(made, typed=True)

    def interrupt(self) -> None:
        """Stop every transform this engine runs now; from any thread or signal handler.

        They raise ``TransformInterrupted``, which another try can get past.
        """
        for worker in list(self._workers):
            worker.stop()

    @contextmanager
    def _bound(
        self, reads: Sequence[SourceRead], plan: Plan, work_dir: Path | None, *, empty: bool = False
    ) -> Iterator[tuple[Worker, Extras]]:
        """Open a database in which every read is bound to its name, and others can be."""
        with self._connection(work_dir) as con, self._working(con) as worker:
            try:
                for read in reads:
                    worker.call(bind, con, read)
                worker.call(bind_ranges, con, plan)
            except duckdb.Error as error:
                raise translate(error, reads) from error
            yield worker, Extras(con, list(reads), empty=empty)

    @contextmanager
    def _connection(self, work_dir: Path | None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open an empty database; in one that is kept open, a transaction that ends with its connection and leaves nothing."""
        if self._kept:
            con = self._kept[-1].cursor()
            yield con.begin()
            return
        with work_directory(work_dir, "load") as directory:
            yield open_connection(directory, memory_limit=self.memory_limit, threads=self.threads)

    @contextmanager
    def _working(self, con: duckdb.DuckDBPyConnection) -> Iterator[Worker]:
        worker = Worker(con)
        self._workers.append(worker)
        try:
            yield worker
        finally:
            self._workers.remove(worker)
            worker.close()
