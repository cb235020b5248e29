"""Several drivers of one append process: a union, each source's new rows once."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from airflow_incremental.core.errors import WatermarkLost
from airflow_incremental.core.tables import IcebergSource
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from tests.support.balances import shown
from tests.support.tables import compact
from tests.support.union import OTHER, UNION, Union
from tests.support.world import SOURCE, World, hour


def tick(world: Union) -> steps.Finished:
    finished = steps.run(world.process())
    world.check()
    return finished


@pytest.fixture
def world(tmp_path: Path) -> Union:
    world = Union(home=tmp_path)
    world.set_up()
    return world


def test_one_of_them_may_be_empty_or_quiet(world: Union) -> None:
    world.land(0, 1)
    assert tick(world).did_publish
    last = published(world.target, "proc")
    assert last is not None
    assert last.watermark.complete_through is None, "the other one does not say yet"
    world.land(4.5)
    finished = tick(world)
    assert finished.plan is not None
    assert {s.name: s.rows_added for s in finished.plan.sources} == {"events": 0, "others": 1}
    world.land(2.5)
    tick(world)
    last = published(world.target, "proc")
    assert last is not None
    assert last.watermark.complete_through == hour(2), "the least of both"
    assert steps.run(world.process()).outcome == "nothing_to_do"


def test_what_was_rewritten_in_one_is_computed_from_both(world: Union) -> None:
    """The other one's rows of those hours come whole, and the ones that were added there not a second time."""
    world.policies = {"on_rewrite": "overwrite"}
    with world.on(SOURCE):
        world.land(1, 3)
        world.land(5)
    with world.on(OTHER):
        world.land(1.5, 5.5)
    tick(world)
    with world.on(SOURCE):
        world.source.delete("id = 3")
    with world.on(OTHER):
        world.land(5.75, 7)
    finished = tick(world)
    assert finished.plan is not None
    assert shown(finished.plan.replaced) == ["5-6"]


def test_compaction_of_either_is_no_change(world: Union) -> None:
    world.land(1)
    world.land(2)
    tick(world)
    for table in (SOURCE, OTHER):
        with world.on(table):
            compact(world.source)
    assert steps.run(world.process()).outcome == "nothing_to_do"


def test_a_cleared_run_computes_its_hours_from_both(world: Union) -> None:
    world.land(1, 2)
    world.land(2.5, 4)
    steps.run(world.process("run", transform=UNION.replace("v * 10", "v * 11")))
    finished = steps.run(world.process("run", clear_number=1))
    assert finished.plan is not None
    assert finished.plan.kind == "restatement"
    world.check()


def test_a_driver_that_is_added_is_not_taken_for_a_renamed_one(world: Union) -> None:
    world.land(1)
    world.land(2)
    spec = attrs.evolve(world.spec, sources={"events": IcebergSource(SOURCE, event_time="ts")})
    steps.run(World.process(world, spec=spec))
    with pytest.raises(WatermarkLost, match=r"knows the sources events, not 'others'.*A driver that is added gets"):
        steps.run(world.process())
    world.policies = {"on_lost_watermark": "reload"}
    tick(world)
