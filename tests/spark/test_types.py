"""What Spark writes, pyiceberg and sessions read the same, and the reverse: every type, and what manifests say of it."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.conversions import from_bytes
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import NestedField, TimeType

from airflow_incremental.core.plan import Owner
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.writer import write
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Process
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.every_type import SHARED_TYPES, plain, shared_rows
from tests.spark.support.spark_process import SparkFailed, SparkProcess
from tests.support.tables import live_files


def write_own(table: Table, rows: pa.Table) -> Table:
    """Append rows with this package's writer."""
    written = write(table, rows.to_reader(), write_id=uuid.uuid4(), check=None)
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as snapshot:
        for file in written.files:
            snapshot.append_data_file(file)
    return table.refresh()


def load(catalog: SharedCatalog, home: Path, *, source: str, target: str) -> None:
    """Run a session that appends all rows of one table to another."""
    spec = ProcessSpec(
        process="types",
        sources={"src": IcebergSource(source, event_time="moment")},
        target=IcebergTarget(target, event_time="moment"),
        mode="append",
        on_null_event_time="own_range",
    )
    owner = Owner(deployment="here", dag_id="dag", run_id=home.name, task_id="load", clear_number=0)
    process = Process(
        spec=spec,
        catalog=catalog.load(),
        owner=owner,
        transform="SELECT * FROM src",
        run_is_over=lambda _owner: True,
    )
    steps.run(process)


def test_every_type_reads_the_same(tmp_path: Path, spark: SparkProcess, catalog: SharedCatalog) -> None:
    """From this package's writer to Spark, from Spark to pyiceberg and to a session on DuckDB, and from that to Spark again."""
    opened = catalog.load()
    tables = {n: opened.create_table(f"raw.{n}", SHARED_TYPES) for n in ("ours", "sparks", "loaded")}
    rows = shared_rows(tables["ours"].schema().as_arrow())
    expected = plain(rows)
    write_own(tables["ours"], rows)
    assert plain(spark.sql(catalog, "SELECT * FROM raw.ours")) == expected

    spark.sql(catalog, "INSERT INTO raw.sparks SELECT * FROM raw.ours")
    scanned = plain(tables["sparks"].refresh().scan().to_arrow())
    # pyiceberg reads a null list of structs as an empty one, whoever wrote it.
    assert [{**row, "points": row["points"] or None} for row in scanned] == [
        {**row, "points": row["points"] or None} for row in expected
    ]

    load(catalog, tmp_path, source="raw.sparks", target="raw.loaded")
    assert plain(spark.sql(catalog, "SELECT * FROM raw.loaded")) == expected


def test_spark_says_what_it_cannot_open(spark: SparkProcess, jdbc_catalog: SharedCatalog) -> None:
    jdbc_catalog.load().create_table("raw.clock", Schema(NestedField(1, "clock", TimeType())))
    with pytest.raises(SparkFailed, match="time"):
        spark.sql(jdbc_catalog, "SELECT * FROM raw.clock")


def test_bounds_that_spark_writes_are_understood(spark: SparkProcess, jdbc_catalog: SharedCatalog) -> None:
    opened = jdbc_catalog.load()
    ours, sparks = (opened.create_table(f"raw.{n}", SHARED_TYPES) for n in ("ours", "sparks"))
    rows = shared_rows(ours.schema().as_arrow())
    write_own(ours, rows)
    spark.sql(jdbc_catalog, "INSERT INTO raw.sparks SELECT /*+ COALESCE(1) */ * FROM raw.ours")
    (file,) = live_files(sparks.refresh())
    assert file.record_count == 3
    for name in ("moment", "local", "day"):
        column = EventColumn.of(sparks, name)
        values = [v for v in rows[name].to_pylist() if v is not None]
        (found,) = (column.by_bounds(file) or pytest.fail("no bounds")).ranges
        low, high = (_as_moment(v) for v in (min(values), max(values)))
        assert (found.start, found.end) == (low, _after(high, whole_day=name == "day"))
        assert column.nulls(file, 0) == 1
    # The rest: as pyiceberg's own files have them, but for what each may leave out.
    (own,) = live_files(ours)
    checked = 0
    for field in sparks.schema().fields:
        for bounds, others in ((file.lower_bounds, own.lower_bounds), (file.upper_bounds, own.upper_bounds)):
            if field.field_type.is_primitive and field.field_id in bounds and field.field_id in others:
                assert from_bytes(field.field_type, bounds[field.field_id]) == from_bytes(
                    field.field_type, others[field.field_id]
                ), field.name
                checked += 1
    assert checked > 20


def _as_moment(value: Any) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return value if value.tzinfo else value.replace(tzinfo=dt.timezone.utc)
    return dt.datetime(value.year, value.month, value.day, tzinfo=dt.timezone.utc)


def _after(moment: dt.datetime, *, whole_day: bool) -> dt.datetime:
    from airflow_incremental.core.ranges import MAX_TIME

    try:
        return min(moment + (dt.timedelta(days=1) if whole_day else dt.timedelta(microseconds=1)), MAX_TIME)
    except OverflowError:
        return MAX_TIME
