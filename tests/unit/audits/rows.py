"""Rows to audit, without a table around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.run import run_audits
from airflow_incremental.audits.subject import Subject
from airflow_incremental.core.audit import AuditReport, AuditResult
from airflow_incremental.core.reads import ReadPart, SourceRead
from airflow_incremental.core.statistics import Statistics

SNAPSHOT = 8128


def read_of(
    *tables: pa.Table, paths: tuple[str, ...] | None = None, opened: Callable[[], None] = lambda: None
) -> SourceRead:
    """Return a read of all rows of the tables, each a part of its own; with ``paths``, of one table in files."""

    def part(table: pa.Table) -> ReadPart:
        def batches() -> pa.RecordBatchReader:
            opened()
            return table.to_reader()

        return ReadPart(paths=paths, batches=batches)

    schema = tables[0].schema
    return SourceRead(
        name="written",
        schema=schema,
        field_ids=tuple(range(1, len(schema.names) + 1)),
        parts=tuple(map(part, tables)),
    )


def subject_of(read: SourceRead) -> Subject:
    """Return a subject whose every scope is the rows of one read."""
    return Subject(snapshot_id=SNAPSHOT, read=lambda _over: read, statistics=lambda _over: statistics(read))


def statistics(read: SourceRead) -> Statistics:
    """Return statistics that know how many rows there are, and no more."""

    def rows() -> list[int]:
        return [sum(batch.num_rows for batch in part.batches()) for part in read.parts]

    nothing = [None] * len(read.parts)
    return Statistics(
        schema=read.schema,
        rows=rows(),
        deleted=0,
        nulls=lambda _path: nothing,
        bounds=lambda _path: (nothing, nothing),
        partitions=dict,
    )


def audit(table: pa.Table, *audits: Audit, **options: Any) -> AuditReport:
    return run_audits(audits, subject_of(read_of(table)), **options)


def only(table: pa.Table, check: Audit, **options: Any) -> AuditResult:
    (result,) = audit(table, check, **options).results
    return result
