"""Loads on Spark as a DAG file has them: errors, templates, files, and a form that is the same in every parse."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG, task
from airflow.serialization.serialized_objects import DagSerialization

from airflow_incremental import (
    IcebergSource,
    IcebergTarget,
    IncrementalLoad,
    IncrementalLoadOperator,
    SparkLoadOperator,
    SparkTransform,
)
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.spark_job import SparkRunner
from airflow_incremental.operators.job import Job
from airflow_incremental.operators.spark_load import SPARK_FIELDS

LOAD = {
    "sources": {"events": IcebergSource("raw.events", event_time="ts")},
    "target": IcebergTarget("mart.result", event_time="ts"),
    "mode": "append",
}
FUNCTION = "def transform(spark, sources, plan):\n    return sources['events']\n"


def new_dag(**arguments: Any) -> DAG:
    return DAG("loads", schedule=None, start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc), **arguments)


def make(**given: Any) -> SparkLoadOperator:
    with new_dag():
        return SparkLoadOperator(task_id="load", **LOAD, **given)


def read(load: IncrementalLoadOperator) -> IncrementalLoadOperator:
    """Read template files, as Airflow does at the end of an import."""
    load.resolve_template_files()
    return load


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["exactly one of sql, function and application"]),
        ({"sql": "SELECT 1", "function": "a:b"}, ["sql and function"]),
        ({"sql": "SELECT 1", "deploy_mode": "moon"}, ["deploy_mode of SparkTransform is 'moon'"]),
        ({"sql": "SELECT 1", "submit_args": {"task_id": "x"}}, ["submit_args of SparkTransform sets 'task_id'"]),
        ({"sql": "SELECT 1", "mode": "upsert"}, ["mode is 'upsert'"]),
        ({"function": (lambda *_: None)}, ["lambda"]),
    ],
)
def test_a_mistake_fails_the_import_of_the_dag_file(given: Mapping[str, Any], words: list[str]) -> None:
    with new_dag(), pytest.raises(ArgumentError) as caught:
        SparkLoadOperator(task_id="load", **{**LOAD, **given})
    for word in words:
        assert word in str(caught.value)


def test_a_transform_in_a_group_is_checked_too() -> None:
    with new_dag(), pytest.raises(ArgumentError, match="a mapping with 'sqll'"):
        IncrementalLoad("load", transform={"sqll": "SELECT 1"}, **LOAD)


def test_every_argument_of_the_transform_is_a_template_field() -> None:
    arguments = set(SparkTransform("SELECT 1").as_dict()) | {f.name for f in SparkTransform.__attrs_attrs__}
    assert set(SPARK_FIELDS) | {"audits_on"} == arguments
    assert set(SPARK_FIELDS) <= set(SparkLoadOperator.template_fields)
    assert "transform" not in SparkLoadOperator.template_fields


def test_templates_are_rendered_in_every_field() -> None:
    load = make(
        sql="SELECT * FROM events WHERE region = '{{ params.region }}'",
        conf={"spark.app.region": "{{ params.region }}"},
        py_files=["{{ params.region }}.zip"],
        env_vars={"REGION": "{{ params.region }}"},
        executor_cores="{{ params.cores }}",
        catalog_conf={"uri": "http://{{ params.region }}"},
    )
    load.render_template_fields({"params": {"region": "eu", "cores": 2}})
    found = load.spark_transform()
    assert found is not None
    assert found.sql == "SELECT * FROM events WHERE region = 'eu'"
    assert (found.conf, found.env_vars) == ({"spark.app.region": "eu"}, {"REGION": "eu"})
    assert (found.py_files, found.executor_cores, found.catalog_conf) == (("eu.zip",), "2", {"uri": "http://eu"})


def test_a_template_that_is_rendered_to_something_wrong_is_found_in_the_task() -> None:
    load = make(sql="SELECT 1", deploy_mode="{{ params.mode }}")
    load.render_template_fields({"params": {"mode": "moon"}})
    with pytest.raises(ArgumentError, match="deploy_mode of SparkTransform is 'moon'"):
        load.spark_transform()


def test_a_file_of_sql_is_a_template_in_both_forms(tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text("SELECT '{{ params.word }}' AS word", encoding="utf-8")
    with new_dag(template_searchpath=[str(tmp_path)]):
        alone = SparkLoadOperator(task_id="alone", **LOAD, process="p1", sql="x.sql")
        group = IncrementalLoad("group", **LOAD, process="p2", transform=SparkTransform("x.sql"))
    for load in (alone, group.load):
        read(load)
        env = load.get_template_env(load.dag)
        load.render_template_fields({"params": {"word": "hi"}}, jinja_env=env)
        found = load.spark_transform()
        assert found is not None
        assert found.sql == "SELECT 'hi' AS word"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sql": "nope.sql"}, ["names the file 'nope.sql', which is not there"]),
        ({"function": "nope.py:transform"}, ["function names the file 'nope.py', which is not there"]),
        ({"function": "bad.py:transform"}, ["imports 'airflow'", "no Airflow where Spark runs it"]),
        ({"function": "good.py:other"}, ["no function 'other'"]),
        ({"application": "nope.py"}, ["application names the file"]),
        ({"sql": "SELECT '{{ oops '"}, ["no template that Jinja can read"]),
    ],
)
def test_files_are_checked_at_the_import(tmp_path: Path, given: Mapping[str, Any], words: list[str]) -> None:
    (tmp_path / "good.py").write_text(FUNCTION, encoding="utf-8")
    (tmp_path / "bad.py").write_text(f"import airflow\n{FUNCTION}", encoding="utf-8")
    with new_dag(template_searchpath=[str(tmp_path)]):
        alone = SparkLoadOperator(task_id="alone", **LOAD, process="p1", **given)
        group = IncrementalLoad("group", **LOAD, process="p2", transform=SparkTransform(**given))
    for load in (alone, group.load):
        with pytest.raises(ArgumentError) as caught:
            read(load)
        for word in words:
            assert word in str(caught.value)


def test_a_function_of_the_dags_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(FUNCTION, encoding="utf-8")
    with new_dag(template_searchpath=[str(tmp_path)]):
        read(SparkLoadOperator(task_id="load", **LOAD, function="good.py:transform"))


def test_what_another_task_returns_waits() -> None:
    with new_dag():

        @task
        def choose() -> Any:
            return {}

        conf = choose()
        load = SparkLoadOperator(task_id="load", **LOAD, sql="SELECT 1", conf=conf)
    assert load.upstream_task_ids == {"choose"}
    assert load.spark_transform() is None


def test_it_can_be_mapped() -> None:
    with new_dag() as dag:
        SparkLoadOperator.partial(task_id="load", mode="append", sql="SELECT 1", conf={"spark.x": "1"}).expand_kwargs(
            [{"sources": {"events": {"table": "raw.events"}}, "target": {"table": "mart.result"}, "process": "p"}]
        )
    load = dag.get_task("load").unmap(
        {"sources": {"events": {"table": "raw.events"}}, "target": {"table": "mart.result"}, "process": "p"}
    )
    found = load.spark_transform()
    assert (found.sql, found.conf) == ("SELECT 1", {"spark.x": "1"})


def serialised(folder: Path) -> dict[str, Any]:
    (folder / "orders_on_spark.py").write_text(FUNCTION, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        transform = importlib.import_module("orders_on_spark").transform
    finally:
        sys.path.remove(str(folder))
    with new_dag() as dag:
        SparkLoadOperator(
            task_id="alone", **LOAD, process="p1", function=transform, conf={"spark.b": 1, "spark.a": True}
        )
        IncrementalLoad("group", **LOAD, process="p2", transform=SparkTransform(function=transform, jars=("a.jar",)))
        SparkLoadOperator.partial(task_id="m", mode="append", function=transform).expand_kwargs([{"process": "p3"}])
    return dict(DagSerialization.to_dict(dag))


def test_two_parses_give_one_dag_hash(tmp_path: Path) -> None:
    one = SerializedDagModel.hash(serialised(tmp_path))
    code = (
        "import sys; from pathlib import Path; from tests.unit.operators.test_spark import serialised;"
        "from airflow.models.serialized_dag import SerializedDagModel;"
        "print(SerializedDagModel.hash(serialised(Path(sys.argv[1]))))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == one


def test_rendered_secrets_are_masked_before_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[str] = []
    monkeypatch.setattr("airflow_incremental.operators.templates.mask_secret", masked.append)
    secrets = {"credential": "me:{{ params.word }}", "uri": "http://c", "s3.secret-access-key": "plain-secret"}
    with new_dag():
        alone = SparkLoadOperator(task_id="alone", **LOAD, process="p1", sql="SELECT 1", catalog_conf=secrets)
        group = IncrementalLoad(
            "group",
            **LOAD,
            process="p2",
            transform=SparkTransform("SELECT 1", env_vars={"DB_PASSWORD": "{{ params.word }}"}),
        )
    alone.render_template_fields({"params": {"word": "hidden"}})
    assert sorted(masked) == ["me:hidden", "plain-secret"]
    group.load.render_template_fields({"params": {"word": "other"}})
    assert masked[2:] == ["other"]


class Instance:
    """A running try, as far as a load asks for it."""

    dag_id, run_id, task_id, map_index, try_number = "loads", "run", "load", -1, 1

    def get_dr_count(self, **_: Any) -> int:
        return 0


@pytest.mark.parametrize(
    ("given", "runner", "on_spark"),
    [
        ({}, "SubmitRunner", False),
        ({"audits_on": "spark"}, "SubmitRunner", True),
        ({"audits_on": "spark", "spark_connect_conn_id": "connect"}, "ConnectRunner", True),
    ],
)
def test_the_process_of_a_task_has_its_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Mapping[str, Any], runner: str, *, on_spark: bool
) -> None:
    extra = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}"}
    monkeypatch.setenv("AIRFLOW_CONN_ICEBERG_DEFAULT", json.dumps({"conn_type": "iceberg", "extra": extra}))
    context = {"ti": Instance(), "dag_run": None}
    load = make(sql="SELECT 1", catalog_conf="cluster", catalog_name="lake", **given)
    process = Job.of(load, context).process
    assert type(process.transform).__name__ == runner
    assert isinstance(process.transform, SparkRunner)
    assert process.transform.catalog == {"name": "lake", "conf": {}}
    assert process.audit_runner is (process.transform if on_spark else None)
    load.on_kill()
    with pytest.raises(ArgumentError, match="is an SQLite file"):
        Job.of(make(sql="SELECT 1"), context)
