"""The task that undoes: what a DAG file with it is, and what it does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_incremental import RollbackOperator
from airflow_incremental.compat import AirflowFailException
from airflow_incremental.core.errors import ArgumentError, SessionBusy
from airflow_incremental.iceberg import naming
from airflow_incremental.operators import rollback
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.store.database import Store
from tests.support.by_hand import last_of, loaded_twice
from tests.support.world import TARGET, World

GIVEN = {"task_id": "undo", "target": "mart.sales", "session": "{{ params.session }}", "reason": "bad delivery"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": ""}, "target is ''"),
        ({"target": "sales"}, "namespace.table"),
        ({"session": None}, "session is None"),
        ({"reason": " "}, "who did it, and why"),
        ({"reason": "x" * 501}, "at most 500"),
        ({"by": ""}, "by is ''"),
        ({"process": ""}, "process is ''"),
    ],
)
def test_a_wrong_argument_fails_the_import(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        RollbackOperator(**{**GIVEN, **changes})
    assert words in str(raised.value)


def test_templates_and_results_of_tasks_are_left_to_the_task() -> None:
    @task
    def which() -> str:
        return "20240101T000000-00000000"

    with DAG("d", schedule=None):
        found: Any = which()
        made = RollbackOperator(**{**GIVEN, "target": "{{ params.target }}", "session": found})
    assert set(made.template_fields) >= {"target", "session", "reason", "by", "process"}
    assert made.retries == 2


def context_of(**changes: Any) -> Any:
    values = {"dag_id": "undo", "run_id": "manual", "task_id": "undo", "map_index": -1, "try_number": 1}
    return {"ti": SimpleNamespace(**{**values, **changes}), "dag_run": SimpleNamespace(clear_number=0)}


def test_it_undoes_and_tells_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, (one, two) = loaded_twice(tmp_path, "overwrite")
    file = tmp_path / "signals.db"
    monkeypatch.setenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    monkeypatch.setattr(rollback, "catalog_of", lambda _conn_id: world.catalog)
    made = RollbackOperator(
        task_id="undo", target=TARGET, session=two.session, reason="bad delivery", preview_only=True
    )
    assert made.execute(context_of())["outcome"] == "planned"
    assert last_of(world) == two
    made.preview_only = False
    for outcome in ("done", "already_done"):
        found = made.execute(context_of())
        assert (found["outcome"], found["back_to"]) == (outcome, one.session)
        json.dumps(found)
    summary = last_of(world).summary
    assert summary[naming.BY] == "run manual of DAG undo"
    assert json.loads(summary[naming.OWNER])["task_id"] == "undo"
    from sqlalchemy import select

    from airflow_incremental.store import schema

    with Store.open(f"sqlite:///{file}").read() as conn:
        (row,) = conn.execute(select(schema.session)).all()
        (process,) = conn.execute(select(schema.process)).all()
        signals = conn.execute(select(schema.signal)).all()
    assert (row.session, row.kind, row.dag_id) == (found["rollback"], "rollback", "undo")
    assert row.reason == f"run manual of DAG undo rolled back to before session {two.session}: bad delivery"
    assert process.session == found["rollback"]
    assert len(signals) == 1, "told once"
    # The run of a load is not mistaken for the task that undid, nor the reverse.
    assert steps.run(world.process()).outcome == "published"
    world.check()


def test_what_a_retry_cannot_mend_fails_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, (_, two) = loaded_twice(tmp_path, "append")
    monkeypatch.setattr(rollback, "catalog_of", lambda _conn_id: world.catalog)

    def run(session: str) -> None:
        made = RollbackOperator(task_id="undo", target=TARGET, session=session, reason="x", incremental_conn_id=None)
        made.execute(context_of())

    with pytest.raises(AirflowFailException, match="the last ones are"):
        run("yesterday")
    world.land(9)
    plan(world.process())
    with pytest.raises(SessionBusy):  # which may be over in a moment
        run(two.session)
    assert isinstance(world, World)
