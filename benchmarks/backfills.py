"""Five years by the hour in a real Airflow: one run in chunks, killed on the way, against Airflow's own backfills.

First what planning costs beyond reading metadata, in process. Then an Airflow whose database and Iceberg catalog are in PostgreSQL,
with a source of two rows for each of 43,800 hours, a file for each day, and targets with a row and a file for each hour:

* a first load by one run of ``IncrementalLoad(parallel_chunks=2, max_chunks=100)``, and by one run of a single task;
* a restatement of all hours by the form, with another factor in the SQL, of which the process of one mapped task is killed, and
  later the scheduler with all its tasks;
* a small range by Airflow's own backfills, by the hour and by the day, and by the form.

After each of them the target is compared, row for row, with what DuckDB computes from all rows of the source.
"""

from __future__ import annotations

import datetime as dt
import os
import statistics
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import attrs

from benchmarks.backfill import native, pure
from benchmarks.backfill.killing import CHUNK_TASK, DAG_ID, Killed
from benchmarks.backfill.lake import Load
from benchmarks.backfill.place import Place, Try, place, seconds_of
from benchmarks.report import Case, Report
from demo.client import TaskRun
from demo.landing import Lakehouse
from tests.integration.postgres import PostgresServer, find_binaries

_MOST_SECONDS = 1
#: DAG -> the step of its backfills, and how many of them five years are.
_STEPS = {"by_hour": (dt.timedelta(hours=1), 43_800), "by_day": (dt.timedelta(days=1), 1_826)}


@attrs.frozen(kw_only=True)
class Size:
    """How much is measured.

    :param planned: hours of the plans that are made in process.
    :param hours: of the source.
    :param chunks: at most.
    :param runs: of Airflow's backfills, by the hour and by the day.
    """

    planned: int
    hours: int
    chunks: int
    runs: tuple[int, int]


FULL = Size(planned=43_800, hours=43_800, chunks=100, runs=(24, 7))
QUICK = Size(planned=240, hours=240, chunks=4, runs=(3, 2))


