"""Thresholds over random histories: what is not kept as skipped is right after every run, and without a threshold everything is."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_incremental.core.ranges import EventRanges, Grain
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from tests.support.balances import Balances, Sums
from tests.support.world import World, hour

slow = settings(max_examples=settings().max_examples // 12, suppress_health_check=[HealthCheck.too_slow], deadline=None)
#: What came, an hour that is emptied, and the thresholds of the run that follows.
_ticks = st.lists(
    st.tuples(
        st.lists(st.integers(0, 20), max_size=4),
        st.none() | st.integers(0, 20),
        st.fixed_dictionaries(
            {}, optional={"max_lookback": st.sampled_from([0, 3600, 4 * 3600]), "budget": st.integers(1, 4)}
        ),
    ),
    min_size=2,
    max_size=6,
)
Rows = Counter[tuple[Any, ...]]


def world_of(kind: str, home: Path) -> World:
    """A world whose process replaces hours: ones that stand for themselves, or ones that depend on what came before."""
    worlds = {
        "overwrite": World(home=home, mode="overwrite"),
        "missed": Sums(home=home),
        "in order": Balances(home=home),
    }
    return worlds[kind].set_up()


def run(world: World, limits: dict[str, Any]) -> bool:
    """Run under thresholds, check all that has to be right then, and say whether rows were published."""
    always = world.policies
    world.policies = {**always, **limits, "on_skipped": "keep"}
    finished = steps.run(world.process())
    world.policies = always
    if finished.plan is not None and "budget" in limits:
        assert finished.plan.replaced.count(Grain.HOUR) <= limits["budget"]
    last = published(world.target, "proc")
    if last is not None:
        expected = world.oracle(world.source_rows())
        whole = isinstance(world, Balances) and not isinstance(world, Sums)
        skipped = last.watermark.skipped
        assert right(world.target_rows(), skipped, whole=whole) == right(expected, skipped, whole=whole)
    return finished.did_publish


def right(rows: Rows, skipped: EventRanges, *, whole: bool) -> Rows:
    """Return the rows outside what is skipped; where all depends on what came before, those before it."""
    span = skipped.span()
    if whole:
        return Counter({row: n for row, n in rows.items() if span is None or row[0] < span.start})
    return Counter({row: n for row, n in rows.items() if not skipped.contains(row[0])})


@slow
@pytest.mark.parametrize("kind", ["overwrite", "missed", "in order"])
@given(ticks=_ticks)
def test_nothing_is_lost(kind: str, ticks: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = world_of(kind, Path(home))
        for hours, emptied, limits in ticks:
            if hours:
                world.land(*(h + 0.5 for h in hours))
            if emptied is not None and world.source.current_snapshot() is not None:
                world.source.delete(f"ts >= '{hour(emptied).isoformat()}' and ts < '{hour(emptied + 1).isoformat()}'")
            run(world, limits)
        # A budget drains by itself, in at most so many runs.
        for _ in range(8):
            if not run(world, {"budget": 3}):
                break
        last = published(world.target, "proc")
        assert last is None or not last.watermark.skipped
        assert not run(world, {}), "nothing is left to do when there is no threshold"
