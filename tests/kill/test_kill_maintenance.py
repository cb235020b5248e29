"""SIGKILL at every commit, file written and file deleted by maintenance: the table stays whole, and the next run ends it."""

from __future__ import annotations

import datetime as dt
import shutil
import uuid
from pathlib import Path

import attrs
import pyarrow as pa

from airflow_incremental.core.maintenance import LEAST_ORPHAN_AGE
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.garbage import plain_path
from airflow_incremental.iceberg.maintenance import maintain
from airflow_incremental.iceberg.sweep import leftovers, referenced
from airflow_incremental.iceberg.writer import write
from airflow_incremental.sessions import steps
from tests.kill.test_kill import NOW, Restored, places, run_session
from tests.support.killing import Child
from tests.support.maintaining import KEEN
from tests.support.world import SOURCE, TARGET, World, hour

OVER = "20240101T000000-0123abcd"


def keep_up(home: Path, table: str, age: dt.timedelta = NOW) -> None:
    """What a maintenance task does.

    :param age: of orphans that may go.
    """
    policy = attrs.evolve(KEEN, orphans_older_than=age)
    maintain(World(home=home, mode="append").catalog, table, policy, consumers=[TARGET])


def prepare(world: World) -> None:
    """Leave something to do for every part: history, a branch, small files, files nobody refers to, and files to delete."""
    for n in (1.6, 2.6):
        world.land(n, 0.2)
        steps.run(world.process(f"more {n}"))
    keep_up(world.home, TARGET)
    for n in (1.7, 2.7):
        world.land(n, 0.3)
        steps.run(world.process(f"more {n}"))
    target = world.target
    head = target.metadata.current_snapshot_id
    assert head is not None
    target.manage_snapshots().create_branch(head, naming.scratch_ref("proc", OVER)).commit()
    row = {"id": 0, "ts": hour(1), "region": "eu", "v10": 0}
    rows = pa.Table.from_pylist([row], schema=world.target_schema)
    write(world.target, rows.to_reader(), write_id=uuid.uuid4(), check=None)


def test_killed_anywhere_the_table_is_whole_and_the_next_run_ends_it(tmp_path: Path) -> None:
    home = tmp_path / "world"
    restored = Restored(home, "append")
    prepare(restored.world)
    # What is restored is the world with all of that.
    restored = _again(restored)
    world = restored()
    child = Child(keep_up, home, TARGET, deletions=True)
    assert child.wait() == 0
    events = [e for e in child.events if e != "done"]
    assert events.count("before commit") == 2, "one for the history, one for the compaction"
    assert events.count("before deletion") > 10
    assert {"before parquet", "before avro"} <= set(events)
    for at in _some(events):
        world = restored()
        rows = world.target_rows()
        assert Child(keep_up, home, TARGET, at=at, deletions=True).wait() == -9, events[at - 1]
        assert world.target_rows() == rows
        for snapshot in world.target.metadata.snapshots:
            world.target.scan(snapshot_id=snapshot.snapshot_id).to_arrow()
        maintain(world.catalog, TARGET, KEEN)
        assert world.target_rows() == rows
        assert naming.scratch_ref("proc", OVER) not in world.target.metadata.refs
        assert leftovers(world.target, older_than=NOW) == [], events[at - 1]
        table = world.target
        there = {str(p) for p in Path(plain_path(table.location())).rglob("*") if p.suffix in (".parquet", ".avro")}
        assert there == {p for p in referenced(table) if p.endswith((".parquet", ".avro"))}, events[at - 1]
        world.land(1.9, 7)
        assert steps.run(world.process("after")).did_publish
        world.check()


def _again(restored: Restored) -> Restored:
    """Return a restorer of the world as it is now."""
    shutil.rmtree(restored.kept)
    shutil.copytree(restored.home, restored.kept)
    return restored


def _some(events: list[str]) -> list[int]:
    """Return where to kill: before every commit and write, before the first, a middle and the last of each row of deletions."""
    found = []
    for at in places(events):
        name = events[at - 1]
        in_a_row = name == "before deletion" and at > 2 and at + 1 < len(events)
        if in_a_row and events[at - 3] == name == events[at + 1] and at % 7:
            continue
        found.append(at)
    return found


def test_a_source_is_maintained_by_a_task_that_is_killed(tmp_path: Path) -> None:
    """Written by another engine: what was not deleted is listed, and nobody misses anything."""
    home = tmp_path / "world"
    restored = Restored(home, "append")
    child = Child(keep_up, home, SOURCE, deletions=True)
    restored()
    assert child.wait() == 0
    events = [e for e in child.events if e != "done"]
    for at in places(events):
        world = restored()
        assert Child(keep_up, home, SOURCE, at=at, deletions=True).wait() == -9
        assert steps.run(world.process("second")).did_publish
        world.check()
        maintain(world.catalog, SOURCE, KEEN, consumers=[TARGET])
        assert steps.run(world.process("third")).outcome == "nothing_to_do"
        world.check()


def test_two_at_once_and_a_load_beside_them(tmp_path: Path) -> None:
    home = tmp_path / "world"
    restored = Restored(home, "append")
    prepare(restored.world)
    restored = _again(restored)
    for _ in range(3):
        world = restored()
        world.land(1.9, 7)
        children = [
            # What the other is about to commit is an orphan until then, and younger than any that may go.
            *(Child(keep_up, home, TARGET, LEAST_ORPHAN_AGE) for _ in range(2)),
            Child(run_session, home, "append", "beside"),
        ]
        codes = [child.wait(120) for child in children]
        assert codes == [0, 0, 0], [child.events[-1] for child in children]
        world.check()
        maintain(world.catalog, TARGET, KEEN)
        assert leftovers(world.target, older_than=NOW) == []
        world.check()
