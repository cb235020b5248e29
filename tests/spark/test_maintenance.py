"""Maintenance of tables that Spark writes and reads: it reads a compaction as no change, and goes on with what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.sessions import steps
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.worlds import on_spark
from tests.spark.support.writers import MERGE_ON_READ, SparkWriter
from tests.support.maintaining import KEEN, maintained
from tests.support.modes import world_of
from tests.support.world import SOURCE, TARGET

COMPACT = attrs.evolve(KEEN, parts=("compact",))


@pytest.fixture(params=["jdbc", "rest"])
def writer(request: pytest.FixtureRequest, tmp_path: Path, spark: SparkProcess) -> SparkWriter:
    """A world whose source Spark has made, and whose transform runs on Spark."""
    catalog: SharedCatalog = request.getfixturevalue(f"{request.param}_catalog")
    world = on_spark(world_of(tmp_path, "append"), spark, catalog).set_up()
    found = SparkWriter(world=world, catalog=catalog, spark=spark)
    found.create()
    return found


def changes(writer: SparkWriter, start: int | None) -> list[tuple[str, int]]:
    """Return what Spark's changelog says has changed since a snapshot."""
    end = writer.world.source.metadata.current_snapshot_id
    found = writer.spark.sql(
        writer.catalog,
        f"CALL {writer.catalog.name}.system.create_changelog_view(table => '{SOURCE}', changelog_view => 'changes', "
        f"options => map('start-snapshot-id', '{start}', 'end-snapshot-id', '{end}'))",
        "SELECT _change_type, id FROM changes ORDER BY id",
    )
    return [(row["_change_type"], row["id"]) for row in found.to_pylist()]


def rows(writer: SparkWriter) -> list[Any]:
    """Return the source's rows as Spark reads them."""
    return writer.spark.sql(writer.catalog, f"SELECT * FROM {SOURCE} ORDER BY id").to_pylist()


def test_a_compaction_is_no_change(writer: SparkWriter) -> None:
    world = writer.world
    writer.append(1, 2)
    steps.run(world.process())
    start = world.source.metadata.current_snapshot_id
    new = [row[0] for hours in ((1, 3), (2, 26), (1.5, 27)) for row in writer.append(*hours)]
    before = rows(writer)
    assert maintained(world.catalog, SOURCE, COMPACT).compaction.snapshot_id is not None
    compacted = world.source.metadata.current_snapshot_id
    assert rows(writer) == before
    assert changes(writer, start) == [("INSERT", i) for i in new]
    last = [row[0] for row in writer.append(2.5, 50)]
    assert maintained(world.catalog, SOURCE, COMPACT).compaction.snapshot_id is not None
    assert changes(writer, start) == [("INSERT", i) for i in (*new, *last)]
    assert changes(writer, compacted) == [("INSERT", i) for i in last]
    steps.run(world.process())
    world.check()
    assert steps.run(world.process()).outcome == "nothing_to_do"


def test_spark_goes_on_with_what_is_left(writer: SparkWriter) -> None:
    """Expired, compacted, with row-level deletes applied: Spark writes, compacts and expires on, and loads follow."""
    world = writer.world
    world.policies = {"on_rewrite": "overwrite"}
    writer.append(1, 2, 3)
    steps.run(world.process())
    writer.mode(MERGE_ON_READ)
    for n in range(3):
        writer.append(1 + n, 2.5)
    writer.delete("id IN (2, 5)")
    before = rows(writer)
    done = maintained(world.catalog, SOURCE, consumers=[TARGET])
    assert done.compaction.files_before > done.compaction.files_after
    assert rows(writer) == before
    steps.run(world.process())
    world.check()
    done = maintained(world.catalog, SOURCE, consumers=[TARGET])
    assert done.counts["snapshots_expired"] > 1
    assert rows(writer) == before
    writer.append(4, 30)
    writer.compact()
    steps.run(world.process())
    world.check()
    maintained(world.catalog, TARGET)
    writer.expire()
    writer.append(5)
    maintained(world.catalog, SOURCE, attrs.evolve(KEEN, parts=("compact", "orphans")))
    writer.delete("id = 3")
    steps.run(world.process())
    world.check()
