"""The shape of the task group: which tasks there are, what they wait for, and what the author may say about each."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, setup, task, teardown

from airflow_incremental import IcebergSource, IcebergTarget, IncrementalLoad, iceberg_asset
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.operators.reports import SESSION_VALUES


def new_dag(**arguments: Any) -> DAG:
    return DAG("loads", schedule=None, start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc), **arguments)


def arguments(**changes: Any) -> dict[str, Any]:
    return {
        "sources": {"events": IcebergSource("raw.events", event_time="ts")},
        "target": IcebergTarget("mart.result", event_time="ts"),
        "mode": "append",
        "transform": "SELECT * FROM events",
        **changes,
    }


def edges(dag: DAG) -> dict[str, set[str]]:
    return {t.task_id: set(t.upstream_task_ids) for t in dag.tasks}


def test_its_tasks() -> None:
    with new_dag() as dag:
        group = IncrementalLoad("fact", tooltip="facts", iceberg_conn_id="lake", **arguments())
        EmptyOperator(task_id="before") >> group >> EmptyOperator(task_id="after")
    assert edges(dag) == {
        "before": set(),
        "fact.plan": {"before"},
        "fact.load": {"fact.plan"},
        "fact.audit": {"fact.load"},
        "fact.publish": {"fact.audit"},
        "after": {"fact.publish"},
    }
    assert group.tooltip == "facts"
    assert group.asset == iceberg_asset("mart.result", "lake")
    assert [t.task_id for t in dag.tasks if t.outlets] == ["fact.publish"]
    assert [t.task_id for t in dag.tasks if t.inlets] == ["fact.plan"]
    assert group.publish.trigger_rule == "none_failed"


def test_names_and_defaults_as_of_any_group() -> None:
    with new_dag(default_args={"retries": 1, "owner": "dag"}) as dag, TaskGroup("outer"):
        group = IncrementalLoad("fact", default_args={"owner": "group"}, **arguments())
        plain = IncrementalLoad("short", prefix_group_id=False, **arguments(target=IcebergTarget("mart.other")))
    assert group.plan.task_id == "outer.fact.plan"
    assert group.plan.group_name == "outer.fact"
    assert (group.plan.retries, group.plan.owner) == (1, "group")
    assert plain.plan.task_id == "plan"
    assert plain.load.stage_task_ids == {"plan": "plan", "load": "load", "audit": "audit", "publish": "publish"}
    assert len(dag.tasks) == 8


def test_arguments_by_stage() -> None:
    with new_dag():
        group = IncrementalLoad(
            "fact",
            operator_args={"*": {"retries": 3, "queue": "all"}, "load": {"queue": "big", "pool": "duckdb"}},
            **arguments(),
        )
    assert [t.retries for t in (group.plan, group.load, group.audit, group.publish)] == [3, 3, 3, 3]
    assert [t.queue for t in (group.plan, group.load, group.publish)] == ["all", "big", "all"]
    assert (group.load.pool, group.plan.pool) == ("duckdb", "default_pool")


@pytest.mark.parametrize(
    ("operator_args", "words"),
    [
        ({"seal": {"pool": "x"}}, "'seal'"),
        ({"*": {"trigger_rule": "all_done"}}, "'trigger_rule'"),
        ({"publish": {"task_id": "p"}}, "'task_id'"),
        ({"plan": {"do_xcom_push": False}}, "'do_xcom_push'"),
        ({"load": "big"}, "'big' for 'load'"),
        (["load"], "a mapping from a stage"),
    ],
)
def test_arguments_that_would_break_the_group(operator_args: dict[str, Any], words: str) -> None:
    with new_dag(), pytest.raises(ArgumentError, match=words):
        IncrementalLoad("fact", operator_args=operator_args, **arguments())


@pytest.mark.parametrize(("name", "value"), [("trigger_rule", "all_done"), ("stage", "plan"), ("task_id", "x")])
def test_arguments_of_the_operator_that_are_the_groups_own(name: str, value: str) -> None:
    with new_dag(), pytest.raises(ArgumentError, match=f"the group 'fact' is given '{name}'"):
        IncrementalLoad("fact", **arguments(**{name: value}))


def test_own_writes_stand_between_plan_and_seal() -> None:
    with new_dag() as dag:
        with IncrementalLoad("dim", operator_args={"seal": {"pool": "x"}}, **arguments(transform=None)) as dim:

            @task
            def extract(ranges: Any) -> None:
                del ranges

            @task
            def write(branch: Any) -> None:
                del branch

            extract(dim.session["ranges"]) >> write(dim.session["branch"])
            with TaskGroup("more"):
                EmptyOperator(task_id="a") >> [EmptyOperator(task_id="b"), EmptyOperator(task_id="c")]
        dim >> EmptyOperator(task_id="after")
    assert edges(dag) == {
        "dim.plan": set(),
        "dim.extract": {"dim.plan"},
        "dim.write": {"dim.plan", "dim.extract"},
        "dim.more.a": {"dim.plan"},
        "dim.more.b": {"dim.more.a"},
        "dim.more.c": {"dim.more.a"},
        "dim.seal": {"dim.plan", "dim.write", "dim.more.b", "dim.more.c"},
        "dim.audit": {"dim.seal"},
        "dim.publish": {"dim.audit"},
        "after": {"dim.publish"},
    }
    assert dim.load.task_id == "dim.seal"
    assert dim.load.pool == "x"
    assert dim.plan.session_keys == {"ranges", "branch"}


def test_a_teardown_of_own_writes_does_not_hold_up_the_seal() -> None:
    with new_dag(), IncrementalLoad("dim", **arguments(transform=None)) as dim:

        @setup
        def cluster_up() -> None: ...

        @teardown
        def cluster_down() -> None: ...

        @task
        def write() -> None: ...

        up = cluster_up()
        up >> write() >> cluster_down().as_teardown(setups=up)
    assert dim.load.upstream_task_ids == {"dim.plan", "dim.write"}


def test_a_group_that_nobody_writes_for_is_refused() -> None:
    with (
        new_dag(),
        pytest.raises(ArgumentError, match="no transform and no tasks inside"),
        IncrementalLoad("dim", **arguments(transform=None)),
    ):
        pass


def test_a_merge_without_a_transform_is_refused() -> None:
    with new_dag(), pytest.raises(ArgumentError, match=r"mode='merge' and transform=None.*while it is loaded"):
        IncrementalLoad("dim", **arguments(mode="merge", keys=["id"], transform=None))


def test_a_group_with_a_transform_is_no_context() -> None:
    with (
        new_dag(),
        pytest.raises(ArgumentError, match="has a transform and is used as a context manager"),
        IncrementalLoad("dim", **arguments()),
    ):
        pass


def test_an_error_inside_stays_the_authors() -> None:
    with new_dag(), pytest.raises(ZeroDivisionError), IncrementalLoad("dim", **arguments(transform=None)):
        _ = 1 / 0


def test_the_values_of_the_session() -> None:
    with new_dag():
        group = IncrementalLoad("fact", **arguments())
    assert set(group.session) == set(SESSION_VALUES)
    assert len(group.session) == len(SESSION_VALUES)
    assert "branch" in group.session
    assert group.plan.session_keys == set(), "looking is not referring"
    assert group.session["snapshots"].key == "snapshots"
    with pytest.raises(ArgumentError, match=r"session\['branhc'\] of 'fact' does not exist"):
        _ = group.session["branhc"]
    assert group.output.operator is group.publish
