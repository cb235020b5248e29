"""Watermarks that are taken away, or set back, at any point of a history: refused until somebody decides, and right after that.

No row changes by either. After a reset a run into a filled target is refused, and leaves everything as it is; then its rows are
adopted up to where they stand for the source, or are deleted, or the reset is undone, and the runs after that go on as ever.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyiceberg.expressions import AlwaysTrue, NotEqualTo
from pyiceberg.table.snapshots import Snapshot

from airflow_incremental.core.errors import ArgumentError, RollbackRefused, TargetNotEmpty, WatermarkLost
from airflow_incremental.core.ranges import Grain
from airflow_incremental.iceberg.by_hand import newest_record
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.state import is_reset, published, records
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.watermarks import reset_watermark, set_watermark
from tests.property.histories import (
    Compact,
    CompactTarget,
    Delete,
    ForeignCommit,
    Land,
    RollBack,
    Run,
    histories,
    rewrites,
    rollbacks,
)
from tests.property.test_sessions import ADOPT, foreign, own, reload
from tests.support.by_hand import ACT, rolled_back
from tests.support.modes import world_of
from tests.support.world import TARGET, World

slow = settings(
    max_examples=settings().max_examples * 3 // 20, suppress_health_check=[HealthCheck.too_slow], deadline=None
)
Way = Literal["adopt", "empty", "undo"]


@attrs.frozen
class Reset:
    """The watermark is taken away, twice."""

    def do(self, world: World) -> None:
        before = head_and_rows(world)
        stands = standing(world)
        if stands is None:
            with pytest.raises(ArgumentError, match="has published"):
                reset_watermark(world.catalog, TARGET, world.name, act=ACT)
            return
        seen, done = (reset_watermark(world.catalog, TARGET, world.name, act=ACT, dry_run=dry) for dry in (True, False))
        assert (done.outcome, seen.outcome) == (("done", "planned") if stands else ("unchanged", "unchanged"))
        assert seen.notes == done.notes
        assert any("is refused" in note for note in done.notes) == bool(before[1])
        assert head_and_rows(world)[1] == before[1], "no row changes"
        again = head_and_rows(world)
        assert reset_watermark(world.catalog, TARGET, world.name, act=ACT).outcome == "unchanged"
        assert head_and_rows(world) == again
        with pytest.raises(ArgumentError, match="has no watermark on"):
            set_watermark(world.catalog, TARGET, world.name, {"events": "current"}, act=ACT)


@attrs.frozen
class SetBack:
    """The watermark of a process that replaces rows is set back to an earlier snapshot of the source."""

    snapshots: int

    def do(self, world: World) -> None:
        if world.mode == "append" or not standing(world):
            return
        lineage = list(main_lineage(world.source))
        to = str(lineage[min(self.snapshots, len(lineage) - 1)].snapshot_id) if lineage else "start"
        rows = world.target_rows()
        at = published(world.target, world.name)
        assert at is not None
        consumed = at.watermark.positions["events"].snapshot_id
        if consumed in [s.snapshot_id for s in lineage][: self.snapshots + 1]:
            set_watermark(world.catalog, TARGET, world.name, {"events": to}, act=ACT)
        assert world.target_rows() == rows


@attrs.frozen
class UndoReset:
    """The reset is undone while nobody has decided yet."""

    def do(self, world: World) -> None:
        undo_reset(world)


def head_and_rows(world: World) -> tuple[Any, Any]:
    refs = world.target.metadata.refs
    return {name: ref.snapshot_id for name, ref in refs.items()}, world.target_rows()


def standing(world: World) -> bool | None:
    """Say whether the process has a watermark, be it a lost one; None if it never published."""
    try:
        if published(world.target, world.name) is not None:
            return True
    except WatermarkLost:
        return True
    found = newest_record(world.target, world.name)
    return None if found is None else not is_reset(found.snapshot)


def undo_reset(world: World) -> bool:
    found = next((r for r in records(main_lineage(world.target), world.name) if r.undone_by is None), None)
    if found is None or not is_reset(found.snapshot):
        return False
    rows = world.target_rows()
    try:
        rolled_back(world, found.session)
    except RollbackRefused:
        return False
    assert world.target_rows() == rows
    return True


def positions(world: World) -> Iterator[Snapshot]:
    """Yield the snapshots of the source up to which the target's rows stand for it."""
    for snapshot in main_lineage(world.source):
        if own(world) == world.oracle(world.source_rows(snapshot.snapshot_id)):
            yield snapshot


