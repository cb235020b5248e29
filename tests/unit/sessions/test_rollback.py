"""Undo: the target goes back to before a session, with its watermark, and the next run loads again what was undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.core.errors import (
    ArgumentError,
    RollbackRefused,
    SessionBusy,
    SessionSuperseded,
    TargetNotEmpty,
)
from airflow_incremental.core.ranges import TimeRange
from airflow_incremental.core.requests import RestateRequest
from airflow_incremental.iceberg import naming, rollback
from airflow_incremental.iceberg.lineage import committed_at
from airflow_incremental.iceberg.state import published
from airflow_incremental.iceberg.statistics import past_publishes
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.entries import act_entries
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from airflow_incremental.sessions.undoing import preview, undo
from tests.property.histories import ForeignCommit
from tests.support.by_hand import ACT, last_of, loaded_twice, rolled_back
from tests.support.modes import MODES, world_of
from tests.support.tables import compact, delete_rows_by_position, expire, roll_back
from tests.support.world import SOURCE, TARGET, World, hour

ALL = pytest.mark.parametrize("mode", MODES)


@ALL
def test_it_goes_back_with_its_watermark_and_the_next_run_loads_again(tmp_path: Path, mode: str) -> None:
    world = world_of(tmp_path, mode).set_up()
    world.land(0.1, 0.2, 1.5, 2.5)
    world.land(0.3, 1.1, region="us")
    steps.run(world.process())
    one, before = last_of(world), world.target_rows()
    world.land(1.7, 3.2, 4.1)
    world.land(3.3, 0.4, region="us")
    steps.run(world.process())
    two = last_of(world)
    assert world.target_rows() != before

    seen = preview(world.catalog, TARGET, world.name, two.session)
    assert (seen.outcome, seen.snapshot_id) == ("planned", None)
    assert last_of(world) == two, "a preview touches nothing"
    done = rolled_back(world, two.session)

    assert attrs.evolve(seen, outcome="done", rows_restored=0) == attrs.evolve(
        done, rollback=None, snapshot_id=None, by=None, reason=None, rows_restored=0
    )
    assert (done.outcome, done.back_to, [u["session"] for u in done.undone]) == ("done", one.session, [two.session])
    assert world.target_rows() == before
    assert last_of(world).watermark == one.watermark
    head = world.target.current_snapshot()
    assert head is not None
    assert head.parent_snapshot_id == two.snapshot_id, "main goes on"
    stored = json.loads(world.target.properties[naming.state_property(world.name)])
    assert (stored["snapshot"], stored["mode"]) == (head.snapshot_id, two.summary[naming.MODE])
    assert world.target.metadata.refs[naming.watermark_tag(world.name)].snapshot_id == head.snapshot_id

    world.land(0.7, 5.5)
    assert steps.run(world.process()).did_publish
    world.check()
    assert steps.run(world.process()).outcome == "nothing_to_do"


@ALL
def test_several_sessions_go_at_once_back_to_an_empty_target(tmp_path: Path, mode: str) -> None:
    world, (one, two) = loaded_twice(tmp_path, mode)
    done = rolled_back(world, one.session)
    assert [u["session"] for u in done.undone] == [two.session, one.session]
    assert (done.back_to, done.watermark) == (None, None)
    assert "a first run" in done.notes[0]
    assert not world.target_rows()
    assert published(world.target, world.name) is None
    assert naming.watermark_tag(world.name) not in world.target.metadata.refs
    assert steps.run(world.process()).did_publish
    world.check()


def test_again_it_finds_it_done(tmp_path: Path) -> None:
    world, (_, two) = loaded_twice(tmp_path, "overwrite")
    done = rolled_back(world, two.session)
    for _ in range(2):
        again = undo(world.catalog, TARGET, None, two.session, act=attrs.evolve(ACT, by="bert"))
        assert (again.outcome, again.by, again.rollback) == ("already_done", "anna", done.rollback)
        assert preview(world.catalog, TARGET, None, two.session).outcome == "already_done"
        assert "undone already: anna" in again.describe()
        steps.run(world.process())
        world.check()


def test_a_rollback_can_be_undone(tmp_path: Path) -> None:
    """Which brings back what it undid, and a run that was published before counts as published again."""
    world, (_, two) = loaded_twice(tmp_path, "overwrite")
    rows = world.target_rows()
    first = rolled_back(world, two.session)
    assert first.rollback is not None
    second = rolled_back(world, first.rollback)
    assert second.back_to == two.session
    assert world.target_rows() == rows
    assert last_of(world).watermark == two.watermark
    assert steps.run(world.process("second")).outcome == "already_published"
    assert steps.run(world.process()).outcome == "nothing_to_do"
    # And once more, past both.
    assert rolled_back(world, two.session).outcome == "done"
    assert steps.run(world.process("second")).outcome == "published"
    world.check()


def test_the_run_of_an_undone_session_plans_anew(tmp_path: Path) -> None:
    world, (_, two) = loaded_twice(tmp_path, "append")
    rolled_back(world, two.session)
    with pytest.raises(SessionSuperseded, match=f"and undone since: anna rolled back to before session {two.session}"):
        steps.resume(world.process("second"), two.session, again=True)
    assert steps.run(world.process("second", clear_number=1)).outcome == "published"
    world.check()


def test_rows_that_were_deleted_by_position_stay_deleted(tmp_path: Path) -> None:
    """What the session replaced is written again as it was seen, not as the files hold it."""
    world = World(home=tmp_path, mode="overwrite", target_fields=(("day", "hour_ts"),)).set_up()
    world.land(0.1, 1.1, 2.1)
    steps.run(world.process())
    table = world.target
    with table.update_schema() as update:
        update.move_first("n")
    gone = table.scan().to_arrow().to_pylist()[0]
    with table.update_schema() as update:
        update.move_first("hour_ts")
    delete_rows_by_position(table, [gone["hour_ts"]])
    before = world.target_rows()
    assert before.total() == 2
    world.land(1.5)
    steps.run(world.process())
    rolled_back(world, last_of(world).session)
    assert world.target_rows() == before


def test_an_open_session_is_in_the_way_until_it_is_ended(tmp_path: Path) -> None:
    world, (_, two) = loaded_twice(tmp_path, "append")
    world.land(7)
    session = plan(world.process())
    assert isinstance(session, Session)
    for act in (lambda: rolled_back(world, two.session), lambda: preview(world.catalog, TARGET, None, two.session)):
        with pytest.raises(
            SessionBusy, match=f"airflow-incremental session abandon {TARGET} proc --reason ..."
        ) as refused:
            act()
        assert session.plan.session in str(refused.value)
    with pytest.raises(RollbackRefused, match="it is open, and has published nothing"):
        rolled_back(world, session.plan.session)
    assert steps.abandon(world.catalog, TARGET, "proc", reason="test") == session.plan.session
    assert rolled_back(world, two.session).outcome == "done"
    steps.run(world.process())
    world.check()


@ALL
def test_rows_of_another_writer_are_never_taken_along(tmp_path: Path, mode: str) -> None:
    world, (one, two) = loaded_twice(tmp_path, mode)
    before = world.target
    before.append(before.scan(limit=1).to_arrow())
    rows = world.target_rows()
    for session in (two.session, one.session):
        with pytest.raises(
            RollbackRefused, match=r"another writer committed snapshot \d+ \(append\) since.*rollback_to_snapshot"
        ):
            rolled_back(world, session)
    assert world.target_rows() == rows
    # What it says is enough.
    roll_back(world.target, two.snapshot_id)
    assert rolled_back(world, two.session).outcome == "done"
    steps.run(world.process())
    world.check()


def test_deletes_of_another_writer_are_seen_too(tmp_path: Path) -> None:
    """Also where they leave nothing of what the session wrote: then nothing of theirs is live, but the rows are gone."""
    world, (_, two) = loaded_twice(tmp_path, "append")
    world.target.delete("v10 >= 0")
    with pytest.raises(RollbackRefused, match=r"another writer committed snapshot \d+ \(delete\)"):
        rolled_back(world, two.session)


@ALL
def test_compaction_is_nobodys_change(tmp_path: Path, mode: str) -> None:
    world = world_of(tmp_path, mode).set_up()
    world.land(0.1, 0.2, 1.5, 2.5)
    steps.run(world.process())
    before = world.target_rows()
    world.land(1.7, 3.2, region="us")
    steps.run(world.process())
    two = last_of(world)
    compact(world.target)
    assert rolled_back(world, two.session).outcome == "done"
    assert world.target_rows() == before
    steps.run(world.process())
    world.check()


def test_another_processs_sessions_have_to_go_first(tmp_path: Path) -> None:
    """And what the error says is enough."""
    fields = (("hour", "hour_ts"), ("identity", "region"))

    def of(region: str) -> World:
        return World(home=tmp_path, mode="overwrite", target_fields=fields, name=region, scope={"region": region})

    eu, us = of("eu").set_up(), of("us")

    def run(world: World) -> None:
        steps.run(world.process(transform=f"SELECT * FROM ({world.process().transform}) WHERE region = '{world.name}'"))

    for n in range(2):
        eu.land(n, n + 0.5)
        eu.land(n + 1, region="us")
        run(eu)
        if n == 0:
            run(us)
            before = eu.target_rows()
    first, other = last_of(eu), last_of(us)
    run(us)
    theirs = last_of(us)
    with pytest.raises(RollbackRefused, match=f"process 'us' published session {theirs.session}") as refused:
        rolled_back(eu, first.session)
    assert f"airflow-incremental rollback {TARGET} us --to {theirs.session} --reason ..." in refused.value.hint
    with pytest.raises(RollbackRefused, match="is one of process 'us', not of 'eu'"):
        rolled_back(eu, theirs.session)
    rolled_back(us, theirs.session)
    assert last_of(us).watermark == other.watermark
    rolled_back(eu, first.session)
    assert eu.target_rows() == before
    assert last_of(us).watermark == other.watermark, "the other one stays where it is"
    run(eu)
    run(us)
    assert eu.target_rows() == eu.oracle(eu.source_rows())


def test_sessions_of_another_process_that_wrote_no_rows_are_not_in_the_way(tmp_path: Path) -> None:
    world, (_, two) = loaded_twice(tmp_path, "append")
    other = World(home=tmp_path, name="other", policies={"initial": {"adopt": "current"}})
    steps.run(other.process())
    assert published(world.target, "other") is not None
    assert rolled_back(world, two.session).outcome == "done"
    steps.run(world.process())
    assert world.target_rows() == world.oracle(world.source_rows())


def test_what_is_expired_cannot_come_back(tmp_path: Path) -> None:
    world, (one, two) = loaded_twice(tmp_path, "overwrite")
    expire(world.target, [one.snapshot_id])
    with pytest.raises(RollbackRefused, match=f"before session {two.session}: the snapshot before it .* is expired"):
        rolled_back(world, two.session)
    # Cleared, its run would not find its publish and load only what changed.
    said = f"before session {one.session}: its snapshot, or one since, is expired.*instead: restate the ranges of the session"
    with pytest.raises(RollbackRefused, match=said):
        rolled_back(world, one.session)


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    """Some clean-ups delete files without expiring what lists them."""
    world, (one, two) = loaded_twice(tmp_path, "overwrite")
    for path in world.target.inspect.files(one.snapshot_id)["file_path"].to_pylist():
        world.target.io.delete(path)
    with pytest.raises(RollbackRefused, match="the files that it replaced to be there"):
        rolled_back(world, two.session)
    assert last_of(world) == two


def test_an_unknown_session_or_process_is_said(tmp_path: Path) -> None:
    world, (one, two) = loaded_twice(tmp_path, "append")
    with pytest.raises(
        RollbackRefused, match=f"the last ones are {two.session}, {one.session}.*session list {TARGET} proc"
    ):
        rolled_back(world, "yesterday")
    with pytest.raises(ArgumentError, match=r"no process 'other' has published.*'proc'"):
        undo(world.catalog, TARGET, "other", two.session, act=ACT)


def test_adopted_rows_stay_and_the_next_run_has_to_adopt_them_again(tmp_path: Path) -> None:
    world = World(home=tmp_path, policies={"initial": {"adopt": "all"}}).set_up()
    ForeignCommit().do(world)
    before = world.target_rows()
    world.land(0, 1)
    steps.run(world.process())
    done = rolled_back(world, last_of(world).session)
    assert "is refused unless 'initial' adopts them" in done.notes[0]
    assert world.target_rows() == before
    with pytest.raises(TargetNotEmpty):
        steps.run(attrs.evolve(world, policies={}).process())
    steps.run(world.process())
    assert world.target_rows() == before + world.oracle(world.source_rows())


def test_a_commit_that_comes_in_between_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are written again once, and what was decided is decided again on what is there now."""
    world, (_, two) = loaded_twice(tmp_path, "overwrite")
    built = rollback.build_record
    calls: list[int] = []

    def late(table: Any, **arguments: Any) -> Any:
        found = built(table, **arguments)
        calls.append(len(arguments["added"]))
        if len(calls) == 1:
            compact(world.target)
        elif len(calls) == 2:
            ForeignCommit().do(world)
        return found

    monkeypatch.setattr(rollback, "build_record", late)
    with pytest.raises(RollbackRefused, match="another writer"):
        rolled_back(world, two.session)
    assert len(calls) == 2


