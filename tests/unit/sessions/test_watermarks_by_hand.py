"""Watermarks that a person sets or takes away: what the next run does then, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest

from airflow_incremental.core.errors import ArgumentError, SessionBusy, TargetChanged, TargetNotEmpty, WatermarkLost
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.completeness import rule_of, told_through
from airflow_incremental.iceberg.lineage import head_of
from airflow_incremental.iceberg.state import other_processes, process_claim, published
from airflow_incremental.sessions import steps, watermarks
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from airflow_incremental.sessions.watermarks import Changed, reset_watermark, set_watermark, show
from tests.support.balances import planned
from tests.support.by_hand import ACT, last_of, loaded_twice, rolled_back, set_back
from tests.support.modes import MODES, world_of
from tests.support.tables import compact, expire, roll_back
from tests.support.world import TARGET, World, hour

ALL = pytest.mark.parametrize("mode", MODES)
APPENDS = ("append", "append a union")


def reset(world: World, **more: Any) -> Changed:
    return reset_watermark(world.catalog, TARGET, world.name, act=ACT, **more)


def position(world: World) -> int:
    found = last_of(world).watermark.positions["events"].snapshot_id
    assert found is not None
    return found


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in APPENDS])
@pytest.mark.parametrize("where", ["first", "start", "time"])
def test_set_back_the_next_run_takes_changes_again(tmp_path: Path, mode: str, where: str) -> None:
    world, (one, two) = loaded_twice(tmp_path, mode)
    at = one.watermark.positions["events"]
    text = {"first": str(at.snapshot_id), "start": "start", "time": str(at.committed_at)}[where]
    snapshots = len(world.target.metadata.snapshots)
    before = world.target_rows()

    done = set_back(world, text)

    assert done.outcome == "done"
    assert f"the next run takes the changes of {4 if where == 'start' else 2} snapshots again" in done.describe()
    assert world.target_rows() == before
    assert len(world.target.metadata.snapshots) == snapshots + 1
    now = last_of(world)
    assert now.watermark.positions["events"].snapshot_id == (None if where == "start" else at.snapshot_id)
    assert attrs.evolve(now.watermark, positions=two.watermark.positions) == two.watermark, "the rest stays"
    assert [now.summary[key] for key in (naming.KIND, naming.BY, naming.REASON)] == ["set", "anna", "a bad delivery"]
    assert set_back(world, text).outcome == "unchanged"
    assert len(world.target.metadata.snapshots) == snapshots + 1

    world.land(6, 0.9)
    finished = steps.run(world.process())
    assert finished.plan is not None
    assert finished.plan.sources[0].rows_added == (13 if where == "start" else 7)
    world.check()
    assert steps.run(world.process()).outcome == "nothing_to_do"


@pytest.mark.parametrize("mode", APPENDS)
def test_append_does_not_go_back_to_rows_that_are_there(tmp_path: Path, mode: str) -> None:
    world, (one, two) = loaded_twice(tmp_path, mode)
    at = one.watermark.positions["events"].snapshot_id
    for text in (str(at), "start"):
        with pytest.raises(ArgumentError, match=r"would append their rows a second time.*roll back.*--append-again"):
            set_back(world, text)
    assert last_of(world) == two
    # Whoever has removed the rows says so.
    before = world.target_rows()
    world.target.delete(f"ts >= '{hour(3).isoformat()}'")
    set_back(world, str(at), append_again=True)
    assert steps.run(world.process()).did_publish
    assert world.target_rows() - before, "and gets what was asked for"


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "append a union"])
def test_set_forward_changes_are_passed_over(tmp_path: Path, mode: str) -> None:
    world, _ = loaded_twice(tmp_path, mode)
    before = world.target_rows()
    world.land(7)
    world.land(7.5)
    seen = set_back(world, "current", dry_run=True)
    assert seen.outcome == "planned"
    assert position(world) != world.source.metadata.current_snapshot_id
    done = set_back(world, "current")
    assert "the changes of 2 snapshots are passed over" in done.describe()
    assert attrs.evolve(seen, outcome="done") == attrs.evolve(done, session=None, snapshot_id=None)
    assert position(world) == world.source.metadata.current_snapshot_id
    if not mode.startswith("stateful"):  # which computes what is complete by now, changed or not
        steps.run(world.process())
        assert world.target_rows() == before


def test_processed_through_goes_back_for_a_stateful_target(tmp_path: Path) -> None:
    world, (_, two) = loaded_twice(tmp_path, "stateful")
    assert two.watermark.processed_through == hour(4)

    def put(n: float) -> Changed:
        return set_watermark(world.catalog, TARGET, None, {}, act=ACT, processed_through=hour(n))

    done = put(1)
    assert "computes everything from 2024-01-01T01:00:00Z on again" in done.describe()
    assert planned(world) == ["1-4"]
    with pytest.raises(ArgumentError, match=r"is computed by the hour.*say 2024-01-01T02:00:00Z"):
        put(2.5)
    with pytest.raises(ArgumentError, match="complete through 2024-01-01T04:00:00Z"):
        put(9)
    assert put(1).outcome == "unchanged"
    steps.run(world.process())
    world.check()
    other, _ = loaded_twice(tmp_path / "other", "overwrite")
    with pytest.raises(ArgumentError, match=r"mode 'overwrite', whose watermark has no processed-through"):
        set_watermark(other.catalog, TARGET, None, {}, act=ACT, processed_through=hour(1))


def test_what_names_no_position_is_refused(tmp_path: Path) -> None:
    world, (_, two) = loaded_twice(tmp_path, "overwrite")
    branch = world.source.metadata.current_snapshot_id
    world.source.manage_snapshots().create_branch(branch or 0, "side").commit()
    world.source.append(world.source.scan().to_arrow(), branch="side")
    side = world.source.metadata.refs["side"].snapshot_id
    for text, words in {
        "12345": "snapshot 12345 is not on branch 'main' of source 'events'",
        str(side): "is not on branch 'main'",
        "yesterday": "the position of source 'events' is 'yesterday'",
        "2024-01-01T00:00:00": "2024-01-01T00:00:00Z|zone",
    }.items():
        with pytest.raises(ArgumentError, match=words):
            set_back(world, text)
    with pytest.raises(ArgumentError, match="process 'proc' has no source other"):
        set_watermark(world.catalog, TARGET, None, {"other": "current"}, act=ACT)
    with pytest.raises(ArgumentError, match="nothing is to be set"):
        set_watermark(world.catalog, TARGET, None, {}, act=ACT)
    assert last_of(world) == two
    set_back(world, str(side), branches={"events": "side"})
    assert position(world) == side


def test_a_table_the_last_publish_does_not_name_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older version published it."""
    world, _ = loaded_twice(tmp_path, "overwrite")
    monkeypatch.setattr(watermarks, "_tables", lambda _last: {})
    with pytest.raises(ArgumentError, match=r"add --table events=<namespace\.table>"):
        set_back(world, "start")
    assert set_back(world, "start", tables={"events": "raw.events"}).outcome == "done"
    steps.run(world.process())
    world.check()


