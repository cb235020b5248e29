"""Thresholds: what they cut off is an error, or kept on the target until it is computed; nothing is lost either way."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental.core.errors import WorkCutOff
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.watermark import Watermark
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.state import published
from airflow_incremental.operators import reports
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import draft
from airflow_incremental.sessions.process import Finished
from tests.support.balances import Balances, Sums, shown
from tests.support.tables import roll_back
from tests.support.world import World, hour

KEEP: dict[str, Any] = {"on_skipped": "keep"}


def tick(world: World) -> Finished:
    return steps.run(world.process())


def watermark(world: World) -> Watermark:
    found = published(world.target, world.name)
    assert found is not None
    return found.watermark


def skipped(world: World) -> list[str]:
    return shown(watermark(world).skipped)


def loaded(world: World, *, limit: dict[str, Any]) -> World:
    """A world with hours 0 to 9 loaded, whose process has a threshold from now on."""
    world.set_up()
    world.land(*(n + 0.25 for n in range(10)), 10)
    tick(world)
    world.policies = {**world.policies, **limit}
    return world


def make(kind: str, home: Path) -> World:
    return {
        "overwrite": World(home=home, mode="overwrite"),
        "missed": Sums(home=home),
        "in order": Balances(home=home),
    }[kind]


KINDS = pytest.mark.parametrize("kind", ["overwrite", "missed", "in order"])
LOOKBACK = {"max_lookback": dt.timedelta(hours=3)}


@KINDS
@pytest.mark.parametrize("limit", [LOOKBACK, {"budget": 2}])
def test_by_default_it_is_an_error_and_nothing_changes(tmp_path: Path, kind: str, limit: dict[str, Any]) -> None:
    world = loaded(make(kind, tmp_path), limit=limit)
    world.land(3.5, 4.5, 5.5)
    before = world.target.metadata
    with pytest.raises(WorkCutOff, match="a threshold would cut off pending work of process 'proc'"):
        tick(world)
    assert world.target.metadata == before
    world.policies = {k: v for k, v in world.policies.items() if k not in limit}
    assert tick(world).did_publish
    world.check()


@KINDS
def test_what_is_too_old_waits_until_the_lookback_is_raised(tmp_path: Path, kind: str) -> None:
    world = loaded(make(kind, tmp_path), limit={**LOOKBACK, **KEEP})
    world.land(3.5, 8.5)
    finished = tick(world)
    assert finished.plan is not None
    assert shown(finished.plan.replaced) == (["8-10"] if kind == "in order" else ["8-9"])
    assert "skipped, and kept for later: 2024-01-01T03:00:00Z/2024-01-01T04:00:00Z" in finished.plan.describe()
    assert skipped(world) == ["3-4"]
    again = tick(world)
    assert (again.outcome, again.plan) == ("nothing_to_do", None), "what is kept off makes no work"
    assert "a threshold keeps off what is skipped: 2024-01-01T03:00:00Z" in again.reason
    world.land(9.5)
    assert tick(world).did_publish
    assert skipped(world) == ["3-4"], "and stays"
    world.policies = {**world.policies, "max_lookback": dt.timedelta(hours=30)}
    finished = tick(world)
    assert finished.plan is not None
    assert finished.plan.reason.startswith("work that was skipped is caught up on")
    assert "3-4" in shown(finished.plan.late)
    assert skipped(world) == []
    world.check()
    assert tick(world).outcome == "nothing_to_do"


@KINDS
def test_only_what_is_too_old_came(tmp_path: Path, kind: str) -> None:
    """No row is written, and the watermark says so; a later run does not look at the source's old changes again."""
    world = loaded(make(kind, tmp_path), limit={**LOOKBACK, **KEEP})
    world.land(3.5)
    rows = world.target_rows()
    finished = tick(world)
    assert (finished.outcome, finished.reason) == ("nothing_to_do", "only work that a threshold cuts off came")
    assert world.target_rows() == rows
    assert skipped(world) == ["3-4"]
    assert watermark(world).positions["events"].snapshot_id == world.source.metadata.current_snapshot_id
    world.land(2.5)
    tick(world)
    assert skipped(world) == ["2-4"]
    summary = reports.summarise(tick(world), process="proc", target="mart.result")
    assert summary["skipped"] == ["2024-01-01T02:00:00Z/2024-01-01T04:00:00Z"]
    assert "skipped, and kept for later: 2024-01-01T02:00:00Z" in reports.describe(summary)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Where hours stand for themselves the newest come first; where they do not, in order, each on the right state.
        ("overwrite", [(["6-7", "10-11"], ["1-2", "4-5"]), (["1-2", "4-5"], [])]),
        ("missed", [(["6-7", "10-11"], ["1-2", "4-5"]), (["1-2", "4-5"], [])]),
        ("in order", [([f"{n}-{n + 2}"], [f"{n + 2}-10"]) for n in (1, 3, 5, 7)] + [(["9-11"], [])]),
    ],
)
def test_a_budget_drains_run_by_run(tmp_path: Path, kind: str, expected: list[Any]) -> None:
    world = loaded(make(kind, tmp_path), limit={"budget": 2, **KEEP})
    world.land(1.5, 4.5, 6.5, *([] if kind == "overwrite" else [11]))
    if kind == "overwrite":
        world.land(10.5)
    for replaced, left in expected:
        finished = tick(world)
        assert finished.plan is not None
        assert (shown(finished.plan.replaced), skipped(world)) == (replaced, left)
        assert finished.did_publish
    world.check()
    assert tick(world).outcome == "nothing_to_do"