def test_a_session_that_opens_in_between_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, (_, two) = loaded_twice(tmp_path, "overwrite")
    built = rollback.build_record

    def late(table: Any, **arguments: Any) -> Any:
        found = built(table, **arguments)
        world.land(7)
        assert isinstance(plan(world.process("third")), Session)
        return found

    monkeypatch.setattr(rollback, "build_record", late)
    with pytest.raises(SessionBusy):
        rolled_back(world, two.session)
    assert last_of(world) == two
    monkeypatch.undo()
    steps.run(world.process("third"))
    world.check()


def test_pins_follow(tmp_path: Path) -> None:
    world, (one, two) = loaded_twice(tmp_path, "append")
    tag = naming.pin_tag(world.name, "events")
    world.source.manage_snapshots().create_tag(two.watermark.positions["events"].snapshot_id or 0, tag).commit()
    rolled_back(world, two.session)
    assert world.source.metadata.refs[tag].snapshot_id == one.watermark.positions["events"].snapshot_id


def test_a_source_position_that_is_expired_is_told_before(tmp_path: Path) -> None:
    world, (one, two) = loaded_twice(tmp_path, "append")
    position = one.watermark.positions["events"].snapshot_id
    assert position is not None
    expire(world.source, [position])
    seen = preview(world.catalog, TARGET, None, two.session)
    assert any(
        f"snapshot {position} of source 'events' ({SOURCE})" in note and "expired" in note for note in seen.notes
    )


