"""late-bench without late rows: what the package costs where there is nothing for it to find.

``lookback 0`` computes the newest day and is right here; a session that finds exactly that day can at best cost the same. In the
engine it should; beyond it, planning, locking, sealing and publishing come on top of one plain commit, whatever the rows are.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from benchmarks import late
from benchmarks.late.race import Scale
from benchmarks.report import Report

_LEAST = "lookback 0"
FULL = attrs.evolve(late.FULL, contenders=("ours", _LEAST, "lookback 3"), late="none")
QUICK = attrs.evolve(late.QUICK, contenders=FULL.contenders, late="none")
_MOST_OVERHEAD = 1.1


def run(report: Report, home: Path, scale: Scale) -> None:
    """Measure, print and judge."""
    results = late.measured(report, home, scale)
    report.table("Besides the engine", list(results.besides_the_engine(_LEAST)))
    report.aim(
        f"engine time of ours / of {_LEAST}, all hops",
        results.times("ours", _LEAST, late.ALL, "engine ms"),
        most=_MOST_OVERHEAD,
        unit="times",
    )
