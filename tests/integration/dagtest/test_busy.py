"""Another run holds the process: wait for it, skip, fail, or take over what it left."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.sdk import task
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType

from airflow_incremental import IncrementalLoad, IncrementalLoadOperator
from airflow_incremental.core.plan import Owner
from airflow_incremental.iceberg.locks import read_lock
from airflow_incremental.operators.runtime import deployment
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.integration.dagtest.loads import Worlds, arguments
from tests.integration.dagtest.runner import new_dag, register, run_dag
from tests.support.world import World


@contextmanager
def other_run(dag_id: str, state: DagRunState) -> Iterator[str]:
    """A run of another DAG, in a state that nobody changes."""
    register(new_dag(dag_id))
    run_id = f"run_of_{dag_id}"
    with create_session() as session:
        session.add(
            DagRun(
                dag_id=dag_id,
                run_id=run_id,
                run_type=DagRunType.MANUAL,
                logical_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
                run_after=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
                state=state,
                triggered_by=DagRunTriggeredByType.TEST,
            )
        )
    yield run_id


def hold(world: World, dag_id: str, run_id: str, *, where: str | None = None) -> Session:
    """Open a session as a task of another run, and leave it open."""
    owner = Owner(deployment=where or deployment(), dag_id=dag_id, run_id=run_id, task_id="load")
    found = plan(world.process(owner=owner))
    assert isinstance(found, Session)
    return found


def finish(session: Session) -> None:
    steps.publish(session, steps.audit(session, steps.load(session)))


@pytest.mark.parametrize(("when_busy", "state"), [("skip", "skipped"), ("fail", "failed")])
def test_skip_or_fail(make_world: Worlds, dag_id: str, when_busy: str, state: str) -> None:
    world = make_world()
    world.land(1)
    with other_run(f"{dag_id}_holder", DagRunState.RUNNING) as run_id:
        held = hold(world, f"{dag_id}_holder", run_id)
        with new_dag(dag_id) as dag:
            IncrementalLoadOperator(task_id="load", **arguments(world, when_busy=when_busy))

        run = run_dag(dag)

        assert (run.tasks, run.tries) == ({"load": state}, {"load": 1})
        assert read_lock(world.target, world.name) == held.begin, "the holder keeps its lock"
        finish(held)
    world.check()


def test_skip_skips_the_whole_group_and_what_follows(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    world.land(1)
    with other_run(f"{dag_id}_holder", DagRunState.QUEUED) as run_id:
        hold(world, f"{dag_id}_holder", run_id)
        with new_dag(dag_id) as dag:

            @task
            def after() -> None: ...

            IncrementalLoad("fact", **arguments(world, when_busy="skip")) >> after()
        assert set(run_dag(dag).tasks.values()) == {"skipped"}


@pytest.mark.parametrize("shape", ["fused", "group"])
def test_wait_until_the_other_run_has_published(make_world: Worlds, dag_id: str, shape: str) -> None:
    """The lock is free long before the run that had it is over."""
    world = make_world()
    world.land(1)
    with other_run(f"{dag_id}_holder", DagRunState.RUNNING) as run_id:
        held = hold(world, f"{dag_id}_holder", run_id)
        world.land(2)
        with new_dag(dag_id) as dag:
            if shape == "fused":
                IncrementalLoadOperator(task_id="load", **arguments(world, poll_interval=0.1))
            else:
                IncrementalLoad("fact", **arguments(world, poll_interval=0.1))
        published: list[float] = []

        def publish() -> None:
            time.sleep(3)
            finish(held)
            published.append(time.monotonic())

        thread = threading.Thread(target=publish)
        thread.start()
        run = run_dag(dag)
        done = time.monotonic()
        thread.join()

    assert set(run.tasks.values()) == {"success"}
    assert set(run.tries.values()) == {1}, "waiting costs no try"
    assert published[0] < done
    world.check()
    last = run.xcom("load" if shape == "fused" else "fact.publish")
    assert last["rows"] == 1, "the other run loaded the rest"


@pytest.mark.parametrize("state", [DagRunState.SUCCESS, DagRunState.FAILED, None])
def test_a_session_whose_run_is_over_or_gone_is_taken_over(
    make_world: Worlds, dag_id: str, state: DagRunState | None
) -> None:
    world = make_world()
    world.land(1)
    if state is None:
        held = hold(world, f"{dag_id}_holder", "deleted long ago")
    else:
        with other_run(f"{dag_id}_holder", state) as run_id:
            held = hold(world, f"{dag_id}_holder", run_id)
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, when_busy="fail"))
    run = run_dag(dag)
    assert run.tasks == {"load": "success"}
    assert run.xcom("load")["session"] != held.plan.session
    world.check()


def test_a_session_of_another_deployment_is_left_alone(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    world.land(1)
    held = hold(world, "dag", "run", where="https://elsewhere.example")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world))
    run = run_dag(dag)
    assert (run.tasks, run.tries) == ({"load": "failed"}, {"load": 1})
    assert read_lock(world.target, world.name) == held.begin


def test_two_map_indexes_with_one_process_are_an_error(
    make_world: Worlds, dag_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing can be seen of it when the DAG is parsed. Whichever of the two Airflow starts first is the one that loads."""
    world = make_world()
    base: dict[str, Any] = arguments(world)
    base["sources"] = {name: source.as_dict() for name, source in base["sources"].items()}
    base["target"] = base["target"].as_dict()
    process = base.pop("process")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator.partial(task_id="load", **base).expand(process=[process, process])
    world.land(1, 2)
    run = run_dag(dag)
    assert sorted(run.tasks.values()) == ["failed", "success"]
    assert set(run.tries.values()) == {1}
    first = 0 if run.tasks["load[0]"] == "success" else 1
    assert f"map indexes {first} and {1 - first} of task 'load'" in capsys.readouterr().out
    world.check()
