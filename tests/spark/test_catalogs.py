"""Spark and pyiceberg find each other's tables, rows and commits."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa

from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.spark_process import SparkProcess
from tests.support.world import EVENTS, create, hour, rows_table

ROWS = [(1, hour(1), "eu", 10), (2, hour(30), "us", 20)]


def test_a_table_of_pyiceberg_is_read_and_written_by_spark(spark: SparkProcess, catalog: SharedCatalog) -> None:
    table = create(catalog.load(), "raw.events", EVENTS, [("day", "ts")])
    table.append(rows_table(ROWS))
    assert spark.sql(catalog, "SELECT * FROM raw.events ORDER BY id").to_pylist() == rows_table(ROWS).to_pylist()
    spark.sql(catalog, "INSERT INTO raw.events VALUES (3, TIMESTAMP '2024-01-03 00:00:00', 'eu', 30)")
    assert sorted(catalog.load().load_table("raw.events").scan().to_arrow()["id"].to_pylist()) == [1, 2, 3]


def test_a_table_of_spark_is_read_and_written_by_pyiceberg(spark: SparkProcess, catalog: SharedCatalog) -> None:
    spark.sql(
        catalog,
        "CREATE TABLE raw.events (id BIGINT, ts TIMESTAMP, region STRING, v BIGINT) USING iceberg PARTITIONED BY (days(ts))",
        "INSERT INTO raw.events VALUES (1, TIMESTAMP '2024-01-01 01:00:00', 'eu', 10)",
    )
    table = catalog.load().load_table("raw.events")
    assert table.scan().to_arrow().to_pylist() == [{"id": 1, "ts": hour(1), "region": "eu", "v": 10}]
    table.append(rows_table(ROWS[1:]))
    assert spark.sql(catalog, "SELECT max(ts) AS t FROM raw.events").to_pylist() == [{"t": hour(30)}]


def test_spark_writes_to_a_branch_that_pyiceberg_has_made(spark: SparkProcess, catalog: SharedCatalog) -> None:
    table = create(catalog.load(), "mart.result", pa.schema([("id", pa.int64()), ("d", pa.date32())]), [])
    table.append(pa.table({"id": [1], "d": [dt.date(2024, 1, 1)]}, schema=table.schema().as_arrow()))
    head = table.current_snapshot()
    assert head is not None
    table.manage_snapshots().create_branch(head.snapshot_id, "inc_p_s_0_1").commit()
    spark.sql(catalog, "INSERT INTO mart.result.branch_inc_p_s_0_1 VALUES (2, DATE '2024-01-02')")
    table.refresh()
    assert table.scan().to_arrow()["id"].to_pylist() == [1]
    assert sorted(table.scan().use_ref("inc_p_s_0_1").to_arrow()["id"].to_pylist()) == [1, 2]
