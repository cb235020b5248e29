"""Restatements on request anywhere in random histories: no row is lost or doubled by them, and the watermark stays."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_incremental.core.errors import ArgumentError, WatermarkLost
from airflow_incremental.core.requests import RestateRequest
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from tests.property.histories import (
    Compact,
    CompactTarget,
    Land,
    Run,
    histories,
    land,
    repartition,
    rewrites,
    rollbacks,
)
from tests.property.test_sessions import ADOPT, play, slow
from tests.support.balances import Balances, Sums
from tests.support.totals import Totals
from tests.support.world import World, hour

pytestmark = pytest.mark.filterwarnings("ignore:Delete operation did not match any records")


@attrs.frozen
class Restate:
    """Somebody restates some hours."""

    start: int
    hours: int

    def do(self, world: World) -> None:
        request = RestateRequest.read(hour(self.start), hour(self.start + self.hours), cause="form")
        try:
            before = published(world.target, world.name)
            steps.run(world.process(restate=request))
        except (ArgumentError, WatermarkLost):
            return  # nothing was loaded yet, nothing is there, or a rollback is to be decided about first
        after = published(world.target, world.name)
        assert before is not None
        assert after is not None
        assert after.watermark == before.watermark
        if isinstance(world, Balances):
            return
        # What was loaded before is as it was, or newer where it was asked for.
        asked = {row for row in world.target_rows() if "zz" not in row}
        known = world.oracle(world.source_rows())
        consumed = after.watermark.positions["events"].snapshot_id
        assert asked <= {*known, *world.oracle(world.source_rows(consumed))}


#: What has to happen in every profile: rows come into a range, and it is restated before they are loaded.
MEANWHILE = [Land((1, 2, 5)), Run(), Land((1, 3)), Restate(0, 4), Run(), Land((2,)), Restate(2, 1), Run()]
restates = st.builds(Restate, st.integers(0, 12), st.integers(1, 6))
many = settings(slow, max_examples=max(settings().max_examples // 10, 3))


@many
@given(histories(rollbacks, restates, restates), st.sampled_from([(), (("day", "ts"),)]))
@example(MEANWHILE, ())
def test_append(actions: list[Any], source_fields: tuple[tuple[str, str], ...]) -> None:
    with tempfile.TemporaryDirectory() as home:
        play(World(home=Path(home), source_fields=source_fields, policies=ADOPT).set_up(), actions)


@many
@given(histories(rewrites, rollbacks, restates, restates))
@example(MEANWHILE)
def test_append_that_recomputes_rewritten_ranges(actions: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        play(World(home=Path(home), policies={**ADOPT, "on_rewrite": "overwrite"}).set_up(), actions)


@many
@given(histories(rewrites, rollbacks, repartition, restates, restates), st.sampled_from(["hour", "day"]))
@example(MEANWHILE, "hour")
def test_overwrite(actions: list[Any], unit: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        play(
            World(home=Path(home), mode="overwrite", target_fields=((unit, "hour_ts"),), policies=ADOPT).set_up(),
            actions,
        )


@many
@given(histories(rewrites, rollbacks, restates, restates))
@example(MEANWHILE)
def test_merge(actions: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        play(Totals(home=Path(home), policies=ADOPT).set_up(), actions)


@many
@given(
    st.lists(
        st.one_of(land, land, rewrites, restates, st.sampled_from([Compact(), CompactTarget(), Run(), Run()])),
        min_size=3,
        max_size=12,
    ),
    st.sampled_from([None, "hour"]),
    st.booleans(),
)
@example(MEANWHILE, None, False)  # noqa: FBT003
@example(MEANWHILE, "hour", True)  # noqa: FBT003
def test_stateful(actions: list[Any], step: str | None, missed: bool) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = Sums(home=Path(home), step=step) if missed else Balances(home=Path(home), step=step)
        world.set_up()
        for action in [*actions, Run()]:
            if isinstance(action, Run):
                world.tick()
                world.verify()
            else:
                action.do(world)
