"""A load in chunks under Airflow: one mapped task for each, and a task that seals what they wrote."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import task

from airflow_incremental import IncrementalLoad, RowCount
from airflow_incremental.core.errors import PlanExpired
from airflow_incremental.sessions import output, steps
from tests.integration.dagtest.loads import FailsOnce, Worlds, arguments
from tests.integration.dagtest.runner import Run, new_dag, run_again, run_dag
from tests.support.world import World

STAGES = ("plan", "seal", "audit", "publish")


def dag_in_chunks(dag_id: str, world: World, **changes: Any) -> Any:
    options: dict[str, Any] = {"chunk_bytes": 1, "max_chunks": 3, "parallel_chunks": 2, **changes}
    with new_dag(dag_id) as dag:
        group = IncrementalLoad("fact", **arguments(world, **options))

        @task
        def report(session: str | None) -> str:
            return str(session)

        group >> report(group.session["session"])
    return dag


def states(chunks: int, **changes: str) -> dict[str, str]:
    found = {f"fact.{stage}": "success" for stage in STAGES} | {f"fact.load[{n}]": "success" for n in range(chunks)}
    return found | {"report": "success"} | {f"fact.{name}": state for name, state in changes.items()}


def labels(run: Run) -> list[str]:
    """The names of the mapped instances on Airflow's pages."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(
            select(TaskInstance)
            .where(TaskInstance.dag_id == run.dag_id, TaskInstance.run_id == run.run_id, TaskInstance.map_index >= 0)
            .order_by(TaskInstance.map_index)
        )
        return [str(ti.rendered_map_index) for ti in found]


def test_a_load_in_chunks_then_a_small_one_then_nothing(make_world: Worlds, dag_id: str) -> None:
    world = make_world(mode="overwrite")
    dag = dag_in_chunks(dag_id, world)
    world.land(*(n + 0.5 for n in range(9)))

    run = run_dag(dag)

    assert run.tasks == states(3)
    world.check()
    assert (
        run.xcom("fact.plan")
        == labels(run)
        == [
            "2024-01-01 00:00 to 2024-01-01 03:00",
            "2024-01-01 03:00 to 2024-01-01 05:00",
            "2024-01-01 05:00 to 2024-01-01 09:00",
        ]
    )
    session = run.xcom("fact.plan", "state")["session"]
    assert run.xcom("report") == session
    assert run.xcom("fact.publish")["session"] == session
    ((task_id, _, extra),) = run.events()
    assert (task_id, extra["rows"]) == ("fact.publish", 9)

    world.land(4.1)
    run = run_dag(dag)
    assert run.tasks == states(1)
    assert labels(run) == ["all"]
    world.check()

    idle = run_dag(dag)
    assert idle.tasks == {
        **{f"fact.{stage}": "success" for stage in STAGES},
        **{f"fact.{stage}": "skipped" for stage in ("load", "seal", "audit")},
        "report": "success",
    }
    assert idle.xcom("report") == "None"


