"""Maintenance after what people do to a process: a rollback, a watermark set back or taken away are kept like publishes."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from airflow_incremental.core.errors import TargetNotEmpty
from airflow_incremental.iceberg.state import process_claim, published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.watermarks import reset_watermark
from tests.support.by_hand import ACT, last_of, loaded_twice, rolled_back, set_back
from tests.support.maintaining import KEEN, maintained
from tests.support.modes import MODES
from tests.support.world import TARGET, World


def verify(world: World) -> None:
    """Assert that the next run is right."""
    world.land(2.6, 5.5)
    assert steps.run(world.process()).did_publish
    world.check()


@pytest.mark.parametrize("mode", [mode for mode in MODES if not mode.startswith("stateful")])
def test_after_a_rollback(tmp_path: Path, mode: str) -> None:
    world, (one, two) = loaded_twice(tmp_path, mode)
    rolled_back(world, two.session)
    assert last_of(world).watermark == one.watermark
    maintained(world.catalog, TARGET, KEEN)
    assert last_of(world).watermark == one.watermark
    verify(world)


@pytest.mark.parametrize("mode", ["overwrite", "merge"])
def test_after_a_watermark_was_set_back(tmp_path: Path, mode: str) -> None:
    world, (one, _) = loaded_twice(tmp_path, mode)
    set_back(world, str(one.watermark.positions["events"].snapshot_id))
    maintained(world.catalog, TARGET, KEEN)
    at = one.watermark.positions["events"].snapshot_id
    assert last_of(world).watermark.positions["events"].snapshot_id == at
    verify(world)


@pytest.mark.parametrize("again", [False, True], ids=["once", "with later commits"])
def test_after_a_reset_there_is_no_watermark(tmp_path: Path, *, again: bool) -> None:
    world, _ = loaded_twice(tmp_path, "overwrite")
    reset_watermark(world.catalog, TARGET, world.name, act=ACT)
    if again:
        world.target.append(world.target.scan().to_arrow().slice(0, 0))
    maintained(world.catalog, TARGET, KEEN)
    maintained(world.catalog, TARGET, attrs.evolve(KEEN, parts=("refs", "expire")))
    assert published(world.target, world.name) is None
    assert (process_claim(world.target, world.name) or {}).get("watermark", "none") is None
    with pytest.raises(TargetNotEmpty):
        steps.run(world.process())
