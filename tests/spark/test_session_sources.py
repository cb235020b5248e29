"""Sessions on Spark over sources that Spark writes to: what its writers, deletes and maintenance leave is read as it should be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import IntegerType, StringType

from airflow_incremental.core.errors import SourceRewritten, TableError
from airflow_incremental.sessions import steps
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.worlds import on_spark
from tests.spark.support.writers import MERGE_ON_READ, SparkWriter
from tests.support.balances import Balances
from tests.support.modes import world_of
from tests.support.tables import live_files
from tests.support.world import SOURCE, TARGET, World, hour


def a_world(home: Path, mode: str, spark: SparkProcess, catalog: SharedCatalog, **options: Any) -> SparkWriter:
    """Return the writer of a world of the mode, whose source Spark has made and whose transform runs on Spark."""
    world = on_spark(world_of(home, mode, **options), spark, catalog).set_up()
    writer = SparkWriter(world=world, catalog=catalog, spark=spark)
    writer.create()
    return writer


def tick(world: World) -> None:
    steps.run(world.process())
    world.verify() if isinstance(world, Balances) else world.check()


def test_only_added_rows_whatever_spark_did_besides(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog
) -> None:
    """Compaction, deletes of new rows, expiry and new columns between two runs of ``append``."""
    writer = a_world(tmp_path, "append", spark, rest_catalog)
    world = writer.world
    writer.append(0, 1)
    tick(world)
    writer.mode(MERGE_ON_READ)
    writer.append(2, 3, 4)
    writer.delete(f"id = {world.next_id}")  # seen by nobody yet
    writer.compact()
    writer.sql("ALTER TABLE raw.events ADD COLUMN note STRING AFTER id", "ALTER TABLE raw.events RENAME COLUMN v TO w")
    writer.sql("INSERT INTO raw.events VALUES (100, 'n', TIMESTAMP '2024-01-01 05:00:00', 'eu', 7)")
    writer.sql("ALTER TABLE raw.events RENAME COLUMN w TO v")
    writer.sql("INSERT INTO raw.events VALUES (101, 'o', TIMESTAMP '2024-01-01 06:00:00', 'us', 8)")
    tick(world)
    # Where the position was expired, but its child still names it, Spark reads from it all the same.
    writer.sql("INSERT INTO raw.events VALUES (102, 'p', TIMESTAMP '2024-01-01 07:00:00', 'us', 9)")
    writer.expire()
    tick(world)
    writer.delete("id = 1")
    with pytest.raises(SourceRewritten):
        steps.run(world.process())


@pytest.mark.parametrize("mode", ["overwrite", "merge", "stateful"])
def test_merge_on_read(tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog, mode: str) -> None:
    writer = a_world(tmp_path, mode, spark, rest_catalog)
    writer.append(1, 2, 3, 26)
    writer.mode(MERGE_ON_READ)
    tick(writer.world)
    writer.update("v = v + 100, ts = ts + INTERVAL 1 HOUR", "id = 2")
    writer.delete("id = 1")
    writer.compact()
    writer.append(4, 27)
    writer.merge([(5, hour(25), "eu", 1), (90, hour(6), "us", 7)], gone=3)
    tick(writer.world)


#: Pyiceberg writes no list of columns that Java could read, so the commit is Java's.
_DELETES = """
spark._jvm.org.apache.spark.sql.classic.SparkSession.setActiveSession(spark._jsparkSession)
table = spark._jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(spark._jsparkSession, given["table"])
ids = spark._sc._gateway.new_array(spark._jvm.int, 1)
ids[0] = given["field"]
delta = table.newRowDelta()
for path, partition in given["files"]:
    builder = spark._jvm.org.apache.iceberg.FileMetadata.deleteFileBuilder(table.spec())
    builder = builder.ofEqualityDeletes(ids).withPath(path).withPartitionPath(partition).withFormat("parquet")
    delta.addDeletes(builder.withFileSizeInBytes(table.io().newInputFile(path).getLength()).withRecordCount(1).build())
