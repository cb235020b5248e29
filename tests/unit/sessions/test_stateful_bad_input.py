"""What a stateful load says to bad input: what was found, what was expected, what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.core.errors import ArgumentError, NullEventTime, TableError, TransformError
from airflow_incremental.core.tables import IcebergSource
from airflow_incremental.sessions import steps
from tests.support.balances import BALANCES, Balances
from tests.support.world import SOURCE, World, hour


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": "latest"}, "state is 'latest'"),
        ({"state": "latest_by()"}, r"state is 'latest_by\(\)'"),
        ({"mode": "overwrite"}, "has mode='overwrite' and state='latest_by"),
        ({"mode": "overwrite", "state": None, "step": "hour"}, "has mode='overwrite' and step='hour'"),
        ({"step": "minute"}, "step is 'minute'"),
        ({"on_null_event_time": "own_range"}, "has mode='stateful' and on_null_event_time='own_range'"),
        ({"initial": {"adopt": "all"}}, "adopts a filled target"),
        ({"sources": {"state": IcebergSource(SOURCE, event_time="ts")}}, "is named 'state'"),
        ({"sources": {"x": IcebergSource(SOURCE, role="lookup")}}, "has only lookups"),
        ({"sources": {"x": IcebergSource(SOURCE)}}, "has no event_time, which mode='stateful' needs"),
    ],
)
def test_declarations(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        attrs.evolve(Balances(home=tmp_path).spec, **changes)


def test_a_driver_without_a_rule(tmp_path: Path) -> None:
    world = Balances(home=tmp_path, through=None).set_up()
    world.land(0, 1)
    with pytest.raises(
        ArgumentError, match=r"driver 'events' \(raw.events\) .* does not say how far it is complete"
    ) as found:
        world.tick()
    assert "CompleteThrough.latest_event" in found.value.hint


def test_a_target_without_event_time_partitioning(tmp_path: Path) -> None:
    world = Balances(home=tmp_path)
    World.set_up(world)
    with world.target.update_spec() as update:
        update.remove_field("ts_hour")
    world.land(0, 1)
    with pytest.raises(TableError, match="is not partitioned by its event time 'ts'"):
        world.tick()


def test_a_step_that_does_not_divide_the_partitioning(tmp_path: Path) -> None:
    world = Balances(home=tmp_path, step="day").set_up()
    world.land(0, 1)
    with pytest.raises(ArgumentError, match=r"computes in steps of a day, and mart\.result is partitioned by hour"):
        world.tick()


def test_rows_outside_the_range(tmp_path: Path) -> None:
    world = Balances(home=tmp_path).set_up()
    world.land(0, 1)
    with pytest.raises(TransformError, match="outside the planned ranges"):
        steps.run(world.process(transform=BALANCES.replace("SELECT e.ts,", "SELECT e.ts + INTERVAL 1 HOUR AS ts,")))


def test_rows_of_another_step_of_the_range(tmp_path: Path) -> None:
    world = Balances(home=tmp_path, step="hour").set_up()
    world.land(0, 1, 2)
    with pytest.raises(TransformError, match="outside the planned ranges") as found:
        steps.run(world.process(transform=BALANCES.replace("SELECT e.ts,", f"SELECT TIMESTAMPTZ '{hour(1)}' AS ts,")))
    assert "2024-01-01T00:00:00Z/2024-01-01T01:00:00Z" in str(found.value), "the step that was computed"
    assert world.target_rows() == {}


def test_keys_the_target_does_not_have(tmp_path: Path) -> None:
    world = Balances(home=tmp_path, state="latest_by(client)").set_up()
    world.land(0, 1)
    with pytest.raises(TableError, match="has no column 'client'"):
        world.tick()


def test_rows_without_event_time(tmp_path: Path) -> None:
    world = Balances(home=tmp_path).set_up()
    world.land(0, None, 1)
    with pytest.raises(NullEventTime):
        world.tick()


def test_starting_from_now_without_completeness(tmp_path: Path) -> None:
    world = Balances(home=tmp_path, initial="current", through={"rule": "property", "name": "x"}).set_up()
    world.land(0)
    with pytest.raises(ArgumentError, match="starts from now, but not all of its drivers"):
        world.tick()
