"""What it costs to commit, against the length of the target's history.

The target's history is made by hand (see :mod:`benchmarks.histories`) as so many sessions of the process would have left it: every
snapshot carries a session's summary. The source is real, small, and has one new row. Every round of every contender begins with a
copy of the target that has exactly the history it says.

``append`` is one ``Table.append`` of one row by pyiceberg: it loads the table, writes the file and commits once. ``session`` is
what the package does for the same row: lock, write the file, seal, publish. ``append mode`` and ``overwrite mode`` are whole runs:
plan, transform in DuckDB, seal, an audit whose result is kept, publish.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from pathlib import Path

import attrs

from airflow_incremental.audits import NotNull
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.spec import Mode
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.locks import take_lock
from airflow_incremental.iceberg.publish import publish
from airflow_incremental.iceberg.seal import Output, seal
from airflow_incremental.iceberg.writer import write
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import draft
from airflow_incremental.sessions.process import Process
from benchmarks.histories import new_catalog
from benchmarks.probes import counting_catalog
from benchmarks.report import Case, Report
from benchmarks.timing import Contender, in_turn, ratio
from benchmarks.worlds import World, process_of, rows

#: Lengths of history.
FULL = (100, 1_000, 10_000)
QUICK = (10, 100)
MODES: tuple[Mode, ...] = ("append", "overwrite")
_MOST_COMMITS = 4


def run(report: Report, home: Path, lengths: tuple[int, ...]) -> None:
    """Measure, print and judge."""
    cases = [_measure(report, home / str(length), length) for length in lengths]
    report.table("Commits, by snapshots in the target's history (milliseconds: wall / CPU)", cases)
    growth = []
    for shorter, longer in itertools.pairwise(cases):
        grew = {name: t.cpu_ms / shorter.timings[name].cpu_ms for name, t in longer.timings.items()}
        labels = {"from": shorter.labels["snapshots"], "to": longer.labels["snapshots"]}
        growth.append(Case(labels=labels, ratios=grew))
    report.table("Commits: growth of CPU time with history", growth)
    first = growth[0]
    report.aim(
        f"growth of a session / of pyiceberg's append, {first.labels['from']} to {first.labels['to']:,} snapshots",
        first.ratios["session"] / first.ratios["append"],
        most=1,
        unit="times",
    )
    report.aim(
        "catalog commits of a whole run",
        max(case.counts[f"commits, {mode}"] for case in cases for mode in MODES),
        most=_MOST_COMMITS,
        unit="commits",
    )


def _measure(report: Report, home: Path, length: int) -> Case:
    report.doing(f"{length:,} snapshots")
    world = World.make(new_catalog(home), snapshots=length)
    copies = world.copies()

    def bound(mode: Mode) -> Callable[[], Process]:
        # All copies keep what their audits found in one table, as one target does from its second session on.
        return lambda: attrs.evolve(
            process_of(world.catalog, mode=mode, target=next(copies), audits=[NotNull("id")]),
            audit_table="bench.audits",
        )

    def planned() -> tuple[Process, Plan]:
        process = bound("append")()
        plan = draft(process, world.catalog.load_table(process.spec.target.table))
        assert isinstance(plan, Plan)
        return process, plan

    def drop(name: str) -> None:
        # One more than there were, and nothing left over, whoever did it.
        metadata = world.catalog.load_table(name).metadata
        assert len(metadata.snapshots) == len(world.target.metadata.snapshots) + 1
        assert set(metadata.refs) <= {"main", naming.watermark_tag("proc")}
        world.catalog.drop_table(name)

    timings = in_turn(
        {
            "append": Contender(
                lambda name: world.catalog.load_table(name).append(rows(length)),
                lambda: next(copies),
                drop,
            ),
            "session": Contender(_session, planned, lambda ready: drop(ready[1].target)),
            "append mode": Contender(steps.run, bound("append"), lambda process: drop(process.spec.target.table)),
            "overwrite mode": Contender(steps.run, bound("overwrite"), lambda process: drop(process.spec.target.table)),
        },
        rounds=report.rounds,
    )
    return Case(
        labels={"snapshots": length},
        timings=timings,
        ratios={"session/append": ratio(timings["session"].cpu, timings["append"].cpu)},
        counts={f"commits, {mode}": _commits(home, bound(mode)()) for mode in MODES},
    )


def _session(ready: tuple[Process, Plan]) -> None:
    """Lock, write the file, seal and publish."""
    process, plan = ready
    begin = take_lock(process.catalog, process.spec, plan, over=None)
    target = process.catalog.load_table(plan.target)
    write_id = uuid.uuid4()
    written = write(target, rows(0).to_reader(), write_id=write_id, check=None)
    output = Output(
        files=written.files,
        write_id=write_id,
        fingerprint=process.fingerprint,
        schema_id=target.metadata.current_schema_id,
        spec_id=target.metadata.default_spec_id,
    )
    sealed = seal(process.catalog, process.spec, begin, output)
    publish(process.catalog, begin, sealed, verdict="none")


def _commits(home: Path, process: Process) -> int:
    """Return how many commits a whole run makes."""
    catalog = counting_catalog(home)
    finished = steps.run(attrs.evolve(process, catalog=catalog))
    assert finished.outcome == "published"
    catalog.drop_table(process.spec.target.table)
    return catalog.commits
