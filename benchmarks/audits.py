"""What auditing costs: six usual checks over many rows, and what manifests know about many files.

The checks are a Great Expectations suite: rows, nulls, uniqueness, a range, a set and a mean. ``fast path`` runs it as an audit of
this package, ``gx`` is Great Expectations over a pandas frame, and ``sql`` the same checks as one statement of DuckDB, written by
hand. Each is a process of its own; its times are those of the checks with reading the rows, after the imports (of which Great
Expectations takes five seconds), its peak is the process's. All must find the same.

Audits of statistics look over the whole table, with the manifests' entries at hand, as a plan and a seal have read them;
``entries`` is what reading them takes.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import NoReturn

import attrs

from airflow_incremental.audits import Audit, ColumnRange, NullFraction, Volume
from airflow_incremental.audits.run import run_audits
from airflow_incremental.audits.subject import Subject
from airflow_incremental.core.audit import Over
from airflow_incremental.iceberg.statistics import statistics_of
from benchmarks.auditing import HOWS, MEMORY_LIMIT, make
from benchmarks.histories import KEPT, History, make_table, new_catalog
from benchmarks.report import Case, Report
from benchmarks.timing import Child, Contender, Timings, child, children_in_turn, in_turn, ratio


@attrs.frozen
class Size:
    """How much is audited: rows that are checked, and files of the table whose statistics are."""

    rows: tuple[int, ...]
    files: int


FULL = Size((1_000_000, 10_000_000), 10_000)
QUICK = Size((20_000,), 200)
_MOST_MS = 50
_STATISTICS: tuple[Audit, ...] = (
    NullFraction("region", 0.01, over="table"),
    ColumnRange("v", 0, 100, over="table"),
    Volume(max_ratio=10, over="table"),
)


def run(report: Report, home: Path, size: Size) -> None:
    """Measure, print and judge."""
    cases = [_checks(report, home, count) for count in size.rows]
    report.table(f"Six checks (milliseconds: wall / CPU; DuckDB may use {MEMORY_LIMIT})", cases)
    last = cases[-1]
    rows = f"{last.labels['rows']:,} rows"
    report.aim(f"fast path / hand-written SQL, {rows}", last.ratios["fast path / sql"], most=1.3, unit="times")
    report.aim(f"GX via pandas / fast path, {rows}", last.ratios["gx / fast path"], least=4, unit="times")
    report.aim(
        f"peak memory of the fast path / of GX via pandas, {rows}",
        last.counts["peak MiB, fast path"] / last.counts["peak MiB, gx"],
        most=0.2,
        unit="times",
    )

    case = _statistics(report, home, size.files)
    report.table("Audits of statistics over a table (milliseconds: wall / CPU)", [case])
    slowest = max((t for name, t in case.timings.items() if name != "entries"), key=lambda t: t.wall_ms)
    report.aim(f"an audit of the statistics of {size.files:,} files", slowest.wall_ms, most=_MOST_MS, unit="ms")


def _checks(report: Report, home: Path, count: int) -> Case:
    report.doing(f"{count:,} rows")
    path = home / f"{count}.parquet"
    make(path, count)

    def once(how: str) -> list[Child]:
        return [child("-m", "benchmarks.auditing", how, str(path))]

    found = children_in_turn(
        {how: partial(once, how) for how in (*HOWS, "imports")}, rounds=report.rounds, warm_up=not report.quick
    )
    said = {how: [json.loads(c.output.splitlines()[-1]) for c in found[how]] for how in HOWS}
    answers = {json.dumps(one["found"]) for each in said.values() for one in each}
    assert len(answers) == 1, answers
    timings = {
        how: Timings(wall=tuple(s["wall"] for s in said[how]), cpu=tuple(s["cpu"] for s in said[how])) for how in HOWS
    }
    return Case(
        labels={"rows": count},
        timings=timings,
        ratios={
            "fast path / sql": ratio(timings["fast path"].wall, timings["sql"].wall),
            "gx / fast path": ratio(timings["gx"].wall, timings["fast path"].wall),
        },
        counts={f"peak MiB, {how}": max(c.peak_mib for c in found[how]) for how in (*HOWS, "imports")},
    )


def _statistics(report: Report, home: Path, files: int) -> Case:
    report.doing(f"statistics of {files:,} files")
    table = make_table(new_catalog(home / "table"), "mart.big", History(snapshots=KEPT - 1, files=files))
    head = table.current_snapshot()
    assert head is not None

    def no_rows(_over: Over) -> NoReturn:
        raise AssertionError("no row is read")

    def subject() -> Subject:
        return Subject(
            snapshot_id=head.snapshot_id, read=no_rows, statistics=statistics_of(table, head.snapshot_id, ())
        )

    def ready() -> Subject:
        found = subject()
        assert len(found.statistics("table").rows) == files
        return found

    def work(audits: tuple[Audit, ...], found: Subject) -> None:
        assert run_audits(audits, found).verdict == "passed"

    each = {audit.type: (audit,) for audit in _STATISTICS} | {"all three": _STATISTICS}
    timings = in_turn(
        {"entries": Contender(lambda _: ready())}
        | {name: Contender(partial(work, audits), ready) for name, audits in each.items()},
        rounds=2 * report.rounds,
    )
    return Case(labels={"files": files}, timings=timings)