def decide(world: World, way: Way) -> None:
    """Do what the refusal says, and run."""
    policies, others = world.policies, foreign(world)
    at = next(positions(world), None)
    # Where the watermark was lost before it was taken away, there is none again.
    if way == "undo" and undo_reset(world) and standing(world):
        steps.run(world.process())
    elif way == "adopt" and at is not None:
        world.policies = {**policies, "initial": {"adopt": at.snapshot_id}}
        steps.run(world.process())
    else:
        names = world.target_schema.names
        world.target.delete(NotEqualTo("region", "zz") if "region" in names else AlwaysTrue())
        world.policies = {**policies, **ADOPT}
        steps.run(world.process())
    world.policies = policies
    assert foreign(world) == others


def play(world: World, actions: list[Any], ways: list[Way]) -> None:
    turns = iter(ways * len(actions))
    for action in actions:
        if not isinstance(action, Run):
            action.do(world)
            continue
        others = foreign(world)
        stands = standing(world)
        before = head_and_rows(world)
        try:
            steps.run(world.process())
            assert stands or not before[1], "a filled target is refused"
        except TargetNotEmpty:
            assert not stands
            assert before[1]
            assert head_and_rows(world) == before
            decide(world, next(turns))
        except WatermarkLost:
            assert stands
            reload(world)
            continue
        check(world)
        assert foreign(world) == others, "rows of other writers stay"
        last = published(world.target, world.name)
        if last is None:
            assert not world.source_rows(), "where nothing ever came, nobody has decided for good"
            continue
        assert steps.run(world.process()).outcome == "nothing_to_do"
        assert published(world.target, world.name) == last


def check(world: World) -> None:
    rows = world.source_rows()
    assert own(world) == world.oracle(rows)
    last = published(world.target, world.name)
    if last is not None and rows:
        through = last.watermark.complete_through
        assert through is not None
        assert through >= Grain.HOUR.floor(max(ts for _, ts, _, _ in rows if ts is not None))
    assert [r for r in world.target.metadata.refs if r not in ("main", f"inc_wm_{world.name}")] == []


acts = st.one_of(st.just(Reset()), st.just(Reset()), st.builds(SetBack, st.integers(0, 4)), st.just(UndoReset()))
ways = st.lists(st.sampled_from(["adopt", "empty", "undo"]), min_size=1, max_size=3)
#: Each way out of a reset, with and without changes since.
all_ways: list[Any] = [
    *(Land((1, 2)), Land((5,), "us"), Run(), Reset(), Run(), Reset(), Land((0, 7)), Run()),
    *(Compact(), Reset(), Land((3,)), CompactTarget(), Run(), Reset(), UndoReset(), Land((4,)), Run()),
    *(SetBack(1), Run(), Reset(), Land((2,), "us"), Delete(3), Run(), Reset(), ForeignCommit(), Run(), Run()),
]
#: What the reset takes away was lost already.
lost: list[Any] = [Land((0,)), ForeignCommit(), Run(), RollBack(1), Reset(), Run()]


@slow
@pytest.mark.parametrize("mode", ["append", "overwrite", "merge"])
@given(histories(acts, acts, rewrites, rollbacks), ways)
@example(all_ways, ["adopt", "empty", "undo"])
@example(all_ways, ["undo", "adopt"])
@example(all_ways, ["adopt"])
@example(lost, ["adopt", "undo"])
def test_nothing_is_lost_or_doubled(mode: str, actions: list[Any], ways: list[Way]) -> None:
    with tempfile.TemporaryDirectory() as home:
        policies = {"on_rewrite": "overwrite"} if mode == "append" else {}
        play(world_of(Path(home), mode, policies=policies).set_up(), actions, ways)
