"""The example of Psyberg's own description in one DAG, tick by tick: which hours each table reads and writes, and when.

Two facts and the dimension are task groups, the fact of cancels is one task; the dimension runs after the three in every run.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import attrs
import pytest
from airflow.sdk import DAG

from airflow_incremental import IncrementalLoad, IncrementalLoadOperator
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.core.stateful import STATE
from airflow_incremental.engines.duckdb import DuckDBEngine
from tests.integration.dagtest.conftest import connect
from tests.integration.dagtest.loads import CONN_ID
from tests.integration.dagtest.runner import Run, new_dag, run_dag
from tests.support.membership import DAY, FACTS, Membership, hour

#: The fact that is one task; the other loads are groups.
FUSED = "cancels"
NOTHING: dict[str, set[int]] = {}


@attrs.define
class Watched(Membership):
    """Notes which hours each transform reads, and runs the DAG."""

    reads: dict[str, dict[str, set[int]]] = attrs.field(factory=dict)
    opened: dict[str, dict[str, set[int]]] = attrs.field(factory=dict)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look at what the engine is given for each name before a transform runs."""
        run = DuckDBEngine.run

        def watched(
            engine: DuckDBEngine, transform: Any, reads: Sequence[SourceRead], plan: Plan, **options: Any
        ) -> AbstractContextManager[Any]:
            # And not the query of the state. Jinja takes the last line break.
            if transform.strip() == self.transform(plan.process).strip():
                self.reads[plan.process] = {read.name: set(hours_of(read)) for read in reads}
                self.opened[plan.process] = {read.name: set(hours_of(read, filtered=False)) for read in reads}
            return run(engine, transform, reads, plan, **options)

        monkeypatch.setattr(DuckDBEngine, "run", watched)

    def run(self, dag: DAG) -> Tick:
        """Run the DAG; every table must then be what a computation from scratch gives."""
        self.reads, self.opened = {}, {}
        run = run_dag(dag)
        assert run.state == "success", run.tasks
        for name in (*FACTS, "accounts"):
            self.verify(name)
        results = {name: result(run, name) for name in (*FACTS, "accounts")}
        wrote = {
            name: self.written(name, found["snapshot_id"]) if found["published"] else set()
            for name, found in results.items()
        }
        for name, hours in self.reads["accounts"].items() if "accounts" in self.reads else ():
            assert name == STATE or self.opened["accounts"][name] == hours, "not even a file of another hour is opened"
        return Tick(run=run, results=results, reads=self.reads, wrote=wrote)


@attrs.frozen(kw_only=True)
class Tick:
    """One run of the DAG.

    :param results: process -> summary of how its load ended.
    :param reads: process whose transform ran -> name in its SQL -> hours of the rows it saw.
    :param wrote: process -> hours in which files were added or taken out.
    """

    run: Run
    results: dict[str, dict[str, Any]]
    reads: dict[str, dict[str, set[int]]]
    wrote: dict[str, set[int]]

    def planned(self, name: str) -> tuple[int, int] | None:
        """Return the first and the last hour of a load's plan, as the task that planned it tells others; None without a plan."""
        if name == FUSED:
            ranges = self.results[name]["ranges"] if self.results[name]["outcome"] == "published" else []
        else:
            ranges = self.run.xcom(f"{name}.plan")["ranges"]
        if not ranges:
            return None
        ((start, end),) = (item.split("/") for item in ranges)
        return hour_number(dt.datetime.fromisoformat(start)), hour_number(dt.datetime.fromisoformat(end)) - 1


def hour_number(moment: dt.datetime) -> int:
    return (moment - DAY) // dt.timedelta(hours=1)


def hours_of(read: SourceRead, *, filtered: bool = True) -> Iterator[int]:
    """Return the hours of a read's rows, or of all rows in the files that are opened for them."""
    for part in read.parts:
        for batch in part.batches():
            times = batch[read.event_time].to_pylist()
            yield from (hour_number(t) for t in times if not filtered or part.keep is None or part.keep.contains(t))


def result(run: Run, name: str) -> dict[str, Any]:
    found = run.xcom(name if name == FUSED else f"{name}.publish")
    assert isinstance(found, dict)
    return found


