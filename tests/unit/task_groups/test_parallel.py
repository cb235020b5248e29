"""Chunks side by side: the tasks there are, what the author may say about each, and what is refused when the DAG is parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG, task_group
from airflow.serialization.serialized_objects import DagSerialization

from airflow_incremental import IncrementalLoad, IncrementalLoadOperator, SparkTransform
from airflow_incremental.core.errors import ArgumentError
from tests.unit.task_groups.test_load import arguments, edges, new_dag


def transform(relations: Any, _plan: Any) -> Any:
    """Stands for one of an author's own."""
    return relations["events"]


def make(**changes: Any) -> tuple[DAG, IncrementalLoad]:
    with new_dag() as dag:
        group = IncrementalLoad("fact", **arguments(**{"parallel_chunks": 4, **changes}))
    return dag, group


def test_its_tasks() -> None:
    dag, group = make(operator_args={"*": {"retries": 5}, "load": {"pool": "duckdb", "memory_limit": "2GB"}})
    assert edges(dag) == {
        "fact.plan": set(),
        "fact.load": {"fact.plan"},
        "fact.seal": {"fact.plan", "fact.load"},
        "fact.audit": {"fact.seal"},
        "fact.publish": {"fact.audit"},
    }
    assert group.load.task_id == "fact.seal"
    assert group.load.memory_limit == "2GB", "how rows are made is said by the task that seals"
    assert group.load.pool != "duckdb"
    assert group.chunks is not None
    given = group.chunks.partial_kwargs
    assert (given["pool"], given["retries"], given["max_active_tis_per_dagrun"]) == ("duckdb", 5, 4)
    assert given["map_index_template"] == "{{ task.chunk }}"
    assert "memory_limit" not in given


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({"*": {"memory_limit": "4GB"}}, "4GB"),
        ({"*": {"memory_limit": "4GB"}, "load": {"memory_limit": "2GB"}}, "2GB"),
        ({"*": {"memory_limit": "4GB"}, "seal": {"memory_limit": "2GB"}}, "2GB"),
        ({"load": {"memory_limit": "2GB"}, "seal": {"memory_limit": "2GB", "retries": 1}}, "2GB"),
    ],
)
def test_what_is_said_of_one_task_counts_more_than_what_is_said_of_all(given: dict[str, Any], limit: str) -> None:
    assert make(operator_args=given)[1].load.memory_limit == limit


def test_chunks_are_computed_alike_by_both_tasks() -> None:
    with pytest.raises(
        ArgumentError, match=r"'memory_limit' to '2GB' for 'load' and to '16GB' for 'seal'\. Expected: one value"
    ):
        make(operator_args={"load": {"memory_limit": "2GB"}, "seal": {"memory_limit": "16GB"}})


@pytest.mark.parametrize("changes", [{}, {"transform": transform}, {"transform": "SELECT 1 AS {{ params.x }}"}])
def test_two_parses_are_one_version_of_the_dag(changes: dict[str, Any]) -> None:
    def version() -> tuple[str, str]:
        form = DagSerialization.to_dict(make(**changes)[0])
        return SerializedDagModel.hash(form), json.dumps(form)

    assert version() == version()


def test_without_it_the_chunks_are_one_task() -> None:
    dag, group = make(parallel_chunks=None)
    assert set(dag.task_ids) == {"fact.plan", "fact.load", "fact.audit", "fact.publish"}
    assert group.chunks is None


@pytest.mark.parametrize("given", [0, -1, "4", True, 1.5])
def test_a_number_that_is_none(given: Any) -> None:
    with pytest.raises(ArgumentError, match=r"parallel_chunks=.* Expected: a whole number, 1 or more"):
        make(parallel_chunks=given)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "stateful"}, r"mode='stateful'.*Expected: mode 'append' or 'overwrite'.*finished steps \(step=\)"),
        ({"mode": "merge", "keys": ["id"]}, r"mode='merge'.*Expected: mode 'append' or 'overwrite'"),
        ({"transform": None}, r"no transform\. Expected: SQL or a callable.*in tasks of your own"),
        ({"transform": SparkTransform(sql="SELECT 1")}, r"a transform on Spark\..*Spark shares its work out by itself"),
        ({"max_chunks": 1001}, r"max_chunks is 1001\. Expected: a whole number from 1 to 1,000"),
        ({"chunk_bytes": "much"}, r"chunk_bytes is 'much'"),
    ],
)
def test_where_there_are_no_chunks_to_share(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        make(**changes)


def test_more_chunks_than_airflow_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "50")
    make(max_chunks=50)
    make(default_args={"max_chunks": 50})
    for most in ({}, {"max_chunks": 51}, {"default_args": {"max_chunks": 51}}):
        with pytest.raises(
            ArgumentError, match=r"maps a task over 50 values at most\. Expected: max_chunks of 50 or less"
        ):
            make(**most)


def test_in_a_mapped_group() -> None:
    with new_dag():

        @task_group
        def region(name: str) -> None:
            IncrementalLoad("fact", **arguments(process=name, parallel_chunks=4))

        with pytest.raises(ArgumentError, match=r"inside a mapped task group\. Expected: a group that is not mapped"):
            region.expand(name=["eu", "us"])


def test_one_task_takes_sizes_too() -> None:
    with new_dag():
        load = IncrementalLoadOperator(task_id="load", chunk_bytes="512MB", max_chunks=7, **arguments())
    assert (load.chunking.bytes, load.chunking.most) == (512_000_000, 7)


@pytest.mark.parametrize("stage", ["*", "plan", "load", "seal"])
def test_how_a_plan_is_cut_is_no_matter_of_one_task(stage: str) -> None:
    with pytest.raises(
        ArgumentError, match=r"operator_args sets 'max_chunks'\. Expected: arguments that are not the group's own"
    ):
        make(operator_args={stage: {"max_chunks": 50}})


@pytest.mark.parametrize(
    ("dag_args", "changes", "retries"),
    [
        ({}, {}, 2),
        ({"retries": 7}, {}, 7),
        ({"retries": 7}, {"retries": 5, "pool": "small"}, 5),
        ({}, {"default_args": {"retries": 4}}, 4),
        ({}, {"operator_args": {"seal": {"retries": 0}}}, 2),
        ({}, {"operator_args": {"load": {"retries": 9}}, "retries": 1}, 9),
    ],
)
def test_the_mapped_task_runs_as_the_others_do(dag_args: dict[str, Any], changes: dict[str, Any], retries: int) -> None:
    with new_dag(default_args=dag_args):
        group = IncrementalLoad("fact", **arguments(parallel_chunks=4, **changes))
    assert group.chunks is not None
    assert group.chunks.retries == retries
    assert group.chunks.pool == group.plan.pool
    assert group.chunks.retry_delay == group.plan.retry_delay
