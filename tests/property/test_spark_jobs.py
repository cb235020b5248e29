"""Random histories of every mode, whose loads are jobs: what a job says is enough to compute what the plan asks for.

The jobs run in a double of a Spark application, which knows nothing but the job; tests/spark plays such histories on a real Spark.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_incremental.sessions import steps
from tests.property.histories import (
    AddColumn,
    Compact,
    Delete,
    Land,
    Run,
    Update,
    hides,
    histories,
    rewrites,
    rollbacks,
)
from tests.property.test_merges import SHAPES, world_of
from tests.property.test_sessions import ADOPT, play
from tests.support.balances import Balances
from tests.support.job_runner import LocalRunner
from tests.support.world import World

slow = settings(max_examples=settings().max_examples // 20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
SOURCES = st.sampled_from([(), (("day", "ts"),), (("hour", "ts"),)])
#: Rows that change between runs, some of them of before.
changing: list[Any] = [
    Land((1, 2, 5)),
    Run(),
    Land((3, 1)),
    Delete(0),
    AddColumn(),
    Update(1, 7),
    Compact(),
    Land((6,)),
]


def elsewhere(world: World) -> World:
    """Let a world's transforms run as jobs."""
    world.runner = lambda text: LocalRunner(connect=lambda: world.catalog, text=text)
    return world


@slow
@given(histories(rollbacks), SOURCES, st.sampled_from(["1", "2"]))
@example([Land((1, 2)), Run(), Land((1,)), Land((4,)), Compact(), Land((2,)), AddColumn(), Run()], (), "2")
def test_append(actions: list[Any], source_fields: tuple[tuple[str, str], ...], version: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode="append", source_fields=source_fields, policies=ADOPT)
        elsewhere(world).set_up_with(source_version=version)
        play(world, actions)


@slow
@given(histories(rewrites, hides, rollbacks))
@example([*changing, Run()])
def test_append_that_recomputes_rewritten_ranges(actions: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode="append", policies={**ADOPT, "on_rewrite": "overwrite"})
        elsewhere(world).set_up_with(source_version="2")
        play(world, actions)


@slow
@given(histories(rewrites, hides, rollbacks), SOURCES, st.sampled_from(["hour", "day"]))
@example([*changing, Run()], (("day", "ts"),), "day")
def test_overwrite(actions: list[Any], source_fields: tuple[tuple[str, str], ...], unit: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(
            home=Path(home),
            mode="overwrite",
            source_fields=source_fields,
            target_fields=((unit, "hour_ts"),),
            policies=ADOPT,
        )
        elsewhere(world).set_up_with(source_version="2")
        play(world, actions)


@slow
@given(histories(rewrites, hides, rollbacks), SHAPES, st.sampled_from(["1", "2"]))
@example([*changing, Run()], (("region",), (), ()), "2")
def test_merge(actions: list[Any], shape: tuple[Any, Any, Any], version: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = world_of(home, shape)
        elsewhere(world).set_up_with(source_version=version)
        play(world, [a for a in actions if version == "2" or type(a).__name__ != "Hide"])


@slow
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=5),
    st.sampled_from([None, "hour"]),
)
def test_stateful(ticks: list[list[int]], step: Any) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = Balances(home=Path(home), step=step)
        elsewhere(world).set_up()
        for hours in ticks:
            # No two events at one moment: state keeps the latest row of a customer.
            world.land(*(h + (world.next_id + n) / 100 for n, h in enumerate(hours)))
            steps.run(world.process())
            world.verify()