def run(report: Report, home: Path, size: Size) -> None:
    """Measure, print and judge."""
    plan(report, home, size)
    binaries = find_binaries()
    assert binaries is not None, "the benchmark needs PostgreSQL"
    with PostgresServer(binaries, durable=True) as server:
        lakehouse = Lakehouse(home / "lakehouse", uri=server.create_database("catalog", driver="psycopg2"))
        years = [
            Load(lakehouse=lakehouse, source="years", target=target, hours=size.hours)
            for target in ("in_chunks", "in_one_task")
        ]
        days = [
            Load(lakehouse=lakehouse, source=name, target=name, hours=runs * (step // dt.timedelta(hours=1)))
            for (name, (step, _)), runs in zip(_STEPS.items(), size.runs, strict=True)
        ]
        held = [load.make() for load in (*years, *days)]
        environment = {
            "BENCH_MAX_CHUNKS": str(size.chunks),
            # So small that there are as many chunks as there may be.
            "BENCH_CHUNK_BYTES": str(held[0] // size.chunks),
        }
        report.doing("starting an Airflow")
        with place(server, lakehouse, home, environment) as airflow:
            _load(report, airflow, years, size)
            restated = _restate(report, airflow, years[0], size)
            for load in days:
                _backfill(report, airflow, load, restated)


def plan(report: Report, home: Path, size: Size) -> None:
    """Measure what planning costs beyond reading metadata; without Airflow."""
    report.doing(f"plans of {size.planned:,} files")
    cases = pure.measure(home / "pure", hours=size.planned, rounds=report.rounds)
    report.table(f"Planning {size.planned:,} files of an hour each, their metadata at hand", cases)
    for label in dict.fromkeys(case.labels["files"] for case in cases):
        slowest = max(case.timings["all"].cpu_ms for case in cases if case.labels["files"] == label)
        report.aim(f"CPU of planning {label}", slowest / 1000, most=_MOST_SECONDS, unit="s")


def _load(report: Report, airflow: Place, years: Sequence[Load], size: Size) -> None:
    loaded = {}
    for load in years:
        report.doing(f"a first load of {size.hours:,} hours, {load.target}")
        airflow.stack.client.unpause(load.target)
        loaded[load.target] = Ended.of(airflow, load.target, airflow.run(load.target))
        load.check(1)
    report.table(
        f"A first load of {size.hours:,} hours, as Airflow tells",
        [_of_run({"tasks": name}, ended, size) for name, ended in loaded.items()],
    )
    chunks, alone = loaded.values()
    mapped = chunks.of_task(CHUNK_TASK)
    some = max(1, len(mapped) // 10)
    parts = {"all": mapped, f"first {some}": mapped[:some], f"last {some}": mapped[-some:]}
    report.table(
        f"Tasks of {len(mapped)} chunks, medians",
        [_of_chunks(label, tasks, chunks) for label, tasks in parts.items()],
    )
    report.table(
        "The other tasks of that run",
        [
            Case(labels={"task": t.task_id}, counts={"s": seconds_of(t)})
            for t in chunks.tasks
            if t.task_id != CHUNK_TASK
        ],
    )
    report.table(
        "Tasks of chunks against one task",
        [
            Case(
                labels={"of": "a chunk"},
                counts={"s that one task does not take": (chunks.spent - alone.spent) / len(mapped)},
                ratios={"all": chunks.spent / alone.spent, "wall": chunks.seconds / alone.seconds},
            )
        ],
    )
    report.aim("mapped tasks", len(mapped), most=size.chunks, unit="tasks")


def _restate(report: Report, airflow: Place, years: Load, size: Size) -> float:
    report.doing(f"a restatement of {size.hours:,} hours, killed on the way")
    asked = {"restate_from": years.start, "restate_to": years.end, "reason": "another factor", "factor": 5}
    killed = Killed(place=airflow, chunks=size.chunks)
    killed.go(asked)
    years.check(5)
    report.table(
        "A restatement that is killed on the way",
        [Case(labels={"what": e.what}, counts={"after s": e.at, "chunk tasks done": e.done}) for e in killed.events],
    )
    ended = Ended.of(airflow, DAG_ID, killed.run_id)
    tries = [ended.tries.get(task.map_index, []) for task in ended.of_task(CHUNK_TASK)]
    again = sum(
        any(earlier.kept and later.computed for earlier, later in combinations(of_chunk, 2)) for of_chunk in tries
    )
    case = _of_run({"tasks": DAG_ID}, ended, size)
    counts = {
        "mapped tasks": len(tries),
        "tries": sum(map(len, tries)),
        "began to compute": sum(each.began for of_chunk in tries for each in of_chunk),
        "computed": sum(len(each.computed) for of_chunk in tries for each in of_chunk),
        "done, and computed again": again,
    }
    report.table("It, in all", [attrs.evolve(case, counts={**case.counts, **counts})])
    report.aim("chunks that were done and computed again", again, most=0, unit="chunks")
    report.aim("mapped tasks of the restatement", len(tries), most=size.chunks, unit="tasks")
    return ended.seconds


def _backfill(report: Report, airflow: Place, load: Load, restated: float) -> None:
    step, years = _STEPS[load.target]
    runs = load.hours // (step // dt.timedelta(hours=1))
    report.doing(f"backfills of {runs} runs, {load.target}")
    found = native.measure(airflow, load, step=step, runs=runs)
    form = statistics.median(found.form)
    cases = [Case(labels={"how": "form", "runs": 1}, counts={"s": form})]
    for at_a_time, seconds in found.backfill.items():
        extrapolated = seconds / runs * years
        cases.append(
            Case(
                labels={"how": f"backfill, {at_a_time} at a time", "runs": runs},
                counts={"s": seconds, "s of a run": seconds / runs, "EXTRAPOLATED hours": extrapolated / 3600},
                ratios={
                    "backfill / form": seconds / form,
                    "EXTRAPOLATED / one run of the form": extrapolated / restated,
                },
            )
        )
    title = f"{load.hours} hours restated, {load.target}; EXTRAPOLATED: {years:,} runs, if each took as long as these"
    report.table(title, cases)


@attrs.frozen(kw_only=True)
class Ended:
    """A run that has succeeded."""

    seconds: float
    tasks: list[TaskRun]
    #: Of the task that computes, by map index.
    tries: dict[int, list[Try]]

    @classmethod
    def of(cls, airflow: Place, dag_id: str, run_id: str) -> Ended:
        """Ask Airflow."""
        computing = CHUNK_TASK if dag_id == DAG_ID else "load"
        return cls(
            seconds=airflow.seconds(dag_id, run_id),
            tasks=airflow.tasks(dag_id, run_id),
            tries=airflow.tries(dag_id, run_id, computing),
        )

    @property
    def spent(self) -> float:
        """Seconds that all tasks took together."""
        return sum(map(seconds_of, self.tasks))

    @property
    def computed(self) -> float:
        """Seconds in which rows were read, computed and written."""
        return sum(s for tries in self.tries.values() for each in tries for s in each.computed)

    def of_task(self, task_id: str) -> list[TaskRun]:
        """Return the instances of a task, in order."""
        return sorted((t for t in self.tasks if t.task_id == task_id), key=lambda t: t.map_index)


def _of_run(labels: dict[str, str], ended: Ended, size: Size) -> Case:
    counts = {
        "run s": ended.seconds,
        "s per 1,000 hours": ended.seconds * 1000 / size.hours,
        "tasks": len(ended.tasks),
        "tasks s": ended.spent,
        "computing s": ended.computed,
        "load average": os.getloadavg()[1],
    }
    return Case(labels=labels, counts=counts)


def _of_chunks(label: str, tasks: Sequence[TaskRun], ended: Ended) -> Case:
    took = [seconds_of(task) for task in tasks]
    computed = [sum(s for each in ended.tries[task.map_index] for s in each.computed) for task in tasks]
    counts = {
        "task s": statistics.median(took),
        "computing s": statistics.median(computed),
        "beside it s": statistics.median(a - b for a, b in zip(took, computed, strict=True)),
    }
    return Case(labels={"chunks": label}, counts=counts)