@ALL
def test_an_open_session_is_in_the_way(tmp_path: Path, mode: str) -> None:
    world, _ = loaded_twice(tmp_path, mode)
    world.land(6)
    session = plan(world.process())
    assert isinstance(session, Session)
    for act in (lambda: set_back(world, "current"), lambda: reset(world), lambda: reset(world, dry_run=True)):
        with pytest.raises(SessionBusy, match=f"session {session.plan.session}.*session abandon {TARGET} proc"):
            act()


def test_a_publish_in_between_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, _ = loaded_twice(tmp_path, "overwrite")
    put = watermarks.put_watermark

    def late(*arguments: Any, **more: Any) -> Any:
        world.land(6)
        steps.run(world.process())
        return put(*arguments, **more)

    monkeypatch.setattr(watermarks, "put_watermark", late)
    with pytest.raises(TargetChanged, match="went on to session"):
        set_back(world, "start")
    with pytest.raises(TargetChanged, match="went on to session"):
        reset(world)
    world.check()


def test_a_set_watermark_survives_compaction_and_expiry(tmp_path: Path) -> None:
    world, (one, _) = loaded_twice(tmp_path, "overwrite")
    at = one.watermark.positions["events"].snapshot_id
    set_back(world, str(at))
    compact(world.target)
    held = {ref.snapshot_id for ref in world.target.metadata.refs.values()}
    expire(world.target, [s.snapshot_id for s in world.target.metadata.snapshots if s.snapshot_id not in held])
    assert position(world) == at
    steps.run(world.process())
    world.check()


