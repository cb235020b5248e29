"""A sweep removes what tries that died left of one table, and nothing else (trap T8: purging takes files others refer to)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from airflow_incremental.iceberg.build import build_snapshot, snapshot_index
from airflow_incremental.iceberg.sweep import leftovers, sweep
from airflow_incremental.iceberg.writer import write
from airflow_incremental.sessions import steps
from tests.kill.test_kill import NOW
from tests.support.world import World, hour


def folder(table: Table) -> Path:
    return Path(table.location().removeprefix("file://"))


def files(table: Table) -> set[Path]:
    return {p for p in folder(table).rglob("*") if p.is_file()}


def loaded(home: Path) -> World:
    world = World(home=home, target_fields=(("hour", "ts"), ("identity", "region"))).set_up()
    world.land(0, 1)
    steps.run(world.process())
    return world


def rows(table: Table) -> pa.RecordBatchReader:
    row = {"id": 1, "ts": hour(3), "region": "us/a=b", "v10": 1}
    return pa.Table.from_pylist([row], schema=table.schema().as_arrow()).to_reader()


def die(table: Table) -> set[Path]:
    """Write what a session writes and leave it at that; return the files."""
    before = files(table)
    write(table, rows(table), write_id=uuid.uuid4(), check=None)
    parent = table.current_snapshot()
    assert parent is not None
    build_snapshot(table, parent=snapshot_index(table)[parent.snapshot_id], summary={})
    return files(table) - before


def test_what_a_session_wrote_and_did_not_commit_goes(tmp_path: Path) -> None:
    world = loaded(tmp_path)
    left = die(world.target)
    assert {p.suffix for p in left} == {".parquet", ".avro"}
    assert leftovers(world.target) == [], "young files are left alone"
    assert {Path(f.path) for f in sweep(world.target, older_than=NOW)} == left
    assert left.isdisjoint(files(world.target))
    world.check()


@pytest.mark.parametrize(
    "properties", [{}, {"write.object-storage.enabled": "true"}], ids=["partition folders", "hash folders"]
)
def test_another_table_below_this_ones_folder_keeps_its_files(tmp_path: Path, properties: dict[str, str]) -> None:
    """Wherever it lies: its live files, and its own left-overs, which its own sweep is for."""
    world = loaded(tmp_path)
    target = world.target
    below = ("data/other", "data/region=eu/other", "metadata/other", "data")
    others = [
        world.catalog.create_table(
            f"mart.other{n}", schema=target.schema(), location=f"{target.location()}/{path}", properties=properties
        )
        for n, path in enumerate(below)
    ]
    theirs: set[Path] = set()
    for other in others:
        other.append(rows(other).read_all())
        die(other)
        theirs |= files(other)
    left = die(target)
    theirs -= left
    assert {Path(f.path) for f in sweep(target, older_than=NOW)} == left
    assert all(p.exists() for p in theirs)
    for other in others:
        assert other.refresh().scan().to_arrow().num_rows == 1
        assert sweep(other, older_than=NOW), "each has left-overs of its own"
        assert other.scan().to_arrow().num_rows == 1
    world.check()


@pytest.mark.parametrize(
    "name", ["data/stray.parquet", "data/ts_hour=2024-01-01-00/00000-0-{}.parquet", "metadata/{}-m0.avro"]
)
def test_files_of_other_writers_stay(tmp_path: Path, name: str) -> None:
    world = loaded(tmp_path)
    stray = folder(world.target) / name.format(uuid.uuid4())
    stray.parent.mkdir(exist_ok=True, parents=True)
    stray.write_bytes(b"half a file")
    assert sweep(world.target, older_than=NOW) == []
    assert stray.exists()


def metadata_file(table: Table, name: str, change: Callable[[str], str]) -> Path:
    """Write another version of a table's metadata beside it, as a commit that got no further leaves it."""
    current = Path(table.metadata_location.removeprefix("file://"))
    made = current.parent / f"00099-{name}.metadata.json"
    made.write_text(change(current.read_text()))
    return made


def test_metadata_files_go_if_they_never_were_the_tables(tmp_path: Path) -> None:
    world = loaded(tmp_path)
    table = world.target
    uncommitted = metadata_file(table, "lost-race", lambda text: text)
    of_another = metadata_file(
        table, "other", lambda text: text.replace(str(table.metadata.table_uuid), str(uuid.uuid4()))
    )
    torn = metadata_file(table, "torn", lambda text: text[:50])
    first = min(table.metadata.metadata_log, key=lambda e: e.timestamp_ms)
    old = metadata_file(
        table,
        "old",
        lambda text: text.replace(
            f'"last-updated-ms":{table.metadata.last_updated_ms}', f'"last-updated-ms":{first.timestamp_ms - 1}'
        ),
    )
    assert [Path(f.path) for f in sweep(table, older_than=NOW)] == [uncommitted]
    assert of_another.exists()
    assert torn.exists(), "nobody can tell whose it is"
    assert old.exists(), "older than the log reaches, it may have been the table's"
    world.check()
