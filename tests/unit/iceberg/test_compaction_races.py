"""A compaction beside others: what still holds is committed, the rest is left; an answer that got lost is recognised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.table import Table
from pyiceberg.types import StringType

from airflow_incremental.iceberg.garbage import plain_path
from airflow_incremental.iceberg.maintenance import Maintained, maintain
from airflow_incremental.iceberg.sweep import leftovers
from airflow_incremental.sessions import steps
from tests.support.maintaining import KEEN, NOW
from tests.support.tables import (
    append,
    at,
    delete_rows_by_position,
    expire,
    head,
    live_files,
    make_table,
    overwrite_files,
    repartition,
    rows_at,
    sql_catalog,
)
from tests.support.world import TARGET, World

NAME = "raw.events"
COMPACT = attrs.evolve(KEEN, parts=("compact",), merge_manifests=100)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    found = make_table(sql_catalog(tmp_path), partition_by=[("hour", "ts")])
    for n in range(3):
        append(found, (n, at(0)), (10 + n, at(1)))
    return found


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Table, Callable[[], object]], Maintained]:
    """Compact a table; something happens to it right before the commit."""

    def run(table: Table, happens: Callable[[], object]) -> Maintained:
        kind, came = type(table.catalog), []
        real = kind.commit_table

        def commit_table(self: Catalog, found: Table, requirements: Any, updates: Any) -> Any:
            if not came:
                came.append(1)
                happens()
            return real(self, found, requirements, updates)

        monkeypatch.setattr(kind, "commit_table", commit_table)
        return maintain(table.catalog, NAME, COMPACT)

    return run


Meanwhile = Callable[[Table, Callable[[], object]], Maintained]


def partitions(table: Table) -> list[int]:
    files = live_files(table.refresh())
    return sorted(f.partition[0] for f in files)


def test_an_append_meanwhile(table: Table, meanwhile: Meanwhile) -> None:
    done = meanwhile(table, lambda: append(table, (99, at(0))))
    assert done.compaction.partitions == 2
    assert done.all_notes == ()
    assert len(partitions(table)) == 3
    assert len(rows_at(table)) == 7
    assert head(table).snapshot_id == done.compaction.snapshot_id


def test_a_file_that_went_meanwhile_leaves_its_partition_to_the_next_run(table: Table, meanwhile: Meanwhile) -> None:
    gone = next(f for f in live_files(table.refresh()) if f.partition[0] == partitions(table)[0])
    done = meanwhile(table, lambda: overwrite_files(table, removed=[gone.file_path], rows=[(7, at(0))]))
    assert done.compaction.partitions == 1
    assert "1 partitions were changed by others meanwhile" in done.all_notes[0]
    assert len(partitions(table)) == 3 + 1
    assert len(rows_at(table)) == 6
    assert orphans(table) == [], "files of the attempt are not left lying about"
    assert maintain(table.catalog, NAME, COMPACT).compaction.partitions == 1


def test_rows_deleted_meanwhile_stay_deleted(table: Table, meanwhile: Meanwhile) -> None:
    done = meanwhile(table, lambda: delete_rows_by_position(table, [1]))
    assert done.compaction.partitions == 1
    assert [i for i, _ in rows_at(table)] == [0, 2, 10, 11, 12]
    assert maintain(table.catalog, NAME, COMPACT).compaction.partitions == 1
    assert [i for i, _ in rows_at(table)] == [0, 2, 10, 11, 12]


@pytest.mark.parametrize("what", ["schema", "spec"])
def test_another_schema_or_spec_meanwhile_leaves_all_to_the_next_run(
    table: Table, meanwhile: Meanwhile, what: str
) -> None:
    def change() -> None:
        found = table.catalog.load_table(NAME)
        if what == "spec":
            repartition(found, [("day", "ts")])
            return
        with found.update_schema() as update:
            update.add_column("extra", StringType())

    before = rows_at(table)
    done = meanwhile(table, change)
    assert done.compaction.snapshot_id is None
    assert "2 partitions were changed by others" in done.all_notes[0]
    assert rows_at(table.refresh()) == before
    left = orphans(table)
    assert len(left) == 2
    assert {f.path for f in leftovers(table, older_than=NOW)} >= set(left), "the sweep takes them"


def test_an_answer_that_got_lost_with_all_that_came_after(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit landed unseen, and its snapshot is expired before the next look: what it wrote is live and stays."""
    kind, lost = type(table.catalog), []
    real = kind.commit_table

    def commit_table(self: Catalog, found: Table, requirements: Any, updates: Any) -> Any:
        answer = real(self, found, requirements, updates)
        if not lost:
            lost.append(1)
            append(table, (99, at(5)))
            head_now = head(table).snapshot_id
            expire(table, [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id != head_now])
            raise CommitStateUnknownException("no answer")
        return answer

    before = rows_at(table)
    monkeypatch.setattr(kind, "commit_table", commit_table)
    maintain(table.catalog, NAME, COMPACT)
    assert rows_at(table.refresh()) == sorted([*before, (99, at(5))])


