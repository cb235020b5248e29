"""The task group: a stage per task, which tell each other no more than ids and small summaries."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import task, task_group

from airflow_incremental import IcebergSource, IcebergTarget, IncrementalLoad, NotNull, RowCount, iceberg_asset
from airflow_incremental.core.errors import TargetChanged
from airflow_incremental.iceberg.locks import renew_lock
from airflow_incremental.sessions import auditing, steps
from tests.integration.dagtest.loads import CONN_ID, FailsOnce, Worlds, arguments
from tests.integration.dagtest.runner import new_dag, run_again, run_dag
from tests.support.world import SOURCE, TARGET, World

STAGES = ("plan", "load", "audit", "publish")


def dag_with_group(dag_id: str, world: World, **changes: Any) -> Any:
    with new_dag(dag_id) as dag:
        group = IncrementalLoad("fact", **arguments(world, **changes))

        @task
        def report(session: str | None, result: dict[str, Any]) -> str:
            return f"{result['outcome']} by {session}"

        group >> report(group.session["session"], group.output)
    return dag


def states(**changes: str) -> dict[str, str]:
    found = {**dict.fromkeys(STAGES, "success"), "report": "success", **changes}
    return {name if name == "report" else f"fact.{name}": state for name, state in found.items()}


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_load_and_then_nothing_to_do(make_world: Worlds, dag_id: str, mode: str) -> None:
    world = make_world(mode=mode)
    dag = dag_with_group(dag_id, world, audits=[NotNull("region")])
    world.land(1, 2, 3)

    run = run_dag(dag)

    world.check()
    assert run.tasks == states()
    planned = run.xcom("fact.plan")
    assert planned["session"] == run.xcom("fact.plan", "session")
    assert planned["snapshots"] == {"events": world.source.current_snapshot().snapshot_id}
    assert planned["base_snapshots"] == {"events": None}
    assert run.xcom_keys("fact.plan") == {"return_value", "session", "_link_SessionPlanLink"}, (
        "only what is referred to"
    )
    ((task_id, uri, extra),) = run.events()
    assert (task_id, uri) == ("fact.publish", iceberg_asset(TARGET, CONN_ID).uri)
    assert extra["session"] == planned["session"]
    assert extra["snapshot_id"] == world.target.current_snapshot().snapshot_id
    assert extra["audits"] == "passed"
    assert run.xcom("report") == f"published by {planned['session']}"
    for stage in STAGES:
        assert len(json.dumps(run.xcom(f"fact.{stage}"))) < 1_500
        assert run.xcom(f"fact.{stage}", "_link_SessionPlanLink").endswith("/tasks/fact.plan/rendered_templates")
    assert "of process 'proc'" in run.rendered("fact.plan")["plan_summary"]
    assert "sealed as snapshot" in run.rendered("fact.load")["plan_summary"]
    assert "not_null(region)" in run.rendered("fact.audit")["plan_summary"]
    assert "published 3 rows" in run.rendered("fact.publish")["plan_summary"]

    idle = run_dag(dag)

    assert idle.tasks == states(load="skipped", audit="skipped")
    assert idle.tries["fact.load"] == idle.tries["fact.audit"] == 0, "what is skipped is not even started"
    assert idle.events() == []
    assert idle.xcom("report") == "nothing_to_do by None"
    assert idle.rendered("fact.publish")["plan_summary"].startswith("nothing to do: ")


def test_where_nothing_has_to_be_asked_the_load_goes_on(make_world: Worlds, dag_id: str) -> None:
    """A run that asks would not come back here."""
    world = make_world()
    dag = dag_with_group(dag_id, world, audits=[RowCount(max=9, severity="ask")], approval="on_warning")
    world.land(1)
    run = run_dag(dag)
    assert run.tasks == states() | {"fact.approve": "success"}
    assert run.xcom("fact.approve") == {"session": run.xcom("fact.plan")["session"], "decision": None, "rejected": None}
    world.check()
    assert run_dag(dag).tasks == states(load="skipped", audit="skipped") | {"fact.approve": "skipped"}


def test_nothing_to_do_can_skip_the_group_and_what_follows(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    dag = dag_with_group(dag_id, world, on_no_change="skip")
    world.land(1)
    assert run_dag(dag).tasks == states()
    assert run_dag(dag).tasks == states(load="skipped", audit="skipped", publish="skipped", report="skipped")


def test_a_failed_audit_keeps_publish_from_running(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    dag = dag_with_group(dag_id, world, audits=[RowCount(min=2)])
    world.land(1)
    run = run_dag(dag)
    assert run.tasks == states(audit="failed", publish="upstream_failed", report="upstream_failed")
    assert run.tries["fact.audit"] == 1
    assert run.events() == []
    assert world.target_rows().total() == 0
    world.land(2)
    assert run_dag(dag).tasks == states()
    world.check()


@pytest.mark.parametrize("stage", ["load", "audit"])
def test_a_stage_marked_as_successful_publishes_nothing(make_world: Worlds, dag_id: str, stage: str) -> None:
    world = make_world()
    dag = dag_with_group(dag_id, world)
    world.land(1)
    run = run_dag(dag, mark_success_pattern=rf"fact\.{stage}")
    assert run.state == "failed"
    assert run.tasks["fact.publish"] in ("failed", "upstream_failed")
    assert world.target_rows().total() == 0
    assert run_dag(dag).tasks == states()
    world.check()


def test_a_plan_that_the_target_outran_is_made_anew_by_the_load(
    make_world: Worlds, dag_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(mode="overwrite")
    outran = FailsOnce(steps.commit_seal, TargetChanged("somebody wrote to the same hours"))
    monkeypatch.setattr(steps, "commit_seal", outran)
    dag = dag_with_group(dag_id, world)
    world.land(1, 2)

    run = run_dag(dag)

    assert run.tasks == states()
    assert run.tries["fact.load"] == 2
    assert run.xcom("fact.load")["planned"] == run.xcom("fact.plan")["session"]
    assert run.xcom("fact.load")["session"] != run.xcom("fact.plan")["session"]
    assert run.xcom("fact.publish")["session"] == run.xcom("fact.load")["session"]
    world.check()


@pytest.mark.parametrize("step", ["commit_seal", "run_audits", "commit_publish"])
@pytest.mark.parametrize("after", [False, True])
def test_a_stage_that_died_is_repeated_without_harm(
    make_world: Worlds, dag_id: str, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    world = make_world()
    module = auditing if step == "run_audits" else steps
    monkeypatch.setattr(module, step, FailsOnce(getattr(module, step), after=after))
    dag = dag_with_group(dag_id, world)
    world.land(1, 2)
    run = run_dag(dag)
    assert run.tasks == states()
    assert sorted(run.tries.values()) == [1, 1, 1, 1, 2]
    assert len(run.events()) == 1
    world.check()


def test_a_retried_stage_renews_the_lock_and_one_that_is_handed_the_session_does_not(
    make_world: Worlds, dag_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    renewed: list[str] = []

    def renew(catalog: Any, begin: Any, owner: Any) -> Any:
        renewed.append(begin.plan.session)
        return renew_lock(catalog, begin, owner)

    monkeypatch.setattr(steps, "renew_lock", renew)
    dag = dag_with_group(dag_id, world)
    world.land(1)
    assert run_dag(dag).tasks == states()
    assert renewed == []
    monkeypatch.setattr(steps, "commit_seal", FailsOnce(steps.commit_seal))
    world.land(2)
    run = run_dag(dag)
    assert run.tries["fact.load"] == 2
    assert renewed == [run.xcom("fact.plan")["session"]]
    world.check()


def test_a_cleared_run_computes_again_what_it_wrote(make_world: Worlds, dag_id: str) -> None:
    world = make_world(mode="overwrite")
    dag = dag_with_group(dag_id, world)
    world.land(1, 2)
    first = run_dag(dag)
    session = first.xcom("fact.publish")["session"]
    world.land(5)
    run_dag(dag)
    again = run_again(dag, first)
    assert again.tasks == states()
    assert again.xcom("fact.publish")["kind"] == "restatement"
    assert again.xcom("fact.publish")["session"] != session
    world.check()


def test_what_an_earlier_try_of_the_run_said_is_not_believed(make_world: Worlds, dag_id: str) -> None:
    """A cleared run that finds nothing to do skips the audit, whose old result is still in XCom."""
    world = make_world()
    without_time = {"sources": {"events": IcebergSource(SOURCE)}, "target": IcebergTarget(TARGET)}
    dag = dag_with_group(dag_id, world, **without_time)
    world.land(1)
    first = run_dag(dag)
    assert first.xcom("fact.audit")["session"] == first.xcom("fact.publish")["session"]

    again = run_again(dag, first)  # without event times, what the session wrote cannot be computed again

    assert again.tasks == states(load="skipped", audit="skipped")
    assert again.xcom("fact.audit") is not None, "the old result is gone; this test shows nothing"
    assert again.xcom("fact.publish")["outcome"] == "nothing_to_do"
    world.check()


def test_in_a_mapped_group(make_world: Worlds, dag_id: str) -> None:
    world = make_world(target_fields=(("identity", "region"),))
    base = arguments(world)
    target = base.pop("target").as_dict()
    base.pop("process")
    base.pop("transform")
    with new_dag(dag_id) as dag:

        @task_group
        def region(name: str) -> None:
            IncrementalLoad(
                "fact",
                process=name,
                target={**target, "scope": {"region": [name]}},
                transform="SELECT id, ts, region, v * 10 AS v10 FROM events WHERE region = '{{ task.process }}'",
                **base,
            )

        region.expand(name=["eu", "us"])
    world.land(1, region="eu")
    world.land(2, 3, region="us")

    run = run_dag(dag)

    assert run.state == "success", run.tasks
    assert set(run.tasks.values()) == {"success"}
    assert len(run.tasks) == 8
    assert world.target_rows() == world.oracle(world.source_rows())

    world.land(4, region="eu")
    idle = run_dag(dag)
    assert idle.state == "success"
    assert world.target_rows() == world.oracle(world.source_rows())

    third = run_dag(dag)
    assert {name: s for name, s in third.tasks.items() if s == "skipped"} == {
        f"region.fact.{stage}[{i}]": "skipped" for stage in ("load", "audit") for i in (0, 1)
    }
    assert [third.tries[f"region.fact.load[{i}]"] for i in (0, 1)] == [0, 0]
