"""Pins: tags on a source that keep what was consumed from being expired."""

from __future__ import annotations

import logging
from pathlib import Path

import attrs
import pytest

from airflow_incremental.core.errors import ArgumentError, WatermarkLost
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource
from airflow_incremental.iceberg import pins
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from tests.support.world import SOURCE, World

TAG = "inc_pin_proc_events"


@attrs.define
class Pinned(World):
    pin: bool = True

    @property
    def spec(self) -> ProcessSpec:
        declared: ProcessSpec = World.spec.fget(self)  # type: ignore[attr-defined]
        return attrs.evolve(declared, sources={"events": IcebergSource(SOURCE, event_time="ts", pin=self.pin)})


def expire_all(world: World) -> None:
    """Expire every snapshot of the source that no ref holds."""
    table = world.source
    held = {ref.snapshot_id for ref in table.metadata.refs.values()}
    table.maintenance.expire_snapshots().by_ids(
        [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id not in held]
    ).commit()


def consumed(world: World) -> int | None:
    last = published(world.target, "proc")
    assert last is not None
    return last.watermark.positions["events"].snapshot_id


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_what_was_consumed_survives_expiry(tmp_path: Path, mode: str) -> None:
    world = Pinned(home=tmp_path, mode=mode).set_up()
    for hours in ((0, 1), (0.5, 2), (1.5, 3)):
        world.land(*hours)
        world.land(hours[0] + 0.1)
        steps.run(world.process())
        assert world.source.metadata.refs[TAG].snapshot_id == consumed(world)
        world.land(hours[0] + 0.2)
        world.land(hours[0] + 0.3)
        expire_all(world)
        steps.run(world.process())
        world.check()


def test_without_a_pin_it_is_lost(tmp_path: Path) -> None:
    world = Pinned(home=tmp_path, pin=False).set_up()
    world.land(0)
    steps.run(world.process())
    for h in (1, 2):
        world.land(h)
    expire_all(world)
    with pytest.raises(WatermarkLost):
        steps.run(world.process())


def test_a_pin_that_cannot_be_moved_is_moved_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = Pinned(home=tmp_path).set_up()
    world.land(0)
    steps.run(world.process())
    world.land(1)

    def refuse(*_: object, **__: object) -> None:
        msg = "no write access"
        raise PermissionError(msg)

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(pins, "commit", refuse)
        assert steps.run(world.process()).did_publish
    assert "the pin on source 'events' (raw.events) stays where it is: no write access" in caplog.text
    assert world.source.metadata.refs[TAG].snapshot_id != consumed(world)
    assert steps.run(world.process()).outcome == "nothing_to_do"
    assert world.source.metadata.refs[TAG].snapshot_id == consumed(world)


def test_a_lookup_has_none() -> None:
    with pytest.raises(ArgumentError, match=r"the lookup 'raw\.x' is to be pinned"):
        IcebergSource("raw.x", role="lookup", pin=True)
