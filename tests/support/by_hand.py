"""What a person does to a world's process: roll back, set, reset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_incremental.core.by_hand import Act
from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.undoing import Rollback, undo
from airflow_incremental.sessions.watermarks import Changed, set_watermark
from tests.support.modes import world_of
from tests.support.world import TARGET, World

ACT = Act(by="anna", reason="a bad delivery")


def last_of(world: World) -> Published:
    """Return the last publish of a world's process."""
    found = published(world.target, world.name)
    assert found is not None
    return found


def rolled_back(world: World, session: str) -> Rollback:
    """Take the world's target back to before a session."""
    return undo(world.catalog, TARGET, world.name, session, act=ACT)


def set_back(world: World, position: str, **more: Any) -> Changed:
    """Set the watermark of the world's process."""
    return set_watermark(world.catalog, TARGET, world.name, {"events": position}, act=ACT, **more)


def loaded_twice(home: Path, mode: str, **options: Any) -> tuple[World, list[Published]]:
    """Return a world with two published sessions, the second with late rows, and those publishes."""
    world = world_of(home, mode, **options).set_up()
    world.land(0.1, 0.2, 1.5, 2.5)
    world.land(0.3, 1.1, region="us")
    steps.run(world.process("first"))
    one = last_of(world)
    world.land(1.7, 3.2, 4.1)
    world.land(3.3, 0.4, region="us")
    steps.run(world.process("second"))
    world.check()
    return world, [one, last_of(world)]
