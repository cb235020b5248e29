"""Suites that audits name by a file: read with the DAG file, or in the task where only it knows the name."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from jinja2 import Environment, FileSystemLoader

from airflow_incremental.audits import Expectations, NotNull
from airflow_incremental.operators.templates import with_suite_files
from tests.unit.audits.expectations.suites import expect, suite

CODE = """
from airflow.sdk import DAG
from airflow_incremental import Expectations, IcebergSource, IcebergTarget, {load}

with DAG("loads", schedule=None, template_searchpath={search!r}):
    {load}(
        {id},
        sources={{"events": IcebergSource("raw.events", event_time="ts")}},
        target=IcebergTarget("mart.result", event_time="ts"),
        mode="append",
        transform="SELECT * FROM events",
        audits=[Expectations({suite!r}, severity="warn")],
    )
"""
SUITE = suite(expect("column_values_to_be_between", column="v", max_value="{{ params.most }}"))


def load(folder: Path, name: str, *, group: bool, search: str = "elsewhere") -> DagBag:
    names = (
        {"load": "IncrementalLoad", "id": "'load'"}
        if group
        else {"load": "IncrementalLoadOperator", "id": "task_id='load'"}
    )
    (folder / "loads.py").write_text(textwrap.dedent(CODE.format(suite=name, search=search, **names)))
    return DagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="test")


@pytest.mark.parametrize("group", [False, True])
def test_a_suite_is_read_when_the_dag_file_is_imported(tmp_path: Path, group: bool) -> None:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "events.json").write_text(json.dumps(SUITE))
    bag = load(tmp_path, "suites/events.json", group=group)
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    read = Expectations(SUITE, name="events", severity="warn").as_dict()
    assert [task.audits for task in dag.tasks] == [[read] for _ in dag.tasks]


def test_a_suite_is_found_in_the_searchpath_of_the_dag_and_by_an_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "events.json").write_text(json.dumps(SUITE))
    for name in ("events.json", str(tmp_path / "shared" / "events.json")):
        bag = load(tmp_path, name, group=False, search=str(tmp_path / "shared"))
        assert bag.import_errors == {}


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "the suite 'events.json' is not there.*template_searchpath"),
        ("{", "the suite 'events.json' is no JSON"),
        ('{"expectation_suite_name": "events", "expectations": []}', "in the format of Great Expectations 0.x"),
        (
            json.dumps(SUITE).replace("most }}", "most }"),
            "'max_value' in 'kwargs' in 'expectations' in 'suite' in audits of task",
        ),
    ],
)
def test_a_suite_that_cannot_be_read_fails_the_import(
    tmp_path: Path, text: str | None, message: str, group: bool
) -> None:
    if text is not None:
        (tmp_path / "events.json").write_text(text)
    bag = load(tmp_path, "events.json", group=group)
    assert bag.dags == {}
    (error,) = bag.import_errors.values()
    assert error.startswith("ArgumentError: ")
    assert re.search(message, error), error


def test_a_path_that_is_rendered_is_read_in_the_task(tmp_path: Path) -> None:
    (tmp_path / "events.json").write_text(json.dumps(SUITE))
    env = Environment(loader=FileSystemLoader([str(tmp_path)]), autoescape=True)
    templated, other = Expectations("{{ params.suite }}.json").as_dict(), NotNull("v").as_dict()
    assert with_suite_files([templated, other], env) == [templated, other]
    rendered = {**templated, "suite": "events.json"}
    assert with_suite_files([rendered, other], env) == [{**templated, "suite": SUITE}, other]
    assert with_suite_files("{{ params.audits }}", env) == "{{ params.audits }}"
