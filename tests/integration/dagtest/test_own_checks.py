"""Checks of the author's own: functions among the audits, and Airflow's SQL check operators beside the audit stage."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.providers.common.sql.operators.sql import SQLTableCheckOperator

from airflow_incremental import IncrementalLoad, IncrementalLoadOperator, PythonCheck
from tests.integration.dagtest.loads import Worlds, arguments
from tests.integration.dagtest.runner import new_dag, run_dag
from tests.support.world import TARGET, World


class BranchHook(DbApiHook):
    """Stands for an engine that reads branches of Iceberg tables, such as Trino or Spark."""

    conn_name_attr = "conn_id"

    def __init__(self, world: World, branch: str) -> None:
        super().__init__()
        self.world, self.branch = world, branch

    def get_conn(self) -> Any:
        sealed = self.world.catalog.load_table(TARGET).scan().use_ref(self.branch).to_arrow()
        con = duckdb.connect()
        con.register("sealed", sealed)
        con.execute("CREATE TABLE result AS FROM sealed")  # a cursor sees no registered relation
        return con


class BranchCheck(SQLTableCheckOperator):
    template_fields = (*SQLTableCheckOperator.template_fields, "branch")

    def __init__(self, *, world: World, branch: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.world, self.branch = world, branch

    def get_db_hook(self) -> DbApiHook:
        return BranchHook(self.world, self.branch)


@pytest.mark.parametrize("fails", [False, True])
def test_a_sql_check_operator_stands_beside_the_audit(make_world: Worlds, dag_id: str, *, fails: bool) -> None:
    world = make_world()
    with new_dag(dag_id) as dag:
        fact = IncrementalLoad("fact", **arguments(world))
        check = BranchCheck(
            task_id="check",
            world=world,
            branch=fact.session["branch"],
            table="result",
            checks={"count": {"check_statement": f"COUNT(*) >= {3 if fails else 2}"}},
            conn_id="engine",
            retries=0,
        )
        fact.load >> check >> fact.publish
    world.land(1, 2)
    run = run_dag(dag)
    assert run.tasks["check"] == ("failed" if fails else "success")
    assert run.tasks["fact.publish"] == ("upstream_failed" if fails else "success")
    if fails:
        assert world.target_rows().total() == 0
        world.land(3)
        assert run_dag(dag).tasks["fact.publish"] == "success", "the next run takes both over"
    world.check()
    idle = run_dag(dag)
    assert (idle.tasks["check"], idle.tasks["fact.publish"]) == ("skipped", "success")


def at_most_two(rows: Any, subject: Any) -> bool:
    return bool(subject.session) and rows.shape[0] <= 2


def test_a_function_among_the_audits(make_world: Worlds, dag_id: str) -> None:
    world = make_world()
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(
            task_id="load",
            **arguments(world, audits=[at_most_two, PythonCheck(lambda r, _: r.filter("v10 < 0"), name="positive")]),
        )
    world.land(1, 2)
    assert run_dag(dag).tasks == {"load": "success"}
    world.land(3, 4, 5)
    assert run_dag(dag).tasks == {"load": "failed"}
    assert world.target_rows().total() == 2
