"""A watermark on a target whose history was cut by expiry: proven from earlier metadata, or lost; never guessed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from airflow_incremental.core.errors import WatermarkLost
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from tests.property.histories import FOREIGN_HOUR
from tests.support.tables import compact, expire, expire_dangling, roll_back
from tests.support.world import World, hour


def prepared(home: Path) -> World:
    world = World(home=home).set_up()
    world.land(0, 1)
    steps.run(world.process())
    world.land(2)
    steps.run(world.process())
    return world


def foreign_commit(world: World) -> None:
    row = {"id": -1, "ts": hour(FOREIGN_HOUR), "region": "zz", "v10": 0}
    world.target.append(pa.Table.from_pylist([row], schema=world.target_schema))


def expire_all_but(world: World, *keep: int) -> None:
    """Expire what may be: heads and tags stay."""
    table = world.target
    kept = {*keep, *(ref.snapshot_id for ref in table.metadata.refs.values())}
    expire(table, [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id not in kept])


def cut(world: World) -> None:
    """Compact the target, let others commit to it, and expire everything in between."""
    compact(world.target)
    foreign_commit(world)
    expire_all_but(world)


def test_a_compacted_target_whose_history_was_cut_still_has_its_watermark(tmp_path: Path) -> None:
    world = prepared(tmp_path)
    before = published(world.target, "proc")
    assert before is not None
    assert before.anchored
    cut(world)
    assert before.snapshot_id not in {s.snapshot_id for s in main_lineage(world.target)}
    found = published(world.target, "proc")
    assert found == before
    assert not found.anchored


def test_an_idle_run_puts_such_a_watermark_on_the_head_again(tmp_path: Path) -> None:
    """What proved it may go with the next clean-up of old metadata."""
    world = prepared(tmp_path)
    rows = world.target_rows()
    cut(world)
    done = steps.run(world.process())
    assert done.outcome == "nothing_to_do"
    assert "put on its head again" in done.reason
    found = published(world.target, "proc")
    assert found is not None
    assert found.anchored
    snapshots = len(world.target.metadata.snapshots)
    assert steps.run(world.process()).outcome == "nothing_to_do"
    assert len(world.target.metadata.snapshots) == snapshots, "once is enough"
    world.land(1.5, 3)
    assert steps.run(world.process()).did_publish
    assert len(world.target_rows()) == len(rows) + 3


def test_a_publish_of_positions_alone_survives_a_cut(tmp_path: Path) -> None:
    """It adds no file that could prove it."""
    world = World(home=tmp_path, policies={"initial": "current"}).set_up()
    world.land(0)
    steps.run(world.process())
    before = published(world.target, "proc")
    foreign_commit(world)
    foreign_commit(world)
    expire_all_but(world)
    assert published(world.target, "proc") == before


def test_a_lineage_that_was_cut_twice_is_followed_over_both_cuts(tmp_path: Path) -> None:
    """What joins the two was itself expired, long enough ago that most versions are without it."""
    world = World(home=tmp_path, policies={"initial": "current"}).set_up()
    world.land(0)
    steps.run(world.process())
    before = published(world.target, "proc")
    for _ in range(2):
        foreign_commit(world)
        foreign_commit(world)
        expire_all_but(world)
    for number in range(10):
        with world.target.transaction() as transaction:
            transaction.set_properties({"note": str(number)})
    assert published(world.target, "proc") == before


def test_what_was_rolled_back_is_not_proven_by_the_tag_that_keeps_it(tmp_path: Path) -> None:
    """The newest publish is undone: its predecessor counts, although its snapshot is expired."""
    world = World(home=tmp_path).set_up()
    world.land(0, 1)
    steps.run(world.process())
    first = published(world.target, "proc")
    assert first is not None
    world.land(2)
    steps.run(world.process())
    second = published(world.target, "proc")
    assert second is not None
    roll_back(world.target, first.snapshot_id)
    foreign_commit(world)
    compact(world.target)
    expire_all_but(world)
    assert second.snapshot_id in {s.snapshot_id for s in world.target.metadata.snapshots}, "kept by the tag"
    assert published(world.target, "proc") == first


def test_a_cut_history_that_started_below_every_publish_is_a_lost_watermark(tmp_path: Path) -> None:
    world = World(home=tmp_path, policies={"initial": {"adopt": "all"}}).set_up()
    foreign_commit(world)
    start = world.target.metadata.current_snapshot_id
    assert start is not None
    world.land(0)
    steps.run(world.process())
    roll_back(world.target, start)
    foreign_commit(world)
    foreign_commit(world)
    expire_all_but(world)
    with pytest.raises(WatermarkLost, match="not on the lineage of 'main'"):
        published(world.target, "proc")


@pytest.mark.parametrize("what", ["deleted", "torn"])
def test_without_the_earlier_metadata_nothing_is_proven(tmp_path: Path, what: str) -> None:
    world = prepared(tmp_path)
    cut(world)
    for entry in world.target.metadata.metadata_log:
        file = Path(entry.metadata_file.removeprefix("file://"))
        if what == "deleted":
            file.unlink()
        else:
            file.write_text(file.read_text()[:100])
    with pytest.raises(WatermarkLost):
        published(world.target, "proc")


def test_a_parent_id_that_javas_expiry_left_is_proof(tmp_path: Path) -> None:
    world = World(home=tmp_path, policies={"initial": "current"}).set_up()
    world.land(0)
    steps.run(world.process())
    before = published(world.target, "proc")
    assert before is not None
    foreign_commit(world)
    table = expire_dangling(world.target, [before.snapshot_id])
    table.metadata = table.metadata.model_copy(update={"metadata_log": []})
    found = published(table, "proc")
    assert found is not None
    assert (found.session, found.watermark) == (before.session, before.watermark)
