"""What docs/signals.md shows can be put into a DAG file as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

PAGE = Path(__file__).parents[3] / "docs" / "signals.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def dag_of(snippet: str) -> DAG:
    """Run a snippet and return the DAG that it makes."""
    names: dict[str, Any] = {}
    body = re.sub(r"with (DAG\(.*\)):", r"with \1 as the_dag:", snippet)
    exec(body, names)  # noqa: S102 (our own page)
    assert isinstance(names["the_dag"], DAG)
    return names["the_dag"]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_makes_a_dag_that_airflow_can_store(snippet: str) -> None:
    dag = dag_of(snippet)
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert stored.task_ids == dag.task_ids


def test_each_way_is_shown() -> None:
    kinds = {type(task).__name__ for snippet in SNIPPETS for task in dag_of(snippet).tasks}
    assert {"EmitSignalOperator", "SignalSensor", "ClaimMatchesOperator"} <= kinds
