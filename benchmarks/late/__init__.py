"""late-bench: a chain of three tables kept up to date for some weeks while rows come late, by several contenders.

The chain (:mod:`~benchmarks.late.hops`) is made of 365 days of events. Each tick one day more arrives, and late rows of days
before (:mod:`~benchmarks.late.arrivals`); then every contender in turn brings its own three tables up to date, in a warehouse of
its own (:mod:`~benchmarks.late.worker`), and what it has is compared, partition by partition, with what all of it computed anew
is (:mod:`~benchmarks.late.truth`). All run the same SQL in the same DuckDB, and read and write by the same code; the package's
sessions plan, lock, seal and publish besides, the others commit with pyiceberg (:mod:`~benchmarks.late.others` says what each
does, and why it is right or wrong).

``--daily-rows 200000 --ticks 30`` is the whole of it: 73 million events, a million customers. It takes hours, 24 GiB of memory and
20 GiB in the temporary directory; single figures go to ``build/bench/<name>.csv`` as they come.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.late.hops import HOPS
from benchmarks.late.race import Scale, race
from benchmarks.late.results import ALL, Results
from benchmarks.report import Report

__all__ = ["ALL", "FULL", "QUICK", "measured", "run"]

_CORRECT = "lookback 200"
FULL = Scale(contenders=("ours", "full", "lookback 3", _CORRECT, "merge"))
QUICK = Scale(contenders=FULL.contenders, history=20, daily_rows=200, ticks=1)
_LEAST_TIMES = 5


def run(report: Report, home: Path, scale: Scale) -> None:
    """Measure, print and judge."""
    results = measured(report, home, scale)
    for measure in ("rows read", "engine ms"):
        for hop in (ALL, *HOPS):
            report.aim(
                f"{measure} of {_CORRECT} / of ours, {'all hops' if hop == ALL else hop}",
                results.times(_CORRECT, "ours", hop, measure),
                least=_LEAST_TIMES,
                unit="times",
            )


def measured(report: Report, home: Path, scale: Scale) -> Results:
    """Run the race, print its tables, and ask that the package is right: the one aim of every variant."""
    results = Results.of(race(report, home, scale))
    results.tables(report)
    lost = list(results.lost())
    if lost:
        report.table("Where ours loses: times as much as the other one", lost)
    report.aim(
        "wrong partitions and rows of ours, after any tick",
        max(max(results.wrong("ours", hop)) for hop in HOPS),
        most=0,
        unit="wrong",
    )
    return results