@ALL
def test_reset_of_a_filled_target_leads_to_no_doubled_row(tmp_path: Path, mode: str) -> None:
    world, (_, two) = loaded_twice(tmp_path, mode)
    rows = world.target_rows()
    done = reset(world)
    assert (done.outcome, done.watermark, done.previous_watermark) == ("done", None, two.watermark.to_json())
    assert ("is refused unless 'initial' adopts them" in done.describe()) == (not mode.startswith("stateful"))
    assert "is refused" in done.describe()
    assert published(world.target, world.name) is None
    assert reset(world).outcome == "unchanged"
    world.land(6)
    with pytest.raises(TargetNotEmpty):
        steps.run(world.process())
    assert world.target_rows() == rows
    # What it says is enough: emptied, it starts from the start.
    world.target.delete("true")
    assert "a first run" in reset(world).describe()
    assert steps.run(world.process()).did_publish
    world.check()


def test_after_a_reset_a_load_adopts_up_to_where_it_says(tmp_path: Path) -> None:
    world, (_, two) = loaded_twice(tmp_path, "append")
    at = two.watermark.positions["events"].snapshot_id
    reset(world)
    world.land(6, 0.6)
    steps.run(attrs.evolve(world, policies={"initial": {"adopt": at}}).process())
    world.check()


def test_a_reset_process_is_still_known_to_others(tmp_path: Path) -> None:
    """Its scope stays its own, and whoever reads the target knows that it is complete no more."""
    fields = (("hour", "hour_ts"), ("identity", "region"))
    world = World(home=tmp_path, mode="overwrite", target_fields=fields, scope={"region": "eu"}).set_up()
    world.land(1, 2)
    steps.run(world.process())
    head = head_of(world.target, "main")
    assert told_through(world.target, "main", head, rule_of(world.target, None)) == hour(2)
    reset(world)
    for table in (world.target, expired_but_head(world)):
        assert rule_of(table, None).rule == "published"
        assert told_through(table, "main", head_of(table, "main"), rule_of(table, None)) is None
        assert published(table, "proc") is None
        assert other_processes(table, "")["proc"]["scope"] == {"region": ["eu"]}
    assert (process_claim(world.target, "proc") or {})["watermark"] is None
    from airflow_incremental.core.errors import ScopeOverlap

    with pytest.raises(ScopeOverlap):
        steps.run(attrs.evolve(world, name="other").process())


def expired_but_head(world: World) -> Any:
    """Return the target after an empty commit and the expiry of all before it, the reset too, that no ref holds."""
    world.target.append(world.target.scan().to_arrow().slice(0, 0))
    held = {ref.snapshot_id for ref in world.target.metadata.refs.values()}
    return expire(world.target, [s.snapshot_id for s in world.target.metadata.snapshots if s.snapshot_id not in held])


def test_a_reset_or_a_set_can_be_undone(tmp_path: Path) -> None:
    world, (_, two) = loaded_twice(tmp_path, "append")
    done = reset(world)
    assert done.session is not None
    assert rolled_back(world, done.session).back_to == two.session
    assert last_of(world).watermark == two.watermark
    world.land(6)
    again = set_back(world, "current")
    assert again.session is not None
    rolled_back(world, again.session)
    assert steps.run(world.process()).did_publish
    world.check()


def test_a_refused_run_names_the_reset_that_can_be_undone(tmp_path: Path) -> None:
    world, _ = loaded_twice(tmp_path, "append")
    done = reset(world)
    with pytest.raises(
        TargetNotEmpty, match=rf"has no watermark on.*adopt.*rollback {TARGET} proc --to {done.session}"
    ):
        steps.run(world.process())
    # A stateful target cannot be adopted, so nothing says that it can.
    world, _ = loaded_twice(tmp_path / "stateful", "stateful")
    assert "adopt" not in reset(world).describe()
    with pytest.raises(TargetNotEmpty, match="delete the rows") as refused:
        steps.run(world.process())
    assert "adopt" not in str(refused.value)


@pytest.mark.parametrize("mode", ["append", "overwrite", "merge"])
def test_adopted_rows_count_for_how_far_the_target_is_complete(tmp_path: Path, mode: str) -> None:
    """What came since may all be late; and a position that is adopted is published, also if nothing came."""
    world, (_, two) = loaded_twice(tmp_path, mode)
    at = two.watermark.positions["events"].snapshot_id
    adopts = attrs.evolve(world, policies={"initial": {"adopt": at}})
    reset(world)
    steps.run(adopts.process("adopts"))
    assert last_of(world).watermark == two.watermark
    assert steps.run(world.process("and goes on")).outcome == "nothing_to_do"
    reset(world)
    world.land(0.6)
    steps.run(adopts.process("adopts late rows"))
    assert last_of(world).watermark.complete_through == two.watermark.complete_through
    world.check()


