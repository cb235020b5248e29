"""Reads and plans for engine tests, made without planning anything."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from airflow_incremental.core.plan import Owner, Plan
from airflow_incremental.core.ranges import UTC, EventRanges, TimeRange
from airflow_incremental.core.reads import ReadPart, SourceRead
from airflow_incremental.core.watermark import Watermark
from airflow_incremental.engines.duckdb import DuckDBEngine

T0 = dt.datetime(2024, 1, 1, tzinfo=UTC)
HOUR = dt.timedelta(hours=1)

#: Two threads: more only fight over the machine the tests share.
ENGINE = DuckDBEngine(threads=2, memory_limit="500MB")


def hours(*starts: int, nulls: bool = False) -> EventRanges:
    """Return one-hour ranges, by the hours since ``T0`` they start at."""
    return EventRanges(tuple(TimeRange(T0 + s * HOUR, T0 + (s + 1) * HOUR) for s in starts), nulls=nulls)


def plan(*, replaced: EventRanges = EventRanges(), affected: EventRanges = EventRanges()) -> Plan:
    """Return a plan with nothing in it but ranges."""
    return Plan(
        process="p",
        session="20240101T000000-00000000",
        mode="overwrite" if replaced else "append",
        kind="load",
        reason="because",
        target="m.t",
        target_uuid="u",
        main=1,
        base_session=None,
        sources=(),
        replaced=replaced,
        affected=affected,
        watermark=Watermark(positions={}),
        owner=Owner(deployment="d"),
        created_at=T0,
    )


def read_of(rows: pa.Table, name: str = "src", *, event_time: str | None = None, **part: Any) -> SourceRead:
    """Return a read of an Arrow table as a stream."""
    return SourceRead(
        name=name,
        schema=rows.schema,
        field_ids=tuple(range(1, len(rows.schema) + 1)),
        parts=(ReadPart(paths=None, batches=rows.to_reader, **part),),
        event_time=event_time,
    )


def read_table(table: Table, name: str = "src", *, by_path: bool) -> SourceRead:
    """Return a read of all live rows of an Iceberg table, by file paths or as a stream."""
    paths = tuple(task.file.file_path for task in table.scan().plan_files())
    return SourceRead(
        name=name,
        schema=table.schema().as_arrow(),
        field_ids=tuple(f.field_id for f in table.schema().fields),
        parts=(ReadPart(paths=paths if by_path else None, batches=lambda: table.scan().to_arrow_batch_reader()),),
    )


def run(
    transform: str | Callable[..., Any],
    *reads: SourceRead,
    target: pa.Schema | None = None,
    order_by: Sequence[str] = (),
    work_dir: Path | None = None,
    of: Plan | None = None,
) -> pa.Table:
    """Run a transform to its end."""
    with ENGINE.run(
        transform, reads, of or plan(), target_schema=target, order_by=order_by, work_dir=work_dir
    ) as batches:
        return batches.read_all()