def test_what_was_undone_is_no_measure_for_the_next_session(tmp_path: Path) -> None:
    world, (one, two) = loaded_twice(tmp_path, "append")
    rolled_back(world, two.session)
    assert [p.session for p in past_publishes(world.target, world.name)] == [one.session]


def test_who_and_why_is_kept_and_asked_for(tmp_path: Path) -> None:
    world, (_, two) = loaded_twice(tmp_path, "append")
    for words in ({"by": ""}, {"reason": "  "}, {"reason": "x" * 501}):
        with pytest.raises(ArgumentError, match=r"who did it, and why|at most 500"):
            attrs.evolve(ACT, **words)
    rolled_back(world, two.session)
    summary = last_of(world).summary
    assert [summary[key] for key in (naming.BY, naming.REASON, naming.UNDONE, naming.KIND)] == [
        "anna",
        "a bad delivery",
        two.session,
        "rollback",
    ]


def test_complete_through_falls_with_it(tmp_path: Path) -> None:
    world = world_of(tmp_path, "overwrite").set_up()
    for n in (1, 5):
        world.land(n)
        steps.run(world.process())
    assert last_of(world).watermark.complete_through == hour(5)
    rolled_back(world, last_of(world).session)
    assert last_of(world).watermark.complete_through == hour(1)


