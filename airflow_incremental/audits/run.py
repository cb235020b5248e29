"""Run audits over the rows a session wrote.

All built-in audits are one SELECT of counts over the relation ``rows``, so the rows are read once however many there
are. Only what few runs need costs another look: the size of groups of duplicates once there are some, an ``SqlCheck``
of one's own, sample rows.

An audit that cannot be run to its end raises; it never passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.checks import SqlCheck
from airflow_incremental.audits.compile import Counts, Measure, measures_of
from airflow_incremental.audits.forms import validate_audits
from airflow_incremental.audits.query import Rows
from airflow_incremental.core.audit import AuditIncomplete, AuditReport, AuditResult
from airflow_incremental.core.limits import check_samples
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.engines.relations import open_connection
from airflow_incremental.engines.workdir import work_directory
from airflow_incremental.engines.worker import Worker

_RELATION = "rows"


def run_audits(
    audits: Sequence[Audit | Mapping[str, Any]],
    read: SourceRead,
    *,
    snapshot_id: int,
    samples: int = 0,
    memory_limit: str | None = None,
    work_dir: Path | None = None,
) -> AuditReport:
    """Audit the rows of ``read`` and report what was found.

    :param audits: the audits, or their serialised form; the report has one result for each, in this order.
    :param read: the rows the session wrote, exactly those of the sealed snapshot; read under the name ``rows``.
    :param snapshot_id: the sealed snapshot they belong to.
    :param samples: how many offending rows to put into each result. They may hold personal data and travel through
        XCom and logs, so the default is none; no message or error holds a value of a row either way.
    :param memory_limit: what DuckDB may use, such as ``"2GB"``; beyond it it spills to ``work_dir``.
    :param work_dir: where DuckDB's temporary files live while it runs; default is the system's.
    :returns: the report; failed audits do not raise here (see ``AuditReport.raise_if_failed``).
    :raises ArgumentError: for audits that are none or share a name.
    :raises AuditFailed: for an audit that does not fit the rows (unknown column, type that cannot be compared, broken
        SQL).
    :raises AuditIncomplete: when the rows could not be read to their end; a retry may succeed.
    """
    found = validate_audits(audits)
    check_samples(samples)
    if not found:
        return AuditReport(snapshot_id=snapshot_id, rows=None)
    measures = measures_of(found, read.schema)

    def work(rows: Rows) -> tuple[int, list[AuditResult]]:
        rows.bind()
        total, counts = _count(rows, list(measures.values()))
        return total, [
            _own_query(rows, audit, total, samples)
            if isinstance(audit, SqlCheck)
            else _result(rows, measures[audit.name], counts[audit.name], samples)
            for audit in found
        ]

    with _connection(memory_limit, work_dir) as worker:
        total, results = worker.call(work, Rows(worker.con, attrs.evolve(read, name=_RELATION)))
    return AuditReport(snapshot_id=snapshot_id, rows=total, results=tuple(results))


def check_queries(audits: Sequence[Audit], schema: pa.Schema, *, work_dir: Path | None = None) -> None:
    """See whether each ``SqlCheck`` is a query over rows of ``schema``, before there are any to load in vain.

    :raises AuditFailed: one is not.
    """
    own = [audit for audit in audits if isinstance(audit, SqlCheck)]
    if not own:
        return  # a database takes longer to open than all the rest of a plan

    def work(rows: Rows) -> None:
        rows.bind()
        for audit in own:
            rows.view_of(audit)

    nothing = SourceRead(name=_RELATION, schema=schema, field_ids=(), parts=())
    with _connection(None, work_dir) as worker:
        worker.call(work, Rows(worker.con, nothing))


@contextmanager
def _connection(memory_limit: str | None, work_dir: Path | None) -> Iterator[Worker]:
    """Open a connection that an exception in this thread, such as Airflow's timeout, stops in the middle of a query."""
    with (
        work_directory(work_dir, "audit") as directory,
        closing(Worker(open_connection(directory, memory_limit=memory_limit))) as worker,
    ):
        yield worker


def _count(rows: Rows, measures: Sequence[Measure]) -> tuple[int, dict[str, Counts]]:
    """Return the number of rows and, by audit name, what the measures found, from one pass."""
    parts = ["count(*)", *(a for m in measures for a in m.aggregates)]
    values = {name: value for m in measures for name, value in m.values.items()}
    total, *found = rows.numbers(f"SELECT {', '.join(parts)} FROM rows", values)  # noqa: S608
    numbers = iter(found)
    taken = {m.audit.name: [next(numbers) for _ in m.aggregates] for m in measures}
    keyed = [m for m in measures if m.keys]
    doubled = [m for m in keyed if len(set(taken[m.audit.name])) > 1]
    shared = dict.fromkeys((m.audit.name for m in keyed), 0)
    if doubled:
        again = rows.numbers("SELECT " + ", ".join(f"({_shared(m.keys)})" for m in doubled), {})
        shared.update(zip((m.audit.name for m in doubled), again, strict=True))
        if not all(again):
            raise AuditIncomplete(
                "reading the written rows a second time gave other rows than the first",
                expected="the rows of one snapshot, however often they are read",
                hint="retry the task; if it happens again, report it with the storage the table is on",
            )
    for name, n in shared.items():
        taken[name].append(n)
    return total, {m.audit.name: m.read(total, taken[m.audit.name]) for m in measures}


def _shared(keys: Sequence[str]) -> str:
    """Return a query of how many rows share their key with another."""
    present = " AND ".join(f"{k} IS NOT NULL" for k in keys)
    group = f"FROM rows WHERE {present} GROUP BY {', '.join(keys)} HAVING count(*) > 1"
    return f"SELECT coalesce(sum(n), 0)::BIGINT FROM (SELECT count(*) AS n {group})"  # noqa: S608


def _result(rows: Rows, m: Measure, counts: Counts, samples: int) -> AuditResult:
    picked: tuple[Mapping[str, Any], ...] = ()
    if samples and counts.offending and m.offends is not None:
        order = f" ORDER BY {', '.join(m.keys)}" if m.keys else ""  # duplicates next to each other
        picked = rows.samples(f"SELECT * FROM rows WHERE {m.offends}{order} LIMIT {samples}", m.values)  # noqa: S608
    return AuditResult(
        name=m.audit.name,
        severity=m.audit.severity,
        passed=counts.offending == 0,
        offending=counts.offending,
        checked=counts.checked,
        message=counts.message,
        samples=picked,
    )


def _own_query(rows: Rows, audit: SqlCheck, total: int, samples: int) -> AuditResult:
    view = rows.view_of(audit)
    (offending,) = rows.numbers(f"SELECT count(*) FROM {view}", {}, audit=audit)  # noqa: S608
    picked: tuple[Mapping[str, Any], ...] = ()
    if samples and offending:
        picked = rows.samples(f"SELECT * FROM {view} LIMIT {samples}", {}, audit=audit)  # noqa: S608
    return AuditResult(
        name=audit.name,
        severity=audit.severity,
        passed=offending == 0,
        offending=offending,
        checked=total,
        message=f"its query over {total:,} rows returned {offending:,}",
        samples=picked,
    )
