"""Whole sessions over random histories: after every run the target equals the oracle, row for row, and the watermark is right."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_incremental.core.errors import NullEventTime, SourceRewritten, WatermarkLost
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.state import is_publish_of, published
from airflow_incremental.sessions import steps
from tests.property.histories import (
    Expire,
    Run,
    histories,
    repartition,
    rewrites,
    rollbacks,
)
from tests.support.world import World

#: Somebody else's rows may be in the target before the first run.
ADOPT = {"initial": {"adopt": "all"}}
#: A history of whole sessions costs about a second, so each test here plays a part of the profile's number; together hundreds.
slow = settings(
    max_examples=settings().max_examples * 2 // 5, suppress_health_check=[HealthCheck.too_slow], deadline=None
)


def own(world: World) -> Counter[tuple[Any, ...]]:
    return Counter({row: n for row, n in world.target_rows().items() if "zz" not in row})


def foreign(world: World) -> int:
    return sum(n for row, n in world.target_rows().items() if "zz" in row)


def reload(world: World) -> None:
    """Decide for a reload, for one run: it replaces everything."""
    policies = world.policies
    world.policies = {**policies, "on_lost_watermark": "reload"}
    steps.run(world.process())
    world.policies = policies
    assert world.target_rows() == world.oracle(world.source_rows())


def play(world: World, actions: list[Any]) -> None:
    """Play a history and compare with the oracle after every run."""
    for action in actions:
        if not isinstance(action, Run):
            action.do(world)
            continue
        others = foreign(world)
        try:
            steps.run(world.process())
        except WatermarkLost:
            # Rolled back to before the first publish: not a first run, but a lost watermark that somebody has to decide about.
            assert not any(is_publish_of(s, world.name) for s in main_lineage(world.target))
            reload(world)
            continue
        assert own(world) == world.oracle(world.source_rows())
        assert foreign(world) == others, "rows of other writers stay"
        head = world.source.metadata.current_snapshot_id
        last = published(world.target, world.name)
        if last is not None:
            consumed = last.watermark.positions["events"].snapshot_id
            assert world.oracle(world.source_rows(consumed)) == world.oracle(world.source_rows(head)), (
                "the watermark says what is loaded"
            )
        assert [r for r in world.target.metadata.refs if r not in ("main", f"inc_wm_{world.name}")] == []


@slow
@given(histories(rollbacks), st.sampled_from([(), (("day", "ts"),), (("hour", "ts"),)]), st.sampled_from(["1", "2"]))
def test_append(actions: list[Any], source_fields: tuple[tuple[str, str], ...], version: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode="append", source_fields=source_fields, policies=ADOPT)
        world.set_up_with(source_version=version)
        play(world, actions)


@slow
@given(
    histories(rewrites, rollbacks, repartition),
    st.sampled_from([(), (("day", "ts"),), (("hour", "ts"),)]),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["hour", "day"]),
)
def test_overwrite(actions: list[Any], source_fields: tuple[tuple[str, str], ...], version: str, unit: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(
            home=Path(home),
            mode="overwrite",
            source_fields=source_fields,
            target_fields=((unit, "hour_ts"),),
            policies=ADOPT,
        )
        world.set_up_with(source_version=version)
        play(world, actions)


@slow
@given(histories(rewrites, rollbacks))
def test_append_that_recomputes_rewritten_ranges(actions: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode="append", policies={**ADOPT, "on_rewrite": "overwrite"})
        world.set_up_with(source_version="2")
        play(world, actions)


@slow
@given(histories(rewrites, rollbacks, st.builds(Expire, st.integers(0, 2))))
def test_expiry_of_the_source_never_loses_a_row_silently(actions: list[Any]) -> None:
    """With source snapshots expired at random, a run ends right or says that the watermark is lost; then a reload is right."""
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode="overwrite", policies=ADOPT)
        world.set_up_with(source_version="2")
        for action in actions:
            if not isinstance(action, Run):
                action.do(world)
                continue
            try:
                steps.run(world.process())
            except WatermarkLost:
                reload(world)
            assert own(world) == world.oracle(world.source_rows())


@slow
@given(histories(rewrites, max_size=8))
def test_append_refuses_rewrites_and_loses_nothing(actions: list[Any]) -> None:
    """Default policy: a run either loads exactly the new rows or refuses before it writes anything."""
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode="append", policies=ADOPT)
        world.set_up_with(source_version="2")
        for action in actions:
            if not isinstance(action, Run):
                action.do(world)
                continue
            before = own(world)
            try:
                steps.run(world.process())
            except SourceRewritten:
                assert own(world) == before
                return
            assert own(world) == world.oracle(world.source_rows())


# Each plays two worlds, of few shapes.
@settings(slow, max_examples=settings().max_examples * 3 // 20)
@pytest.mark.parametrize("mode", ["append", "overwrite"])
@given(st.lists(st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=3), min_size=1, max_size=4))
def test_null_event_times(mode: str, ticks: list[list[int | None]]) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode=mode, policies={"on_null_event_time": "own_range"})
        world.set_up_with(source_version="2")
        for tick in ticks:
            world.land(*tick)
            steps.run(world.process())
            world.check()
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode=mode)
        world.set_up_with(source_version="2")
        for tick in ticks:
            before = world.target_rows()
            world.land(*tick)
            if None in tick:
                with pytest.raises(NullEventTime):
                    steps.run(world.process())
                assert world.target_rows() == before
                return
            steps.run(world.process())
            world.check()
