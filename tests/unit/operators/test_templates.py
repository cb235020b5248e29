"""What is found in SQL files, templates and whole DAGs when Airflow imports a DAG file."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

CODE = """
from airflow.sdk import DAG
from airflow_incremental import IcebergSource, IcebergTarget, IncrementalLoad, IncrementalLoadOperator, SqlCheck

with DAG("loads", schedule=None, user_defined_filters={{"shout": str.upper}}):
    {load}(
        {id},
        sources={{"events": IcebergSource("raw.events", event_time="ts")}},
        target=IcebergTarget("mart.result", event_time="ts"),
        mode="append",
        transform={transform!r},
        audits=[SqlCheck("rule", {check!r})],
    )
"""
SQL = "SELECT * FROM events"


def load(
    folder: Path, *, transform: str | None = SQL, check: str = "SELECT * FROM rows", group: bool = False
) -> DagBag:
    name = (
        {"load": "IncrementalLoad", "id": "'load'"}
        if group
        else {"load": "IncrementalLoadOperator", "id": "task_id='load'"}
    )
    (folder / "loads.py").write_text(textwrap.dedent(CODE.format(transform=transform, check=check, **name)))
    return DagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="test")


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"transform": "sql/nothing.sql"},
            "transform of task .* names the file 'sql/nothing.sql', which is not there",
        ),
        ({"transform": "empty.sql"}, "transform is ''"),
        (
            {"transform": "SELECT {{ params.x FROM events"},
            r"transform of task .* Jinja can read: expected token.*\(line 1\)",
        ),
        ({"transform": "SELECT {% if params.x %} 1"}, "transform of task .* Jinja can read"),
        ({"transform": "SELECT {{ params.x | whisper }}"}, "No filter named 'whisper'"),
        ({"transform": "broken.sql"}, r"Jinja can read: .*\(line 2\)"),
        ({"check": "SELECT * FROM rows WHERE v > {{ params.most"}, "'sql' in audits of task"),
        ({"check": "sql/nothing.sql"}, "'sql' in audits of task .* names the file 'sql/nothing.sql'"),
    ],
)
def test_a_template_that_cannot_be_read_fails_the_import(
    tmp_path: Path, given: dict[str, str], message: str, group: bool
) -> None:
    (tmp_path / "empty.sql").write_text("")
    (tmp_path / "broken.sql").write_text("SELECT *\nFROM {{ params.x")
    bag = load(tmp_path, group=group, **given)
    assert bag.dags == {}
    (error,) = bag.import_errors.values()
    assert error.startswith("ArgumentError: ")
    assert re.search(message, error), error


def test_a_group_that_nobody_writes_for_fails_the_import(tmp_path: Path) -> None:
    bag = load(tmp_path, transform=None, group=True)
    assert bag.dags == {}
    (error,) = bag.import_errors.values()
    assert "the group 'load' has no transform and no tasks of its own between plan and seal" in error


@pytest.mark.parametrize("group", [False, True])
def test_templates_that_can_be_read(tmp_path: Path, group: bool) -> None:
    (tmp_path / "sql").mkdir()
    for name in ("load.sql", "check.sql"):
        (tmp_path / "sql" / name).write_text("SELECT * FROM events WHERE region = '{{ params.region | shout }}'")
    bag = load(tmp_path, transform="sql/load.sql", check="sql/check.sql", group=group)
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    assert dag.tasks[0].transform.startswith("SELECT *")
