"""Maintenance as a task in real runs: templates, its result, and loads that go on as before."""

from __future__ import annotations

from airflow_incremental import IncrementalLoadOperator, MaintainTableOperator
from tests.integration.dagtest.loads import CONN_ID, Worlds, arguments
from tests.integration.dagtest.runner import new_dag, run_dag
from tests.support.world import SOURCE, TARGET


def test_a_load_that_keeps_its_tables_small(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    with new_dag(dag_id, params={"keep": 2, "dry": True}) as dag:
        load = IncrementalLoadOperator(task_id="load", **arguments(world))
        told = MaintainTableOperator(
            task_id="told",
            tables=[SOURCE, TARGET],
            iceberg_conn_id=CONN_ID,
            expire_older_than="0s",
            retain_last="{{ params.keep }}",
            compact=2,
            dry_run="{{ params.dry }}",
        )
        done = MaintainTableOperator(
            task_id="done",
            tables=told.tables,
            iceberg_conn_id=CONN_ID,
            expire_older_than="0s",
            retain_last=2,
            compact=2,
        )
        load >> told >> done
    for n in range(4):
        world.land(0.1, n)
        run = run_dag(dag)
        assert run.tasks == {"load": "success", "told": "success", "done": "success"}
        world.check()
        results = run.xcom("done")
        assert {t: {**found, "dry_run": True} for t, found in results.items()} == run.xcom("told")
        assert len(world.target.metadata.snapshots) <= 2 + 1
        assert len(world.source.metadata.snapshots) <= 2 + 1
    assert results[TARGET]["snapshots_expired"] > 0
    assert [event[0] for event in run.events()] == ["load"], "only the load tells of rows"
