"""Groups whose writing is done by tasks of the author's, here with plain pyiceberg."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from airflow.sdk import task
from airflow.sdk.exceptions import AirflowSkipException

from airflow_incremental import IncrementalLoad, NotNull
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.operators.runtime import catalog_of
from tests.integration.dagtest.loads import CONN_ID, Worlds, arguments
from tests.integration.dagtest.runner import new_dag, run_dag
from tests.support.world import SOURCE, TARGET, World

#: No plan of these tests covers it.
FAR_HOUR = EventRanges.from_json(["2024-03-01T00:00:00Z/2024-03-01T01:00:00Z"]).ranges[0].start


def times_ten(rows: pa.Table) -> pa.Table:
    v10 = pa.array([v * 10 for v in rows["v"].to_pylist()], pa.int64())
    return rows.drop_columns(["v"]).append_column("v10", v10)


def write_added(branch: str, snapshots: dict[str, int], base_snapshots: dict[str, int | None]) -> None:
    """Append the rows that were added to the source since the base, once."""
    catalog = catalog_of(CONN_ID)
    source, target = catalog.load_table(SOURCE), catalog.load_table(TARGET)
    now = source.scan(snapshot_id=snapshots["events"]).to_arrow()
    base = base_snapshots["events"]
    old = set() if base is None else set(source.scan(snapshot_id=base).to_arrow()["id"].to_pylist())
    rows = times_ten(now.filter(pa.array([i not in old for i in now["id"].to_pylist()], pa.bool_())))
    there = target.scan(snapshot_id=target.refs()[branch].snapshot_id).to_arrow()
    if not set(rows["id"].to_pylist()) <= set(there["id"].to_pylist()):  # a retry finds what the try before it wrote
        target.append(rows.cast(target.schema().as_arrow()), branch=branch)


def append_dag(dag_id: str, world: World, write: Any = write_added, **changes: Any) -> Any:
    with new_dag(dag_id) as dag:
        with IncrementalLoad("fact", **arguments(world, transform=None, **changes)) as fact:
            values = {name: fact.session[name] for name in ("branch", "snapshots", "base_snapshots")}
            task(task_id="write", retries=1, retry_delay=0)(write)(**values)

        @task
        def after(result: dict[str, Any]) -> str:
            return str(result["outcome"])

        after(fact.output)
    return dag


def states(**changes: str) -> dict[str, str]:
    stages = dict.fromkeys(["fact.plan", "fact.write", "fact.seal", "fact.audit", "fact.publish", "after"], "success")
    return {**stages, **{name if name == "after" else f"fact.{name}": state for name, state in changes.items()}}


def test_own_writes_are_audited_and_published(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    dag = append_dag(dag_id, world, audits=[NotNull("region")])
    world.land(1, 2)
    first = run_dag(dag)
    assert first.tasks == states()
    world.check()
    world.land(0.5, 3)
    second = run_dag(dag)
    assert second.tasks == states()
    world.check()
    ((task_id, _, extra),) = second.events()
    assert (task_id, extra["rows"], extra["audits"]) == ("fact.publish", 2, "passed")

    idle = run_dag(dag)

    assert idle.tasks == states(write="skipped", seal="skipped", audit="skipped")
    assert idle.xcom("after") == "nothing_to_do"


def test_a_failed_audit_of_own_writes(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    dag = append_dag(dag_id, world, audits=[{"type": "row_count", "min": 2}])
    world.land(1)
    run = run_dag(dag)
    assert run.tasks == states(audit="failed", publish="upstream_failed", after="upstream_failed")
    assert world.target_rows().total() == 0
    world.land(2)
    assert run_dag(dag).tasks == states()
    world.check()


def test_nothing_is_published_when_the_author_skips_the_writing(make_world: Worlds, dag_id: str) -> None:
    def write(**_: Any) -> None:
        raise AirflowSkipException

    world = make_world()
    world.land(1)
    skipped = run_dag(append_dag(f"{dag_id}_skips", world, write))
    assert skipped.tasks == states(write="skipped", seal="skipped", audit="skipped", publish="skipped", after="skipped")
    assert skipped.events() == []
    assert world.target_rows().total() == 0

    run = run_dag(append_dag(dag_id, world))  # the skipped run is over, so its session is taken over

    assert run.tasks == states()
    world.check()


def test_rows_outside_the_planned_ranges_fail(make_world: Worlds, dag_id: str) -> None:
    world = make_world(mode="overwrite")
    world.land(1)

    with new_dag(dag_id) as dag, IncrementalLoad("fact", **arguments(world, transform=None)) as fact:

        @task
        def write(branch: str, start: str, end: str) -> None:
            target = catalog_of(CONN_ID).load_table(TARGET)
            hours = [EventRanges.from_json([f"{start}/{end}"]).ranges[0].start, FAR_HOUR]
            rows = {"hour_ts": hours, "region": ["eu", "eu"], "n": [1, 1], "total": [1, 1]}
            target.append(pa.table(rows, schema=target.schema().as_arrow()), branch=branch)

        write(fact.session["branch"], fact.session["range_start"], fact.session["range_end"])

    run = run_dag(dag)

    assert run.tasks["fact.seal"] == "failed"
    assert run.tries["fact.seal"] == 1
    assert world.target_rows().total() == 0


def test_mapped_own_writes_are_skipped_with_the_rest(make_world: Worlds, dag_id: str) -> None:
    def write(branch: str, part: int, snapshots: Any, base_snapshots: Any) -> None:
        if part == 0:
            write_added(branch, snapshots, base_snapshots)

    world = make_world()
    with new_dag(dag_id) as dag, IncrementalLoad("fact", **arguments(world, transform=None)) as fact:
        values = {name: fact.session[name] for name in ("branch", "snapshots", "base_snapshots")}
        task(task_id="write")(write).partial(**values).expand(part=[0, 1])
    world.land(1)
    run = run_dag(dag)
    assert run.state == "success", run.tasks
    world.check()
    idle = run_dag(dag)
    assert {name for name, state in idle.tasks.items() if state == "skipped"} == {
        "fact.write[0]",
        "fact.write[1]",
        "fact.seal",
        "fact.audit",
    }
    assert idle.tasks["fact.publish"] == "success"


def test_a_group_that_nobody_writes_for_is_not_imported(make_world: Worlds, dag_id: str) -> None:
    """Without the with block there are no tasks between plan and seal; nothing written must not mean an empty range."""
    world = make_world(mode="overwrite")
    world.land(1)
    with new_dag(dag_id) as dag:
        IncrementalLoad("fact", **arguments(world, transform=None))
    with pytest.raises(ArgumentError, match="no tasks of its own between plan and seal"):
        run_dag(dag)
    assert world.target_rows() == {}


@pytest.mark.parametrize("died", ["before", "after"])
def test_a_write_that_died_is_repeated(make_world: Worlds, dag_id: str, died: str) -> None:
    tries = []

    def write(branch: str, snapshots: Any, base_snapshots: Any) -> None:
        tries.append(branch)
        if len(tries) == 1 and died == "before":
            raise RuntimeError
        write_added(branch, snapshots, base_snapshots)
        if len(tries) == 1:
            raise RuntimeError

    world = make_world()
    world.land(1, 2)
    run = run_dag(append_dag(dag_id, world, write))
    assert run.tasks == states()
    assert tries[0] == tries[1]
    world.check()