def test_in_order_the_state_is_right_at_every_moment(tmp_path: Path) -> None:
    """A first run under a budget goes on where the last run stopped, and says it is complete only as far as that."""
    world = Balances(home=tmp_path, policies={"budget": 3, **KEEP}).set_up()
    world.land(*(n + 0.25 for n in range(8)))
    for through in (3, 6, 7):
        assert tick(world).did_publish
        assert (world.processed, watermark(world).complete_through) == (hour(through), hour(through))
        assert skipped(world) == []
        world.verify()
    assert tick(world).outcome == "nothing_to_do"


def test_a_first_run_has_a_budget_and_no_lookback(tmp_path: Path) -> None:
    world = World(home=tmp_path / "lookback", mode="overwrite", policies={"max_lookback": 0, **KEEP}).set_up()
    world.land(0, 5)
    tick(world)
    world.check()
    world = World(home=tmp_path / "budget", mode="overwrite", policies={"budget": 4, **KEEP}).set_up()
    world.land(0, 5)
    for replaced, left in ((["2-6"], ["0-2"]), (["0-2"], [])):
        finished = tick(world)
        assert finished.plan is not None
        assert (shown(finished.plan.replaced), skipped(world)) == (replaced, left)
    world.check()


@KINDS
def test_complete_through_stays_what_the_sources_say(tmp_path: Path, kind: str) -> None:
    world = loaded(make(kind, tmp_path), limit={**LOOKBACK, **KEEP})
    world.land(3.5, 12)
    tick(world)
    assert skipped(world) == ["3-4"]
    assert watermark(world).complete_through == hour(12)


@pytest.mark.parametrize("kind", ["overwrite", "missed"])
def test_a_restatement_takes_what_it_covers_off_the_list(tmp_path: Path, kind: str) -> None:
    world = make(kind, tmp_path).set_up()
    world.land(2.25, 3.25)
    world.land(4)
    steps.run(world.process("first"))
    world.land(8.25, 9)
    world.policies = {**world.policies, **KEEP, "max_lookback": 0}
    tick(world)
    world.land(0.5, 3.5)
    tick(world)
    assert skipped(world) == ["0-1", "3-4"]
    finished = steps.run(world.process("first", clear_number=1))
    assert finished.plan is not None
    assert finished.plan.kind == "restatement"
    assert skipped(world) == ["0-1"]
    world.policies = {k: v for k, v in world.policies.items() if k != "max_lookback"}
    tick(world)
    world.check()


def test_a_rollback_takes_the_list_back_with_it(tmp_path: Path) -> None:
    world = loaded(make("overwrite", tmp_path), limit={**LOOKBACK, **KEEP})
    world.land(3.5, 9.5)
    tick(world)
    target = world.target
    roll_back(target, target.current_snapshot().parent_snapshot_id)  # type: ignore[union-attr,arg-type]
    assert skipped(world) == []
    found = draft(world.process(), world.target)
    assert isinstance(found, Plan)
    assert shown(found.watermark.skipped) == ["3-4"]


def test_a_reload_does_all_of_it(tmp_path: Path) -> None:
    world = loaded(make("overwrite", tmp_path), limit={**LOOKBACK, **KEEP, "budget": 1, "on_lost_watermark": "reload"})
    world.land(3.5, 9.5)
    tick(world)
    rows, schema = world.source.scan().to_arrow(), world.source.schema().as_arrow()
    world.catalog.drop_table("raw.events")
    world.catalog.create_table("raw.events", schema=schema).append(rows)
    finished = tick(world)
    assert finished.plan is not None
    assert (finished.plan.kind, skipped(world)) == ("reload", [])
    world.check()


def test_the_property_of_the_target_stays_small(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(*(n + 0.25 for n in range(150)))
    tick(world)
    world.policies = {**LOOKBACK, **KEEP}
    for n in range(0, 100, 4):
        world.land(n + 0.5)
    tick(world)
    text = world.target.metadata.properties[naming.state_property("proc")]
    assert len(text.encode()) <= 2048
    assert len(json.loads(text)["watermark"]["skipped"]) == 12
    world.policies = {}
    tick(world)
    world.check()
