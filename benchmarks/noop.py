"""What a run costs that finds nothing new, which is what most runs of a large deployment do.

``own work`` is a whole run in this process, imports done, on a source and a target of so many snapshots; ``with
catalog`` connects to the catalog as well, as every task does once. Then whole task processes (see
:mod:`benchmarks.task`): what the operating system says a process used that imports Airflow's SDK, makes a DAG, and runs
a stage. The operator is one such process. A group is two: ``plan`` skips ``load`` and ``audit``, for which Airflow then
starts none, and ``publish`` says that there was nothing to do. A real worker forks a task from a process that has
imported Airflow already, so what ``import`` and Airflow's own work cost is not the package's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Process
from benchmarks.histories import CATALOG, new_catalog, places
from benchmarks.report import Case, Report
from benchmarks.timing import Child, Contender, child, children_in_turn, in_turn, timings_of
from benchmarks.worlds import World, process_of

#: Lengths of the histories of source and target; the first is the one the aim speaks of.
FULL = (100, 1_000, 10_000)
QUICK = (10,)
_MOST_MS = 100


def run(report: Report, home: Path, lengths: tuple[int, ...]) -> None:
    """Measure, print and judge."""
    cases = [_own_work(report, home / str(length), length) for length in lengths]
    report.table(
        "A run with nothing to do: own work, by snapshots in source and target (milliseconds: wall / CPU)", cases
    )
    report.table("A run with nothing to do: task processes", _processes(home, lengths[0], report))
    report.aim(
        f"own work of a run with nothing to do, {lengths[0]} snapshots",
        cases[0].timings["own work"].wall_ms,
        most=_MOST_MS,
        unit="ms",
    )


def _own_work(report: Report, home: Path, length: int) -> Case:
    report.doing(f"{length:,} snapshots")
    World.make(new_catalog(home), snapshots=length, source_snapshots=length, new_rows=False)
    catalog = new_catalog(home)

    def idle(process: Process) -> None:
        assert steps.run(process).outcome == "nothing_to_do"

    timings = in_turn(
        {
            "own work": Contender(idle, lambda: process_of(catalog)),
            "with catalog": Contender(lambda _: idle(process_of(new_catalog(home)))),
        },
        # They are short, and the aim is about them.
        rounds=2 * report.rounds,
    )
    return Case(labels={"snapshots": length}, timings=timings)


def _processes(home: Path, length: int, report: Report) -> list[Case]:
    report.doing("task processes")
    place = home / str(length)
    store = home / "xcom.json"
    environment = {
        "AIRFLOW_HOME": str(home / "airflow"),
        f"AIRFLOW_CONN_{CATALOG.upper()}": json.dumps(
            {"conn_type": "iceberg", "extra": {"type": "sql", **places(place)}}
        ),
    }

    def stages(*names: str) -> Sequence[Child]:
        store.unlink(missing_ok=True)
        return [child("-m", "benchmarks.task", name, str(store), environment=environment) for name in names]

    contenders = {
        "import Airflow's SDK": ("import",),
        "and make the DAG": ("none",),
        "operator": ("all",),
        "group": ("plan", "publish"),
    }
    found = children_in_turn(
        {name: partial(stages, *names) for name, names in contenders.items()},
        rounds=report.rounds,
        warm_up=not report.quick,
    )
    base = timings_of(found["import Airflow's SDK"])
    cases = []
    for name, used in found.items():
        outcomes = [json.loads(line) for c in used for line in c.output.splitlines() if line.startswith("{")]
        assert all(o["outcome"] == "nothing_to_do" for o in outcomes)
        count = len(contenders[name])
        timings = timings_of(used)
        cases.append(
            Case(
                labels={"what": name, "processes": count},
                timings={"all": timings},
                counts={
                    "CPU ms beyond the SDK's": timings.cpu_ms - count * base.cpu_ms,
                    "peak MiB": max(c.peak_mib for c in used),
                }
                | ({"ms in the stage": sum(o["ms"] for o in outcomes) / len(outcomes)} if outcomes else {}),
            )
        )
    return cases