def test_an_answer_that_got_lost(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit landed; the next look finds it, and it is not made again."""
    kind, lost = type(table.catalog), []
    real = kind.commit_table

    def commit_table(self: Catalog, found: Table, requirements: Any, updates: Any) -> Any:
        answer = real(self, found, requirements, updates)
        if not lost:
            lost.append(1)
            raise CommitStateUnknownException("no answer")
        return answer

    monkeypatch.setattr(kind, "commit_table", commit_table)
    done = maintain(table.catalog, NAME, attrs.evolve(COMPACT, parts=("expire", "compact")))
    assert done.counts["snapshots_expired"] == 2, "the lost one was that of the expiry"
    append(table, (5, at(0)))
    append(table, (6, at(0)))
    lost.clear()
    again = maintain(table.catalog, NAME, COMPACT)
    assert again.compaction.snapshot_id == head(table).snapshot_id
    assert [s.summary.operation.value for s in table.refresh().metadata.snapshots if s.summary].count("replace") == 2


def orphans(table: Table) -> list[str]:
    """Return data files on disk that no snapshot has."""
    known = {plain_path(f.file_path) for f in live_files(table.refresh())}
    for snapshot in table.metadata.snapshots:
        for manifest in snapshot.manifests(table.io):
            known |= {
                plain_path(e.data_file.file_path)
                for e in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
            }
    there = {str(p) for p in Path(plain_path(table.location())).rglob("*.parquet")}
    return sorted(there - known)


def test_history_stays_bounded_through_many_sessions(tmp_path: Path) -> None:
    """Snapshots, manifests and files per partition do not grow with the number of sessions, but with what is kept."""
    world = World(home=tmp_path).set_up()
    policy = attrs.evolve(KEEN, retain_last=3, compact=2, merge_manifests=4)
    sizes = []
    for n in range(24):
        world.land(0.1, 1.1 + n % 3)
        steps.run(world.process())
        if n % 4 == 3:
            for table in ("raw.events", TARGET):
                maintain(world.catalog, table, policy, consumers=[TARGET])
            found = world.target
            current = head(found)
            sizes.append(
                (
                    len(found.metadata.snapshots),
                    len(world.source.metadata.snapshots),
                    len(current.manifests(found.io)),
                    len(live_files(found)),
                    len(list(Path(plain_path(found.location())).rglob("*.parquet"))),
                )
            )
    world.check()
    most = [max(column) for column in zip(*sizes, strict=True)]
    assert most[0] <= 3 + 1
    assert most[1] <= 3 + 1 + 1
    assert most[2] <= 4 + 1
    assert most[3] <= 4 * 2
    assert most[4] <= most[3] + 4 * 2 * 2, "files of what is kept, no others"
