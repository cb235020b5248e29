"""The operator that does all steps in one task, run by Airflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_incremental import IncrementalLoadOperator, NotNull, RowCount, iceberg_asset
from airflow_incremental.iceberg import naming
from airflow_incremental.operators.job import Job
from airflow_incremental.sessions import steps
from tests.integration.dagtest.loads import CONN_ID, FailsOnce, Worlds, arguments
from tests.integration.dagtest.runner import new_dag, register, run_again, run_dag
from tests.support.world import SOURCE, TARGET


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_load_and_then_nothing_to_do(make_world: Worlds, dag_id: str, mode: str) -> None:
    world = make_world(mode=mode)
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, audits=[NotNull("region")]))
    world.land(1, 2, 3)
    run_dag(dag)
    before = world.source.current_snapshot().snapshot_id
    world.land(2.5, 4)

    run = run_dag(dag)

    world.check()
    assert run.tasks == {"load": "success"}
    ((task_id, uri, extra),) = run.events()
    assert (task_id, uri) == ("load", iceberg_asset(TARGET, CONN_ID).uri)
    assert extra == run.xcom("load")
    head = world.target.current_snapshot()
    assert extra == {
        "process": "proc",
        "target": TARGET,
        "outcome": "published",
        "reason": extra["reason"],
        "published": True,
        "session": head.summary[naming.SESSION],
        "snapshot_id": head.snapshot_id,
        "mode": mode,
        "kind": "load",
        "ranges": ["2024-01-01T02:00:00Z/2024-01-01T03:00:00Z", "2024-01-01T04:00:00Z/2024-01-01T05:00:00Z"]
        if mode == "overwrite"
        else extra["ranges"],
        "rows": 2,
        "quarantined_rows": 0,
        "quarantine_table": None,
        "late_rows": 1,
        "audits": "passed",
        "approval": None,
        "complete_through": "2024-01-01T04:00:00Z",
        "skipped": [],
        "watermark": {"events": world.source.current_snapshot().snapshot_id},
        "previous_watermark": {"events": before},
    }
    shown = run.rendered("load")["plan_summary"]
    assert f"session {extra['session']} of process 'proc' ({mode}, load)" in shown
    assert f"published 2 rows (1 late) to {TARGET} as snapshot {head.snapshot_id}" in shown

    idle = run_dag(dag)

    assert idle.tasks == {"load": "success"}
    assert idle.events() == []
    assert idle.xcom("load")["outcome"] == "nothing_to_do"
    assert idle.xcom("load")["published"] is False
    assert idle.rendered("load")["plan_summary"].startswith("nothing to do: ")


def test_nothing_to_do_can_skip(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, on_no_change="skip"))
    world.land(1)
    assert run_dag(dag).tasks == {"load": "success"}
    assert run_dag(dag).tasks == {"load": "skipped"}


def test_a_failed_audit_is_not_retried_and_the_next_run_loads_everything(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, audits=[RowCount(min=2)]))
    world.land(1)

    run = run_dag(dag)

    assert run.tasks == {"load": "failed"}
    assert run.tries == {"load": 1}
    assert run.events() == []
    assert world.target_rows().total() == 0
    world.land(2)
    assert run_dag(dag).tasks == {"load": "success"}
    world.check()


def test_a_retry_goes_on_with_the_session_of_the_try_before(
    make_world: Worlds, dag_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    dying = FailsOnce(steps.commit_publish)
    monkeypatch.setattr(steps, "commit_publish", dying)
    loads = FailsOnce(steps.produce)
    loads.calls = 1  # counts, and never fails
    monkeypatch.setattr(steps, "produce", loads)
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world))
    world.land(1, 2)

    run = run_dag(dag)

    assert run.tasks == {"load": "success"}
    assert run.tries == {"load": 2}
    assert dying.calls == 2
    assert loads.calls == 2, "the second try must not load again what the first has sealed"
    world.check()
    assert len(run.events()) == 1


def test_a_publish_whose_task_died_is_announced_by_its_retry(
    make_world: Worlds, dag_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    monkeypatch.setattr(Job, "finish", _method(FailsOnce(Job.finish)))
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world))
    world.land(1)

    run = run_dag(dag)

    assert run.tries == {"load": 2}
    ((_, _, extra),) = run.events()
    assert extra["outcome"] == "already_published"
    assert extra["published"] is True
    assert extra["rows"] == 1
    world.check()


def test_a_publish_that_nobody_heard_of_is_announced_by_the_next_run(
    make_world: Worlds, dag_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    monkeypatch.setattr(Job, "finish", _method(FailsOnce(Job.finish)))
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", retries=0, **arguments(world))
    world.land(1)
    assert run_dag(dag).tasks == {"load": "failed"}
    head = world.target.current_snapshot()

    late = run_dag(dag)

    ((_, _, extra),) = late.events()
    assert extra["outcome"] == "nothing_to_do"
    assert extra["snapshot_id"] == head.snapshot_id
    assert world.target.current_snapshot() == head
    world.check()


def _method(function: Any) -> Any:
    def method(self: Job, *args: Any) -> Any:
        return function(self, *args)

    return method


def test_a_cleared_run_computes_again_what_it_wrote(make_world: Worlds, dag_id: str) -> None:
    world = make_world(mode="overwrite")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world))
    world.land(1, 2)
    first = run_dag(dag)
    session = first.xcom("load")["session"]
    world.land(5)
    run_dag(dag)

    again = run_again(dag, first)

    assert again.tasks == {"load": "success"}
    summary = again.xcom("load")
    assert (summary["kind"], summary["rows"]) == ("restatement", 2)
    assert summary["session"] != session
    world.check()


def test_a_templated_file_and_templated_names(make_world: Worlds, dag_id: str, tmp_path: Path) -> None:
    world = make_world()
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "load.sql").write_text(
        "SELECT id, ts, region, v * {{ params.factor }} AS v10 FROM {{ params.source }}"
    )
    params = {"factor": 10, "source": "events", "target": TARGET, "policy": "fail"}
    with new_dag(dag_id, params=params, template_searchpath=str(tmp_path)) as dag:
        IncrementalLoadOperator(
            task_id="load",
            **arguments(
                world,
                transform="sql/load.sql",
                process=None,
                target={"table": "{{ params.target }}", "event_time": "ts"},
                on_rewrite="{{ params.policy }}",
                audits=[RowCount(min=1, name="rows of {{ dag.dag_id }}")],
            ),
        )
    # A DAG that waits for the table: only then is there somebody to tell, because this DAG cannot name its asset.
    register(new_dag(f"{dag_id}_waits", schedule=[iceberg_asset(TARGET, CONN_ID)]))
    world.land(1)

    run = run_dag(dag)

    assert run.tasks == {"load": "success"}
    assert [uri for _, uri, _ in run.events()] == [iceberg_asset(TARGET, CONN_ID).uri]
    world.name = TARGET
    world.check()
    assert run.rendered("load")["process"] == TARGET
    assert "v * 10 AS v10 FROM events" in run.rendered("load")["transform"]
    assert run.xcom("load")["process"] == TARGET


def test_a_template_that_is_rendered_to_something_wrong_fails_at_once(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    with new_dag(dag_id, params={"policy": "maybe"}) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, on_rewrite="{{ params.policy }}"))
    world.land(1)
    run = run_dag(dag)
    assert (run.tasks, run.tries) == ({"load": "failed"}, {"load": 1})


def _times_ten(relations: Any, plan: Any) -> Any:
    assert plan.sources[0].table == SOURCE
    return relations["events"].project("id, ts, region, v * 10 AS v10")


def test_a_callable(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, transform=_times_ten))
    world.land(1, 2)
    run = run_dag(dag)
    world.check()
    assert run.rendered("load")["transform"] == f"{__name__}:_times_ten()"


def test_mapped_over_processes(make_world: Worlds, dag_id: str) -> None:
    world = make_world(target_fields=(("identity", "region"),))
    base = arguments(world)
    per_region = [
        {
            "process": f"only_{region}",
            "target": {**base["target"].as_dict(), "scope": {"region": [region]}},
            "transform": f"SELECT id, ts, region, v * 10 AS v10 FROM events WHERE region = '{region}'",
        }
        for region in ("eu", "us")
    ]
    shared = {name: value for name, value in base.items() if name not in per_region[0]}
    shared["sources"] = {name: source.as_dict() for name, source in base["sources"].items()}
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator.partial(task_id="load", **shared).expand_kwargs(per_region)
    world.land(1, region="eu")
    world.land(2, 3, region="us")

    run = run_dag(dag)

    assert run.tasks == {"load[0]": "success", "load[1]": "success"}
    assert world.target_rows() == world.oracle(world.source_rows())
