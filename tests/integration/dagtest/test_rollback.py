"""Undo as a task of a DAG: with a form's values, a retry, an asset event, and the load that runs after it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_incremental import IncrementalLoadOperator, RollbackOperator, iceberg_asset
from airflow_incremental.sessions import undoing
from tests.integration.dagtest.loads import CONN_ID, FailsOnce, Worlds, arguments
from tests.integration.dagtest.runner import Run, new_dag, run_again, run_dag
from tests.support.by_hand import last_of
from tests.support.world import TARGET, World


def load(world: World, dag_id: str) -> tuple[Any, Run]:
    dag = new_dag(f"load_{dag_id}")
    with dag:
        IncrementalLoadOperator(task_id="load", **arguments(world))
    run = run_dag(dag)
    assert run.state == "success"
    return dag, run


def undo_dag(dag_id: str) -> Any:
    dag = new_dag(f"undo_{dag_id}", params={"session": None, "reason": "none given"})
    with dag:
        RollbackOperator(
            task_id="undo",
            target=TARGET,
            session="{{ params.session }}",
            reason="{{ params.reason }}",
            iceberg_conn_id=CONN_ID,
            retry_delay=0,
            outlets=[iceberg_asset(TARGET, CONN_ID)],
        )
    return dag


@pytest.mark.parametrize("dies", [False, True])
def test_a_run_undoes_what_another_published(
    make_world: Worlds,
    dag_id: str,
    monkeypatch: pytest.MonkeyPatch,
    dies: bool,
) -> None:
    world = make_world(mode="overwrite")
    world.land(0, 1)
    load(world, dag_id)
    one, before = last_of(world), world.target_rows()
    world.land(0.5, 2)
    dag, loaded = load(world, dag_id)
    two = last_of(world)
    if dies:
        # After the commit, before anything else: the retry finds it done.
        monkeypatch.setattr(undoing, "move_pins", FailsOnce(undoing.move_pins))

    run = run_dag(undo_dag(dag_id), run_conf={"session": two.session, "reason": "a bad delivery"})

    assert run.state == "success"
    assert run.tries["undo"] == (2 if dies else 1)
    result = run.xcom("undo")
    assert (result["outcome"], result["back_to"], result["reason"]) == (
        "already_done" if dies else "done",
        one.session,
        "a bad delivery",
    )
    assert [uri for _, uri, _ in run.events()] == [iceberg_asset(TARGET, CONN_ID).uri]
    assert run.rendered("undo")["session"] == two.session
    assert world.target_rows() == before
    assert last_of(world).summary["incremental.by"] == f"run {run.run_id} of DAG undo_{dag_id}"
    # The cleared run of the undone session loads it again, as the next run would.
    again = run_again(dag, loaded)
    assert again.xcom("load")["outcome"] == "published"
    world.check()


def test_what_cannot_be_undone_fails_at_once(make_world: Worlds, dag_id: str) -> None:
    world = make_world(mode="append")
    world.land(0, 1)
    load(world, dag_id)
    session = last_of(world).session
    world.target.append(world.target.scan(limit=1).to_arrow())
    run = run_dag(undo_dag(dag_id), run_conf={"session": session})
    assert (run.state, run.tries["undo"]) == ("failed", 1)
    assert last_of(world).session == session
