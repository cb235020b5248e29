"""What an author may write of a transform on Spark, and its plain form."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from airflow_incremental import SparkTransform
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.spark_code import FunctionName


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["neither sql nor function nor application", "exactly one"]),
        ({"sql": "SELECT 1", "function": "a.b:c"}, ["sql and function"]),
        ({"sql": " "}, ["sql of SparkTransform is ' '"]),
        ({"sql": 3}, ["sql of SparkTransform is 3"]),
        ({"function": "nothing"}, ["function is 'nothing'", "'package.module:function'"]),
        ({"function": "my-module:f"}, ["function is 'my-module:f'"]),
        ({"function": "jobs/json.py:f"}, ["as a module 'json'", "rename the file"]),
        ({"function": "jobs/pyspark.py:f"}, ["as a module 'pyspark'"]),
        ({"function": "jobs/my-job.py:f"}, ["as a module 'my-job'"]),
        ({"application": "app.jar"}, ["'app.jar'", "ends in .py", "transform=None"]),
        ({"sql": "SELECT 1", "application_args": ["x"]}, ["application_args is given with sql"]),
        ({"sql": "SELECT 1", "spark_conn_id": ""}, ["spark_conn_id of SparkTransform is ''"]),
        ({"sql": "SELECT 1", "conf": "spark.x=1"}, ["conf of SparkTransform is 'spark.x=1'", "a mapping"]),
        ({"sql": "SELECT 1", "py_files": [3]}, ["py_files of SparkTransform holds 3"]),
        ({"sql": "SELECT 1", "packages": ["auto", ""]}, ["packages of SparkTransform holds ''"]),
        ({"sql": "SELECT 1", "spark_version": "four"}, ["spark_version of SparkTransform is 'four'", "'3.5_2.13'"]),
        (
            {"sql": "SELECT 1", "deploy_mode": "local"},
            ["deploy_mode of SparkTransform is 'local'", "'client', 'cluster'"],
        ),
        ({"sql": "SELECT 1", "driver_memory": "much"}, ["driver_memory of SparkTransform is 'much'", "'2g'"]),
        ({"sql": "SELECT 1", "executor_cores": 0}, ["executor_cores of SparkTransform is 0"]),
        ({"sql": "SELECT 1", "submit_args": {"conf": {}}}, ["submit_args of SparkTransform sets 'conf'"]),
        ({"sql": "SELECT 1", "catalog_name": "a.b"}, ["catalog_name of SparkTransform is 'a.b'"]),
        ({"sql": "SELECT 1", "catalog_conf": "here"}, ["catalog_conf of SparkTransform is str", "'cluster'"]),
        ({"sql": "SELECT 1", "audits_on": "moon"}, ["audits_on is 'moon'", "'worker', 'spark'"]),
        (
            {"sql": "SELECT 1", "spark_connect_conn_id": "c", "jars": ["a.jar"], "driver_memory": "1g"},
            ["a spark_connect_conn_id, and jars, driver_memory", "where the server is started"],
        ),
        ({"application": "a.py", "spark_connect_conn_id": "c"}, ["a spark_connect_conn_id and an application"]),
    ],
)
def test_a_mistake_is_an_error_where_it_is_written(given: Mapping[str, Any], words: list[str]) -> None:
    with pytest.raises(ArgumentError) as caught:
        SparkTransform(**given)
    for word in words:
        assert word in str(caught.value)


def test_templates_wait() -> None:
    SparkTransform(
        "{{ params.sql }}",
        spark_version="{{ params.spark }}",
        deploy_mode="{{ params.mode }}",
        driver_memory="{{ params.memory }}",
        executor_cores="{{ params.cores }}",
        catalog_name="{{ params.catalog }}",
        audits_on="{{ params.audits }}",
    )
    SparkTransform(function="{{ params.function }}")
    SparkTransform(application="{{ params.application }}")


def test_the_plain_form_holds_what_was_given_in_one_order() -> None:
    one = SparkTransform(
        "sql/x.sql", conf={"b": 1, "a": True}, jars=("x.jar",), packages=["auto", "g:a:1"], executor_cores=2
    )
    two = SparkTransform(
        "sql/x.sql", executor_cores=2, packages=("auto", "g:a:1"), jars=["x.jar"], conf={"a": True, "b": 1}
    )
    assert one.as_dict() == {
        "sql": "sql/x.sql",
        "conf": {"a": True, "b": 1},
        "jars": ["x.jar"],
        "packages": ["auto", "g:a:1"],
        "executor_cores": 2,
    }
    assert json.dumps(one.as_dict()) == json.dumps(two.as_dict())
    assert SparkTransform.from_dict(one.as_dict()) == one
    assert SparkTransform("SELECT 1", packages=None).as_dict() == {"sql": "SELECT 1", "packages": None}
    assert SparkTransform.from_dict({"sql": "SELECT 1", "packages": None}).packages is None


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(ArgumentError, match="a mapping with 'sqll'"):
        SparkTransform.from_dict({"sqll": "SELECT 1"})


def test_names_of_functions() -> None:
    assert FunctionName.parse("company.jobs:orders") == FunctionName(module="company.jobs", name="orders")
    assert FunctionName.parse("jobs/orders.py:run") == FunctionName(module="orders", name="run", file="jobs/orders.py")


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Any]:
    """Load a module from its text."""
    loaded = []

    def make(text: str, name: str = "order_transforms") -> ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    yield make
    for name in loaded:
        sys.modules.pop(name)


def test_a_function_is_its_file_and_its_name(load: Any) -> None:
    module = load("def transform(spark, sources, plan):\n    return sources['events']\n")
    found = SparkTransform(function=module.transform)
    assert found.function == f"{module.__file__}:transform"
    assert found == SparkTransform(function=f"{module.__file__}:transform")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("f = lambda spark, sources, plan: None\n", ["lambda", "top level"]),
        ("def outer():\n    def f(spark, sources, plan): ...\n    return f\nf = outer()\n", ["inside something else"]),
        ("class C:\n    def m(self, spark, sources, plan): ...\nf = C().m\n", ["a method"]),
        ("import functools\ndef g(a, spark, sources, plan): ...\nf = functools.partial(g, 1)\n", ["lambda, a method"]),
        ("def f(spark, sources): ...\n", ["takes (spark, sources)", "transform(spark, sources, plan)"]),
        (
            "from airflow.sdk import DAG\ndef f(spark, sources, plan): ...\n",
            ["imports 'airflow.sdk'", "a file of its own"],
        ),
        (
            "def f(spark, sources, plan): ...\ng = f\ndel f\nf = 7\nf, g = g, f\nf.__name__ = 'h'\nf.__qualname__ = 'h'\n",
            ["or none"],
        ),
    ],
)
def test_a_function_that_cannot_be_shipped_is_refused(load: Any, text: str, words: list[str]) -> None:
    module = load(text)
    with pytest.raises(ArgumentError) as caught:
        SparkTransform(function=module.f)
    for word in words:
        assert word in str(caught.value)


def test_a_function_that_was_typed_in_is_refused(load: Any) -> None:
    module = load("def f(spark, sources, plan): ...\n")
    module.f.__module__ = "__main__"
    main = sys.modules["__main__"]
    vars(main)["f"] = module.f
    try:
        with pytest.raises(ArgumentError, match="typed in or is the main program"):
            SparkTransform(function=module.f)
    finally:
        del vars(main)["f"]