def test_a_chunk_that_fails_is_tried_again_and_the_others_are_not(
    make_world: Worlds, dag_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    dag = dag_in_chunks(dag_id, world)
    world.land(*(n + 0.5 for n in range(9)))
    fails = FailsOnce(output.keep_chunk)
    monkeypatch.setattr(output, "keep_chunk", fails)
    run = run_dag(dag)
    assert run.tasks == states(3)
    assert sorted(run.tries[f"fact.load[{n}]"] for n in range(3)) == [1, 1, 2]
    assert fails.calls == 4
    world.check()


def test_a_cleared_run_computes_what_is_not_done(
    make_world: Worlds, dag_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    dag = dag_in_chunks(dag_id, world, operator_args={"load": {"retries": 0}})
    world.land(*(n + 0.5 for n in range(9)))
    computed: list[int] = []
    one_part = output._Producer.one_part

    def fails_at_last(self: output._Producer, number: int) -> Any:
        if number == 2 and not computed.count(2):
            computed.append(2)
            msg = "the machine was switched off"
            raise RuntimeError(msg)
        computed.append(number)
        return one_part(self, number)

    monkeypatch.setattr(output._Producer, "one_part", fails_at_last)
    run = run_dag(dag)
    assert run.state == "failed"
    assert run.tasks["fact.load[2]"] == "failed"
    again = run_again(dag, run)
    assert again.tasks == states(3)
    assert sorted(computed) == [0, 1, 2, 2], "only what was not done"
    world.check()
    # Published by now: a chunk that is cleared alone computes nothing, and says how to.
    again = run_again(dag, again, only="fact.load")
    assert sorted(computed) == [0, 1, 2, 2]
    (said,) = again.rendered("fact.load", 1).values()
    assert said.startswith("nothing was computed: session ")
    assert said.endswith(" is published; to compute it again, clear the run")
    # A run that is cleared computes everything again.
    assert run_again(dag, again).tasks == states(3)
    assert sorted(computed) == [0, 0, 1, 1, 2, 2, 2]
    world.check()


def test_a_plan_that_expires_is_planned_anew_by_the_seal(
    make_world: Worlds, dag_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    dag = dag_in_chunks(dag_id, world)
    world.land(*(n + 0.5 for n in range(9)))
    fails = FailsOnce(steps.produce_chunk, PlanExpired("a file of the plan is gone"))
    monkeypatch.setattr(steps, "produce_chunk", fails)
    run = run_dag(dag)
    assert run.tasks == states(3)
    assert run.xcom("fact.publish")["session"] != run.xcom("fact.plan", "state")["session"]
    world.check()


def test_a_failed_audit_and_then_a_corrected_transform(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    world.land(*(n + 0.5 for n in range(9)))
    run = run_dag(dag_in_chunks(dag_id, world, audits=[RowCount(min=10)]))
    assert run.tasks["fact.audit"] == "failed"
    assert world.target_rows().total() == 0
    again = run_again(dag_in_chunks(dag_id, world, audits=[RowCount(min=1)]), run)
    assert again.tasks == states(3)
    world.check()


def test_arguments_of_the_mapped_task_and_of_the_load(make_world: Worlds, dag_id: str) -> None:
    world = make_world(mode="overwrite")
    world.land(*(n + 0.5 for n in range(9)))

    def transform(relations: Any, _plan: Any) -> Any:
        """What runs over each chunk; one of another thread count would not pass."""
        assert relations["events"].query("events", "SELECT current_setting('threads') AS n").limit(1).fetchall() == [
            (3,)
        ]
        return relations["events"].query(
            "events",
            "SELECT date_trunc('hour', ts) AS hour_ts, region, count(*) AS n, sum(v)::BIGINT AS total FROM events GROUP BY ALL",
        )

    given = {"load": {"threads": 3, "execution_timeout": None, "pool_slots": 1}, "seal": {"retries": 1}}
    dag = dag_in_chunks(dag_id, world, transform=transform, operator_args=given)
    assert dag.get_task("fact.seal").threads == 3
    assert dag.get_task("fact.seal").retries == 1
    assert dag.get_task("fact.load").partial_kwargs["max_active_tis_per_dagrun"] == 2
    assert run_dag(dag).tasks == states(3)
    world.check()


def test_where_a_person_could_be_asked(make_world: Worlds, dag_id: str) -> None:
    """Nothing has to be asked here: a run that asks would not come back. The question is about what the plan says."""
    world = make_world()
    world.land(*(n + 0.5 for n in range(9)))
    dag = dag_in_chunks(dag_id, world, audits=[RowCount(max=99, severity="ask")], approval="on_warning")
    run = run_dag(dag)
    assert run.tasks == states(3, approve="success")
    assert run.xcom("fact.approve")["session"] == run.xcom("fact.plan", "state")["session"]
    world.check()
    assert run_dag(dag).tasks["fact.approve"] == "skipped"