def test_an_undone_restatement_comes_only_if_it_is_asked_for_again(tmp_path: Path) -> None:
    """It moved no watermark, so no run finds that it is missing; who undoes it is told."""
    world, (_, two) = loaded_twice(tmp_path, "overwrite")
    request = RestateRequest(range=TimeRange(hour(0), hour(2)), cause="command", reason="other prices", by="anna")
    fixed = f"SELECT * REPLACE (total + 1 AS total) FROM ({world.process().transform})"
    before = world.target_rows()
    steps.run(world.process(restate=request, transform=fixed))
    restated = last_of(world)
    assert world.target_rows() != before
    done = rolled_back(world, restated.session)
    assert any(f"what was restated ({restated.session}) comes again only if" in note for note in done.notes)
    assert world.target_rows() == before
    assert last_of(world).watermark == two.watermark
    assert steps.run(world.process()).outcome == "nothing_to_do"


def test_a_late_word_of_a_rollback_does_not_take_the_log_back(tmp_path: Path) -> None:
    """What the log says of a process is by when it was committed, not by when it was told."""
    world, (_, two) = loaded_twice(tmp_path, "append")
    done = rolled_back(world, two.session)
    assert done.record is not None
    steps.run(world.process())
    entry, process = act_entries(done.record)
    assert process is not None
    assert entry.published_at == process.published_at == committed_at(done.record)
