"""What a session costs in a table that has been driven through thousands of them, with maintenance now and then.

Every session appends the two rows that came since the one before: one of the hour that is now, one of an hour of the day before.
So files and manifests pile up in partitions, and snapshots in the history, of the source as of the target. Both are maintained
every so many sessions, as for an hourly load every other day; that is timed by itself.
"""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import attrs
from pyiceberg.table import Table

from airflow_incremental.core.maintenance import MaintenancePolicy
from airflow_incremental.core.plan import Owner
from airflow_incremental.iceberg.maintenance import maintain
from airflow_incremental.sessions import steps
from benchmarks.histories import BY_HOUR, SCHEMA, new_catalog
from benchmarks.report import Case, Report
from benchmarks.timing import Timings
from benchmarks.worlds import SOURCE, TARGET, make_target, process_of, rows

_DAY = 24


@attrs.frozen(kw_only=True)
class Size:
    """How often."""

    sessions: int
    #: Sessions that are looked at together.
    share: int
    #: Sessions between two runs of maintenance.
    every: int


FULL = Size(sessions=2_000, share=100, every=48)
QUICK = Size(sessions=8, share=4, every=3)
POLICY = MaintenancePolicy(
    expire_older_than=dt.timedelta(0), retain_last=10, orphans_older_than=dt.timedelta(0), compact=2
)
_MOST = 2


def run(report: Report, home: Path, size: Size) -> None:
    """Measure, print and judge."""
    catalog = new_catalog(home)
    source = catalog.create_table(SOURCE, schema=SCHEMA, partition_spec=BY_HOUR, properties={"format-version": "2"})
    make_target(catalog)
    # Imports, and what is made once.
    _session(source, 0)
    taken: list[tuple[float, float]] = []
    kept_up: list[tuple[float, float]] = []
    cases: list[Case] = []
    for number in range(1, size.sessions + 1):
        source = catalog.load_table(SOURCE)
        taken.append(_session(source, number))
        if number % size.every == 0:
            kept_up.append(_maintenance(source))
        if number % size.share == 0:
            report.doing(f"{number:,} of {size.sessions:,} sessions")
            cases.append(_case(number, taken[-size.share :], kept_up, cases[:1], catalog.load_table(TARGET)))
            kept_up = []
    report.table("Sessions with maintenance now and then (milliseconds: wall / CPU)", cases)
    found = catalog.load_table(TARGET).scan().to_arrow()
    assert sorted(found.column("id").to_pylist()) == sorted(range(2 * size.sessions + 2)), "no row lost, none doubled"
    report.aim(
        f"CPU time of the dearest {size.share} sessions of {size.sessions:,} / of the first",
        max(case.ratios["CPU / first"] for case in cases),
        most=_MOST,
        unit="times",
    )


def _session(source: Table, number: int) -> tuple[float, float]:
    """Let rows come, run the process and return its wall and CPU seconds."""
    come = rows(number + _DAY, number % _DAY + max(0, number - _DAY))
    ids = come.set_column(0, come.schema.field("id"), [[2 * number, 2 * number + 1]])
    source.append(ids)
    process = process_of(source.catalog)
    process = attrs.evolve(process, owner=attrs.evolve(process.owner, run_id=f"run{number}"))
    cpu, wall = time.process_time(), time.perf_counter()
    finished = steps.run(process)
    took = time.perf_counter() - wall, time.process_time() - cpu
    assert finished.outcome == "published"
    assert isinstance(process.owner, Owner)
    return took


def _maintenance(source: Table) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    maintain(source.catalog, TARGET, POLICY)
    took = time.perf_counter() - wall, time.process_time() - cpu
    maintain(source.catalog, SOURCE, POLICY, consumers=[TARGET])
    return took


def _case(
    number: int,
    taken: list[tuple[float, float]],
    kept_up: list[tuple[float, float]],
    first: list[Case],
    target: Table,
) -> Case:
    session = _timings(taken)
    head = target.current_snapshot()
    assert head is not None
    assert head.summary is not None
    timings = {"session": session}
    if kept_up:
        timings["maintenance"] = _timings(kept_up)
    begun = first[0].timings["session"] if first else session
    return Case(
        labels={"sessions up to": number},
        timings=timings,
        ratios={
            "wall / first": session.wall_ms / begun.wall_ms,
            "CPU / first": session.cpu_ms / begun.cpu_ms,
        },
        counts={
            "snapshots": len(target.metadata.snapshots),
            "manifests": len(head.manifests(target.io)),
            "data files": int(head.summary["total-data-files"] or 0),
        },
    )


def _timings(taken: list[tuple[float, float]]) -> Timings:
    return Timings(wall=tuple(wall for wall, _ in taken), cpu=tuple(cpu for _, cpu in taken))
