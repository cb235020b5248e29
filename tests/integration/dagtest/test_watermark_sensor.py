"""A task that waits for a table in real runs: deferred, or rescheduled, for a time that its run names."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Any

import pytest
from airflow.sdk import task

from airflow_incremental.sensors.watermark import WatermarkSensor
from airflow_incremental.sessions import steps
from tests.integration.dagtest.loads import CONN_ID, Worlds
from tests.integration.dagtest.runner import new_dag, run_dag
from tests.support.world import SOURCE, TARGET

ARGUMENTS: dict[str, Any] = {"task_id": "wait", "table": TARGET, "iceberg_conn_id": CONN_ID, "poke_interval": 0.2}


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_gated_task_runs_when_the_load_has_published(make_world: Worlds, dag_id: str, deferrable: bool) -> None:
    world = make_world()
    world.land(5)
    with new_dag(dag_id) as dag:

        @task
        def read(found: dict[str, Any]) -> int:
            return len(world.target.scan(snapshot_id=found["snapshot_id"]).to_arrow())

        gate = WatermarkSensor(
            complete_through="{{ params.day }}T05:00:00Z",
            params={"day": "2024-01-01"},
            deferrable=deferrable,
            mode="poke" if deferrable else "reschedule",
            **ARGUMENTS,
        )
        read(gate.output)
    published: list[float] = []

    def publish() -> None:
        time.sleep(3)
        steps.run(world.process())
        published.append(time.monotonic())

    thread = threading.Thread(target=publish)
    thread.start()
    run = run_dag(dag)
    done = time.monotonic()
    thread.join()

    assert run.tasks == {"wait": "success", "read": "success"}
    assert run.tries["wait"] == 1, "waiting costs no try"
    assert published[0] < done
    assert run.xcom("wait")["complete_through"] == "2024-01-01T05:00:00Z"
    assert run.xcom("read") == 1


def test_a_run_for_an_earlier_time_goes_through_at_once(make_world: Worlds, dag_id: str) -> None:
    """As a backfill's runs do."""
    world = make_world()
    world.land(30)
    steps.run(world.process())
    with new_dag(dag_id, schedule="@hourly") as dag:
        WatermarkSensor(complete_through="{{ data_interval_end }}", **ARGUMENTS)
    run = run_dag(dag, logical_date=dt.datetime(2024, 1, 1, 4, tzinfo=dt.timezone.utc))
    assert run.tasks == {"wait": "success"}
    assert run.xcom("wait")["complete_through"] == "2024-01-02T06:00:00Z"


def test_a_table_that_tells_nothing_fails_without_retry(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    world.land(5)
    with new_dag(dag_id) as dag:
        WatermarkSensor(complete_through="2024-01-01T05:00:00Z", retries=3, **{**ARGUMENTS, "table": SOURCE})
    run = run_dag(dag)
    assert (run.state, run.tasks, run.tries) == ("failed", {"wait": "failed"}, {"wait": 1})
