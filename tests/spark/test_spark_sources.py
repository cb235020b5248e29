"""Sessions on DuckDB over a source that Spark has made and writes to: Java's metadata, manifests, names of files and deletes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from airflow_incremental.core.errors import SourceRewritten, TableError, WatermarkLost
from airflow_incremental.sessions import steps
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.writers import COPY_ON_WRITE, MERGE_ON_READ, SparkWriter
from tests.support.balances import Balances
from tests.support.modes import world_of
from tests.support.world import World, hour


def a_world(home: Path, mode: str, spark: SparkProcess, catalog: SharedCatalog, **options: Any) -> SparkWriter:
    """Return the writer of a world of the mode; the world's own source is replaced by what Spark creates."""
    world = world_of(home, mode, opens=catalog.load, **options)
    world.set_up()
    return SparkWriter(world=world, catalog=catalog, spark=spark)


def tick(world: World) -> None:
    """Run a session, and compare the target with a computation from scratch."""
    steps.run(world.process())
    world.verify() if isinstance(world, Balances) else world.check()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("append", "jdbc"),
        ("overwrite", "jdbc"),
        ("overwrite", "rest"),
        ("stateful", "rest"),
        ("stateful in steps", "jdbc"),
        ("merge", "rest"),
    ],
)
def test_what_spark_does_to_a_source_is_followed(
    tmp_path: Path, request: pytest.FixtureRequest, spark: SparkProcess, mode: str, kind: str
) -> None:
    catalog: SharedCatalog = request.getfixturevalue(f"{kind}_catalog")
    policies = {"on_rewrite": "overwrite"} if mode == "append" else {}
    writer = a_world(tmp_path, mode, spark, catalog, policies=policies)
    world = writer.world
    writer.create()
    writer.append(1, 2, 3, 26, 27, 50)
    tick(world)
    # Late rows, in two commits.
    writer.append(2, 28)
    writer.append(3, 51)
    tick(world)
    # Rows change, one moves in time; others go: in files of position deletes.
    writer.mode(MERGE_ON_READ)
    writer.update("v = v + 100, ts = ts + INTERVAL 1 HOUR", "id IN (2, 5)")
    writer.delete("id IN (1, 8)")
    tick(world)
    # Compaction alone, and with rows that nobody has seen yet.
    writer.compact()
    tick(world)
    writer.append(4, 29)
    writer.compact()
    writer.rewrite_manifests()
    tick(world)
    # Rows change and go in data files written anew.
    writer.mode(COPY_ON_WRITE)
    writer.update("v = -v", "id = 3")
    writer.delete("region = 'us' AND v > 5")
    tick(world)
    # Nothing is left but the last snapshot, which is known.
    writer.expire()
    tick(world)
    writer.mode(MERGE_ON_READ)
    writer.append(5, 30)
    writer.merge([(5, hour(27), "eu", 1), (90, hour(6), "us", 7)], gone=9)
    tick(world)
    # A whole day goes: no file is read for that.
    writer.delete("ts < TIMESTAMP '2024-01-02 00:00:00'")
    tick(world)


@pytest.mark.parametrize("change", ["update", "delete"])
@pytest.mark.parametrize("how", [MERGE_ON_READ, COPY_ON_WRITE])
def test_append_refuses_rows_that_spark_has_changed(
    tmp_path: Path, spark: SparkProcess, jdbc_catalog: SharedCatalog, how: str, change: str
) -> None:
    writer = a_world(tmp_path, "append", spark, jdbc_catalog)
    writer.create()
    writer.append(1, 2, 3)
    tick(writer.world)
    before = writer.world.target_rows()
    writer.mode(how)
    writer.update("v = 0", "id = 1") if change == "update" else writer.delete("id = 1")
    with pytest.raises(SourceRewritten):
        steps.run(writer.world.process())
    assert writer.world.target_rows() == before


def test_snapshots_that_spark_expired_are_missed(
    tmp_path: Path, spark: SparkProcess, jdbc_catalog: SharedCatalog
) -> None:
    writer = a_world(tmp_path, "append", spark, jdbc_catalog)
    writer.create()
    writer.append(1)
    tick(writer.world)
    writer.append(2)
    writer.append(3)
    writer.expire()
    with pytest.raises(WatermarkLost):
        steps.run(writer.world.process())


@pytest.mark.parametrize("partitioned_by", ["", "hours(ts), region", "bucket(4, id), truncate(1, region), months(ts)"])
def test_partitions_of_spark(
    tmp_path: Path, spark: SparkProcess, jdbc_catalog: SharedCatalog, partitioned_by: str
) -> None:
    writer = a_world(tmp_path, "merge", spark, jdbc_catalog)
    writer.create(partitioned_by=partitioned_by)
    writer.append(1, 2, 30, 800)
    tick(writer.world)
    writer.mode(MERGE_ON_READ)
    writer.append(2, 31, regions=["ü/ 1%", "us"])
    writer.delete("id IN (1, 3)")
    tick(writer.world)


def test_keys_that_bounds_cut_short(tmp_path: Path, spark: SparkProcess, jdbc_catalog: SharedCatalog) -> None:
    """Java cuts bounds of text after 16 characters, and adds one to the last of an upper bound."""
    writer = a_world(tmp_path, "merge", spark, jdbc_catalog)
    writer.create(partitioned_by="")
    long = ["a" * 20 + "x", "a" * 20 + "y", "ü" * 16 + "z", "\U0010ffff" * 17]
    for region in long:
        writer.append(1, 2, regions=[region])
    tick(writer.world)
    for region in reversed(long):
        writer.append(3, regions=[region])
        tick(writer.world)
    writer.mode(MERGE_ON_READ)
    writer.delete(f"region = '{long[1]}' AND v > 3")
    tick(writer.world)


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_files_that_were_parquet_before_iceberg(
    tmp_path: Path, spark: SparkProcess, jdbc_catalog: SharedCatalog, mode: str
) -> None:
    """Spark's own Parquet files have times as INT96, without bounds, and no field ids; ``add_files`` takes them as they are."""
    writer = a_world(tmp_path, mode, spark, jdbc_catalog)
    writer.create(partitioned_by="")
    rows = [(101, hour(1.5), "eu", 1), (102, hour(26), "us", 2)]
    writer.add_files(tmp_path / "old", rows)
    (file,) = (tmp_path / "old").glob("*.parquet")
    assert pq.ParquetFile(file).schema.column(1).physical_type == "INT96"
    tick(writer.world)
    writer.append(2, 30)
    tick(writer.world)
    assert {r[0] for r in writer.world.source_rows()} >= {101, 102}


def test_a_source_of_format_version_3_is_refused(
    tmp_path: Path, spark: SparkProcess, jdbc_catalog: SharedCatalog
) -> None:
    """Its deletion vectors and row lineage are not known here."""
    writer = a_world(tmp_path, "merge", spark, jdbc_catalog)
    writer.create(version=3)
    writer.mode(MERGE_ON_READ)
    writer.append(1, 2)
    writer.delete("id = 1")
    with pytest.raises(TableError, match="version 3"):
        steps.run(writer.world.process())