@pytest.fixture
def membership(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    world = Watched(home=tmp_path / "lake")
    world.set_up()
    world.watch(monkeypatch)
    connect(world.home, monkeypatch)
    return world


@pytest.fixture
def dag(dag_id: str) -> DAG:
    with new_dag(dag_id) as made:
        loads = {}
        for name in (*FACTS, "accounts"):
            arguments = {
                **Membership.declaration(name),
                "transform": Membership.transform(name),
                "iceberg_conn_id": CONN_ID,
                "retry_delay": 0,
            }
            if name == FUSED:
                loads[name] = IncrementalLoadOperator(task_id=name, **arguments)
            else:
                loads[name] = IncrementalLoad(name, **arguments)
        [loads[name] for name in FACTS] >> loads["accounts"]
    return made


def loaded_through_hour_5(membership: Watched, dag: DAG) -> None:
    for name in FACTS:
        membership.land(name, 0, 1, 2, 3, 4, 5, complete=5)
    first = membership.run(dag)
    assert first.wrote == {name: {0, 1, 2, 3, 4, 5} for name in (*FACTS, "accounts")}
    assert {membership.watermark(n).complete_through for n in first.results} == {hour(6)}
    assert membership.watermark("accounts").processed_through == hour(6)


def test_the_golden_example(membership: Watched, dag: DAG) -> None:
    loaded_through_hour_5(membership, dag)

    for name in ("signups", "plans"):
        membership.land(name, 2, 3, 6, complete=6)
    membership.land("cancels", 5, 6, 7, complete=7)
    tick = membership.run(dag)

    # Late rows are appended to the old hours they belong to; from the late cancel on everything is replaced, in order; the
    # dimension starts at the earliest change of all and stops before hour 7, which two of its sources do not have yet.
    assert tick.wrote == {"signups": {2, 3, 6}, "plans": {2, 3, 6}, "cancels": {5, 6, 7}, "accounts": {2, 3, 4, 5, 6}}
    assert tick.planned("cancels") == (5, 7)
    assert tick.planned("accounts") == (2, 6)
    assert tick.reads["signups"] == tick.reads["plans"] == {"raw": {2, 3, 6}}, "the added rows"
    assert {name: hours for name, hours in tick.reads["cancels"].items() if name != STATE} == {"raw": {5, 6, 7}}
    assert tick.reads["cancels"][STATE] <= set(range(5)), "what was before"
    dimension = tick.reads["accounts"]
    assert dimension.pop(STATE) <= {0, 1}
    assert dimension == {name: {2, 3, 4, 5, 6} for name in FACTS}
    assert membership.watermark("accounts").processed_through == hour(7)
    assert membership.watermark("cancels").complete_through == hour(8), "hour 7 of the cancels waits in the fact"

    for name in ("signups", "plans"):
        membership.land(name, complete=7)
    tick = membership.run(dag)

    # No row came, but hour 7 is complete now: the facts publish that much, and the dimension computes the hour that waited.
    assert [tick.results[n]["complete_through"] for n in FACTS] == ["2023-09-14T08:00:00Z"] * 3
    assert tick.wrote == {"signups": set(), "plans": set(), "cancels": set(), "accounts": {7}}
    assert set(tick.reads) == {"accounts"}, "no other transform runs"
    dimension = tick.reads["accounts"]
    assert dimension.pop(STATE) <= set(range(7))
    assert dimension == {"signups": set(), "plans": set(), "cancels": {7}}
    assert tick.planned("accounts") == (7, 7)
    assert membership.watermark("accounts").processed_through == hour(8)

    idle = membership.run(dag)
    assert {found["outcome"] for found in idle.results.values()} == {"nothing_to_do"}
    assert (idle.reads, set(itertools.chain.from_iterable(idle.wrote.values()))) == (NOTHING, set())


def test_late_signups_that_page_nobody(membership: Watched, dag: DAG) -> None:
    """Psyberg part 1: signups of hour 3 arrive at hour 6. By hand: find them, stop downstream, rerun 3 to 6 in order, catch up."""
    loaded_through_hour_5(membership, dag)

    membership.land("signups", 3, 3, 6, complete=6)
    membership.land("plans", 6, complete=6)
    membership.land("cancels", 6, complete=6)
    tick = membership.run(dag)

    assert tick.wrote == {"signups": {3, 6}, "plans": {6}, "cancels": {6}, "accounts": {3, 4, 5, 6}}
    assert tick.reads["signups"] == {"raw": {3, 6}}
    assert tick.reads["plans"] == {"raw": {6}}
    assert tick.reads["cancels"]["raw"] == {6}
    dimension = tick.reads["accounts"]
    assert dimension.pop(STATE) <= {0, 1, 2}
    assert dimension == {"signups": {3, 4, 5, 6}, "plans": {3, 4, 5, 6}, "cancels": {3, 4, 5, 6}}
    assert tick.planned("accounts") == (3, 6)
    assert tick.run.xcom("accounts.plan")["late_ranges"] == ["2023-09-14T03:00:00Z/2023-09-14T04:00:00Z"]
    assert {tick.run.tries[task] for task in tick.run.tasks} == {1}, "nobody had to rerun anything"
    assert membership.watermark("accounts").processed_through == hour(7)
