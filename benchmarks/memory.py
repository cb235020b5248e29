"""How much memory a load takes whose output is many times what the writer may hold.

The transform makes rows of about 150 bytes in no useful order, spread over 48 hourly partitions; DuckDB may use 256 MB, the writer
gathers 128 MiB before it writes. Against it: the same rows as one Arrow table, appended by pyiceberg. Each load is a process of its
own, whose peak the operating system tells; ``one row`` is what the imports take.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from airflow_incremental.iceberg.writer import BUDGET_BYTES
from benchmarks.histories import SCHEMA, new_catalog
from benchmarks.report import Case, Report
from benchmarks.timing import Child, child, children_in_turn, timings_of
from benchmarks.worlds import SOURCE, make_target, rows

#: Rows that are loaded.
FULL = (1, 500_000, 2_000_000, 6_000_000)
QUICK = (1, 20_000)
_ROW_BYTES = 8 + 8 + 4 + 128 + 8
_MOST_GROWTH = 1.25


def run(report: Report, home: Path, counts: tuple[int, ...]) -> None:
    """Measure, print and judge."""
    cases = []
    for count in counts:
        report.doing(f"{count:,} rows")
        ways = ("session", "at once")
        found = children_in_turn(
            {how: partial(_load, home, how, count) for how in ways},
            # Loads are long, and what is asked for is their peaks, which hardly differ.
            rounds=1,
            warm_up=False,
        )
        cases.append(
            Case(
                labels={"rows": count, "Arrow MiB": count * _ROW_BYTES / 2**20},
                timings={how: timings_of(found[how]) for how in ways},
                counts={f"peak MiB, {how}": max(c.peak_mib for c in found[how]) for how in ways}
                | {"files, session": json.loads(found["session"][0].output.splitlines()[-1])["files"]},
            )
        )
    report.table(f"Memory of a load (the writer gathers {BUDGET_BYTES / 2**20:,.0f} MiB)", cases)
    small, large = cases[-2], cases[-1]
    report.aim(
        f"peak of a session, {large.labels['Arrow MiB']:,.0f} MiB of output / {small.labels['Arrow MiB']:,.0f} MiB",
        large.counts["peak MiB, session"] / small.counts["peak MiB, session"],
        most=_MOST_GROWTH,
        unit="times",
    )


def _load(home: Path, how: str, count: int) -> Sequence[Child]:
    place = home / "load"
    catalog = new_catalog(place)
    catalog.create_table(SOURCE, schema=SCHEMA, properties={"format-version": "2"}).append(rows(0))
    make_target(catalog)
    catalog.engine.dispose()
    try:
        return [child("-m", "benchmarks.loading", how, str(place), str(count))]
    finally:
        shutil.rmtree(place)