delta.commit()
"""


def deleted_by_equality(writer: SparkWriter, row_id: int) -> None:
    """Delete a row by its id wherever it is, as Flink does."""
    table = writer.world.source
    field = table.schema().find_field("id").field_id
    kind = pa.schema([pa.field("id", pa.int64(), metadata={"PARQUET:field_id": str(field)})])
    files = []
    for number, partition in enumerate({file.file_path.split("/")[-2] for file in live_files(table)}):
        path = f"{table.location()}/data/{partition}/equality-{number}.parquet"
        with table.io.new_output(path).create() as stream:
            pq.write_table(pa.table({"id": [row_id]}, schema=kind), stream)
        files.append([path, partition])
    name = f"{writer.catalog.name}.{SOURCE}"
    writer.spark.script(writer.catalog, _DELETES, table=name, field=field, files=files)


def test_equality_deletes_are_expressed_where_ranges_are_read(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog
) -> None:
    """DuckDB refuses them; Spark applies them, and detection knows where from the partitions they are in."""
    writer = a_world(tmp_path, "overwrite", spark, rest_catalog)
    world = writer.world
    writer.append(1, 2, 26)
    tick(world)
    deleted_by_equality(writer, 2)
    writer.append(3)
    rows = [tuple(r.values()) for r in spark.sql(rest_catalog, "SELECT id, ts, region, v FROM raw.events").to_pylist()]
    assert 2 not in {row[0] for row in rows}
    on_duckdb = attrs.evolve(world, runner=None)
    with pytest.raises(TableError, match="equality deletes"):
        steps.run(on_duckdb.process())
    steps.run(world.process())
    world.check(rows=rows)


def test_two_sources_nulls_and_a_scope(tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog) -> None:
    union = on_spark(world_of(tmp_path / "union", "append a union"), spark, rest_catalog).set_up()
    for hours in ((0, 1), (0.5,), (2, 3)):
        union.land(*hours)
    tick(union)
    union.land(1.25)
    union.land(4)
    tick(union)
    for table in ("raw.events", "raw.others", TARGET):
        union.catalog.drop_table(table)
    fields = (("hour", "hour_ts"), ("identity", "region"))
    world = World(
        home=tmp_path,
        mode="overwrite",
        target_fields=fields,
        scope={"region": ["eu", None]},
        policies={"on_null_event_time": "own_range", "initial": {"adopt": "all"}},
    )
    on_spark(world, spark, rest_catalog).set_up()
    others = {"hour_ts": hour(0), "region": "us", "n": 1, "total": 1}
    world.target.append(pa.Table.from_pylist([others], schema=world.target_schema))
    world.land(0, None)
    steps.run(world.process())
    world.land(0.5, None, 1)
    steps.run(world.process())
    assert world.target_rows() == world.oracle(world.source_rows()) + Counter([tuple(others.values())])


def test_types_that_evolve_under_pinned_positions(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog
) -> None:
    """A column that is dropped between plan and load is still read; one that became wider is the same column."""
    from airflow_incremental.sessions.planner import plan
    from airflow_incremental.sessions.process import Session

    world = on_spark(world_of(tmp_path, "append"), spark, rest_catalog).set_up()
    with world.source.update_schema() as update:
        update.add_column("small", IntegerType())
        update.add_column("gone", StringType())
    world.land(0)
    tick(world)
    world.land(1, 2)
    session = plan(
        world.process(transform="SELECT id, ts, coalesce(gone, region) AS region, v * 10 AS v10 FROM events")
    )
    assert isinstance(session, Session)
    with world.source.update_schema() as update:
        update.delete_column("gone")
        update.rename_column("region", "area")
    steps.publish(session, steps.audit(session, steps.load(session)))
    with world.source.update_schema() as update:
        update.rename_column("area", "region")
    world.check()
