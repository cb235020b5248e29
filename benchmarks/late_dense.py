"""late-bench where late rows fall on more and more days, tick by tick: where computing what changed stops to pay.

A tenth of a tick's rows is late, spread over 0, 5, 10, 25, 50, 100 and at last all of the 200 days that ``lookback 200`` computes.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from benchmarks import late
from benchmarks.late.arrivals import LEVELS
from benchmarks.late.race import Scale
from benchmarks.report import Report

_CORRECT = "lookback 200"
FULL = attrs.evolve(late.FULL, contenders=("ours", _CORRECT), late="dense", ticks=2 * len(LEVELS))
QUICK = attrs.evolve(late.QUICK, contenders=FULL.contenders, late="dense")


def run(report: Report, home: Path, scale: Scale) -> None:
    """Measure, print and judge."""
    results = late.measured(report, home, scale)
    report.table(
        f"{_CORRECT} / ours, by days that rows of the tick fall on (below 1: ours loses)",
        list(results.by_days(_CORRECT)),
    )
