"""A contender's own tables, and the reads and writes that all contenders but the package's do by hand.

They read with the package's reader, run in its engine and write with its writer; what they do by themselves is to decide what to
read and what to replace, and to commit: by pyiceberg's own overwrite, one snapshot that takes files out and puts files in.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from airflow_incremental.core.plan import Owner, Plan
from airflow_incremental.core.ranges import EPOCH, UTC, EventRanges, TimeRange
from airflow_incremental.core.reads import ReadPart, SourceRead
from airflow_incremental.core.watermark import Watermark
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.reads import read_ranges
from airflow_incremental.iceberg.scan import live_tasks
from airflow_incremental.iceberg.writer import partition_order, write
from benchmarks.late.hops import EVENTS, Hop
from benchmarks.late.metering import MeteredEngine

#: The engine asks for a plan only to tell a transform its ranges, which these do not ask for.
_NO_PLAN = Plan(
    process="bench",
    session="",
    mode="overwrite",
    kind="load",
    reason="",
    target="",
    target_uuid="",
    main=0,
    base_session=None,
    sources=(),
    watermark=Watermark(positions={}),
    owner=Owner(deployment="bench"),
    created_at=EPOCH,
)


def days(first: dt.date, last: dt.date) -> EventRanges:
    """Return the event times of the days from ``first`` to ``last``, both included."""
    start, end = (dt.datetime.combine(day, dt.time(), UTC) for day in (first, last + dt.timedelta(days=1)))
    return EventRanges((TimeRange(start, end),))


@attrs.frozen(kw_only=True)
class Place:
    """A warehouse of one contender, with an engine that counts."""

    catalog: Catalog
    engine: MeteredEngine

    def make_table(self, hop: Hop) -> None:
        """Create the table of a hop, empty."""
        self.catalog.create_table(hop.table, schema=hop.schema, partition_spec=hop.spec)

    def see_events(self, metadata_location: str) -> None:
        """Take the table of events as it is now: the same files for every contender."""
        if self.catalog.table_exists(EVENTS):
            self.catalog.drop_table(EVENTS)
        self.catalog.register_table(EVENTS, metadata_location)

    def read(self, name: str, identifier: str, event_time: str | None, keep: EventRanges | None) -> SourceRead:
        """Return the rows of a table under a name; ``keep`` None is all of them."""
        table = self.catalog.load_table(identifier)
        head = table.current_snapshot()
        return read_ranges(table, name, None if head is None else head.snapshot_id, event_time=event_time, keep=keep)

    def source(self, hop: Hop, keep: EventRanges | None) -> SourceRead:
        """Return the rows a hop is made of."""
        return self.read(hop.source, hop.source_table, hop.source_time, keep)

    def own(self, hop: Hop, name: str, keep: EventRanges | None) -> SourceRead:
        """Return rows of a hop's own table under a name."""
        return self.read(name, hop.table, hop.event_time, keep)

    def rows(self, sql: str, reads: Sequence[SourceRead], schema: pa.Schema) -> pa.Table:
        """Run SQL and return its rows."""
        with self.engine.run(sql, reads, _NO_PLAN, target_schema=schema) as batches:
            return batches.read_all()

    @contextmanager
    def running(self, hop: Hop, sql: str, reads: Sequence[SourceRead]) -> Iterator[pa.RecordBatchReader]:
        """Run SQL whose rows are a hop's, in the order in which they are written."""
        table = self.catalog.load_table(hop.table)
        order = dict.fromkeys((*partition_order(table), *((hop.event_time,) if hop.event_time else ())))
        with self.engine.run(
            sql, reads, _NO_PLAN, target_schema=table.schema().as_arrow(), order_by=tuple(order)
        ) as batches:
            yield batches

    def replace(self, hop: Hop, batches: pa.RecordBatchReader, ranges: EventRanges | None) -> None:
        """Write rows in place of those whose event times lie in the ranges, whole days; None replaces all."""
        table = self.catalog.load_table(hop.table)
        files = write(table, batches, write_id=uuid.uuid4(), check=None).files
        gone = _files(table, hop.event_time, ranges)
        with table.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
            for file in gone:
                overwrite.delete_data_file(file)
            for file in files:
                overwrite.append_data_file(file)


def _files(table: Table, event_time: str | None, ranges: EventRanges | None) -> list[DataFile]:
    head = table.current_snapshot()
    if head is None:
        return []
    column = None if event_time is None or ranges is None else EventColumn.of(table, event_time)
    return [task.file for task in live_tasks(table, head, column=column, keep=ranges)]


def given(name: str, rows: pa.Table) -> SourceRead:
    """Return rows that are at hand as a read; they cost what they hold."""
    return SourceRead(
        name=name,
        schema=rows.schema,
        field_ids=tuple(range(1, len(rows.schema) + 1)),
        parts=(ReadPart(paths=None, batches=rows.to_reader),),
        rows=rows.num_rows,
        bytes=rows.nbytes,
        files=0,
    )
