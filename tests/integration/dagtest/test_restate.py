"""Restatements by the form of "Trigger DAG", and previews, under Airflow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from airflow_incremental import IncrementalLoad, IncrementalLoadOperator, restate_params
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.requests import RestateRequest
from airflow_incremental.iceberg.state import published
from airflow_incremental.operators.restate import request_of
from tests.integration.dagtest.loads import Worlds, arguments
from tests.integration.dagtest.runner import Run, new_dag, run_dag
from tests.support.world import OVERWRITE_SQL, World, hour

FORM = {
    "restate_from": "2024-01-01T01:00:00Z",
    "restate_to": "2024-01-01T03:00:00+00:00",
    "reason": "the rate was wrong",
}
MARKED = OVERWRITE_SQL.replace("sum(v)::BIGINT", "-1::BIGINT")


@attrs.define
class Runs:
    """Runs of a load, each of a DAG of its own: ``dag.test`` keeps in the DAG what the form was filled in with."""

    world: World
    dag_id: str
    grouped: bool = False
    made: int = 0

    def __call__(self, form: dict[str, Any] | None = None, **changes: Any) -> Run:
        """Run the load, with a form that is filled in."""
        given = arguments(self.world, **{"retries": 0, **changes})
        self.made += 1
        with new_dag(f"{self.dag_id}_{self.made}", params=restate_params()) as dag:
            if self.grouped:
                shared = {name: given.pop(name) for name in ("retries", "retry_delay")}
                IncrementalLoad("load", operator_args={"*": shared}, **given)
            else:
                IncrementalLoadOperator(task_id="load", **given)
        return run_dag(dag, run_conf=form or {})

    def shown(self, run: Run) -> str:
        """Return what the page of the task that plans shows."""
        return str(run.rendered("load.plan" if self.grouped else "load")["plan_summary"])

    def outcome(self, run: Run) -> str:
        """Return how the load ended."""
        return str(run.xcom("load.publish" if self.grouped else "load")["outcome"])


def marked(world: World) -> set[Any]:
    return {row[0] for row in world.target_rows() if row[3] == -1}


@pytest.mark.parametrize("grouped", [False, True], ids=["fused", "group"])
def test_the_form_restates_its_range_and_nothing_else(make_world: Worlds, dag_id: str, *, grouped: bool) -> None:
    world = make_world(mode="overwrite")
    run = Runs(world, dag_id, grouped)
    world.land(0, 1, 2, 3, 4)
    assert run.outcome(run()) == "published"
    before = published(world.target, world.name)

    asked = run(FORM, transform=MARKED)

    assert asked.state == "success"
    assert marked(world) == {hour(1), hour(2)}
    after = published(world.target, world.name)
    assert before is not None
    assert after is not None
    assert after.watermark == before.watermark
    assert after.summary["incremental.reason"].endswith(": the rate was wrong")
    assert "the rate was wrong" in run.shown(asked)
    assert run.outcome(run()) == "nothing_to_do", "the watermark is where it was"


@pytest.mark.parametrize("grouped", [False, True], ids=["fused", "group"])
def test_a_preview_shows_the_plan_and_touches_nothing(make_world: Worlds, dag_id: str, *, grouped: bool) -> None:
    world = make_world(mode="overwrite")
    run = Runs(world, dag_id, grouped)
    world.land(0, 1, 2)
    first = run({"preview_only": True})
    assert set(first.tasks.values()) == {"skipped"}
    assert world.target.current_snapshot() is None
    assert "3 rows added" in run.shown(first)
    run()
    head = world.target.metadata.model_dump_json()

    asked = run({**FORM, "preview_only": True})

    assert set(asked.tasks.values()) == {"skipped"}
    assert world.target.metadata.model_dump_json() == head
    for words in (
        "restatement by form of 2024-01-01T01:00:00Z/2024-01-01T03:00:00Z",
        "at most 3 rows in 1 files",
        "2 files of mart.result with 2 rows are touched",
        "(2 hours)",
    ):
        assert words in run.shown(asked)
    assert "nothing to do" in run.shown(run({"preview_only": True}))
    world.check()


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"restate_from": FORM["restate_from"]}, "and no restate_to"),
        ({**FORM, "restate_to": FORM["restate_from"]}, "restate_from and restate_to are both"),
        ({**FORM, "restate_from": "2024-01-01T01:00:99Z"}, "an ISO 8601 time with a zone"),
    ],
)
def test_a_form_that_is_filled_in_wrongly_fails_the_plan_and_is_not_retried(
    make_world: Worlds, dag_id: str, capsys: pytest.CaptureFixture[str], form: dict[str, str], said: str
) -> None:
    run = Runs(make_world(mode="overwrite"), dag_id)(form, retries=3)
    assert (run.tasks, run.tries) == ({"load": "failed"}, {"load": 1})
    assert said in capsys.readouterr().out


def test_a_form_without_a_zone_makes_no_run(make_world: Worlds, dag_id: str) -> None:
    with pytest.raises(Exception, match="restate_from: '2024-01-01T01:00:00' does not match"):
        Runs(make_world(mode="overwrite"), dag_id)({**FORM, "restate_from": "2024-01-01T01:00:00"})


def backfill(params: dict[str, Any], *, start: float = 1, end: float = 2) -> RestateRequest | None:
    run = SimpleNamespace(run_type="backfill", data_interval_start=hour(start), data_interval_end=hour(end))
    return request_of({"dag_run": run, "params": params})


def test_a_backfill_restates_its_interval() -> None:
    assert str(backfill({})) == "backfill of 2024-01-01T01:00:00Z/2024-01-01T02:00:00Z"
    assert str(backfill({"reason": "new rates"})).endswith("Z: new rates")
    with pytest.raises(ArgumentError, match="it restates its own data interval"):
        backfill({"restate_from": "2024-01-01T00:00:00Z"})
    with pytest.raises(ArgumentError, match="has no length"):
        backfill({}, end=1)


def test_other_runs_load_what_changed() -> None:
    run = SimpleNamespace(run_type="scheduled", data_interval_start=hour(1), data_interval_end=hour(2))
    assert request_of({"dag_run": run, "params": {}}) is None
    assert request_of({"dag_run": run, "params": dict.fromkeys(restate_params())}) is None