@pytest.mark.parametrize("stands", ["publish", "reset"])
def test_moved_back_and_expired_a_reset_holds_where_main_still_has_it(tmp_path: Path, stands: str) -> None:
    """Somebody moved main back to before the reset, or to it; then its history was expired, and older metadata tells."""
    world, (_, two) = loaded_twice(tmp_path, "append")
    done = reset(world)
    if stands == "reset":
        world.policies = {"initial": {"adopt": "current"}}
        steps.run(world.process())
    roll_back(world.target, two.snapshot_id if stands == "publish" else done.snapshot_id or 0)
    table = expired_but_head(world)
    if stands == "reset":
        assert published(table, world.name) is None
        return
    found = published(table, world.name)
    assert found is not None
    assert found.watermark == two.watermark
    # What the load says of a first run is not looked at: its rows would come a second time.
    world.policies = {"initial": {"adopt": "all"}}
    steps.run(world.process())
    world.check()


def test_a_lost_watermark_is_set_where_every_source_is_named(tmp_path: Path) -> None:
    """Somebody moved main back past the publishes, then put the rows there by hand."""
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(0, 1)
    steps.run(world.process())
    first = position(world)
    world.land(2)
    steps.run(world.process())
    bootstrap = next(s for s in world.target.metadata.snapshots if s.parent_snapshot_id is None)
    roll_back(world.target, bootstrap.snapshot_id)
    with pytest.raises(WatermarkLost):
        steps.run(world.process())
    with pytest.raises(WatermarkLost):
        show(world.catalog, TARGET, None)
    with pytest.raises(WatermarkLost, match="a position for every source, also for events"):
        set_watermark(world.catalog, TARGET, None, {}, act=ACT, processed_through=hour(0))
    assert set_back(world, "start").outcome == "done"
    steps.run(world.process())
    world.check()
    assert first != position(world)
    roll_back(world.target, bootstrap.snapshot_id)
    assert "was lost" in reset(world).describe()
    steps.run(world.process())
    world.check()


def test_a_run_is_not_told_to_undo_what_was_undone(tmp_path: Path) -> None:
    """The watermark was lost before it was taken away: to undo that brings none back."""
    world = World(home=tmp_path, mode="append", policies={"initial": {"adopt": "all"}}).set_up()
    world.target.append(pa.table({"id": [-1], "ts": [hour(9)], "region": ["zz"], "v10": [0]}, world.target_schema))
    before = world.target.metadata.current_snapshot_id
    world.land(0)
    steps.run(world.process())
    assert before is not None
    roll_back(world.target, before)
    done = reset(world)
    assert "was lost" in done.describe()
    assert done.session is not None
    rolled_back(world, done.session)
    world.policies = {}
    with pytest.raises(TargetNotEmpty, match="adopt") as refused:
        steps.run(world.process())
    assert "rollback" not in str(refused.value)


def test_show_says_how_it_stands(tmp_path: Path) -> None:
    world, (_, two) = loaded_twice(tmp_path, "stateful")
    world.land(9)
    found = show(world.catalog, TARGET, None)
    assert (found["session"], found["mode"], found["processed_through"]) == (
        two.session,
        "stateful",
        "2024-01-01T04:00:00Z",
    )
    (source,) = found["sources"]
    assert (source["source"], source["table"], source["state"], source["behind"]) == (
        "events",
        "raw.events",
        "behind",
        1,
    )
    at = two.watermark.positions["events"].snapshot_id
    expire(world.source, [at or 0])
    assert show(world.catalog, TARGET, None)["sources"][0]["state"] == "expired"
    set_back(world, "current")
    found = show(world.catalog, TARGET, None)
    assert found["by_hand"] == "anna set the watermark: a bad delivery"
    assert found["sources"][0]["state"] == "head"
    reset(world)
    found = show(world.catalog, TARGET, None)
    assert (found["sources"], found["by_hand"]) == ([], "anna reset the watermark: a bad delivery")
    json.dumps(found)


def test_nothing_is_set_where_nothing_was_published(tmp_path: Path) -> None:
    world = world_of(tmp_path, "append").set_up()
    with pytest.raises(ArgumentError, match="no process 'proc' has published"):
        set_back(world, "current")
    world.land(1)
    steps.run(world.process())
    reset(world)
    with pytest.raises(ArgumentError, match=r"has no watermark on mart\.result, so there is none to set.*adopt"):
        set_back(world, "current")
    world, _ = loaded_twice(tmp_path / "stateful", "stateful")
    reset(world)
    with pytest.raises(ArgumentError, match="into a target without rows in its scope") as refused:
        set_back(world, "current")
    assert "adopt" not in str(refused.value)
