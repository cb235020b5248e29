"""What auditing costs: six usual checks over many rows, and what manifests know about many files.

The checks are a Great Expectations suite: rows, nulls, uniqueness, a range, a set and a mean. ``fast path`` runs it as an audit of
this package, ``gx`` is Great Expectations over a pandas frame, and ``sql`` the same checks as one statement
of DuckDB, written by hand. Each is a process of its own; its times are those of the checks with reading the rows, after
the imports (of which Great Expectations takes five seconds), its peak is the process's. All must find the same.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from benchmarks.auditing import HOWS, MEMORY_LIMIT, make
from benchmarks.report import Case, Report
from benchmarks.timing import Child, Timings, child, children_in_turn, ratio

#: Rows that are checked.
FULL = (1_000_000, 10_000_000)
QUICK = (20_000,)


def run(report: Report, home: Path, counts: tuple[int, ...]) -> None:
    """Measure, print and judge."""
    cases = [_checks(report, home, count) for count in counts]
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
