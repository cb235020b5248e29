"""Processes to measure: a target, a source and what a DAG author would declare."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.core.plan import Owner, Plan, SourcePlan, new_session_id
from airflow_incremental.core.ranges import EPOCH, UTC
from airflow_incremental.core.spec import IcebergSource, IcebergTarget, Mode, ProcessSpec
from airflow_incremental.core.watermark import SourcePosition, Watermark
from airflow_incremental.iceberg.locks import bootstrap
from airflow_incremental.iceberg.publish import publish_positions
from airflow_incremental.sessions.process import Process
from benchmarks.histories import BY_HOUR, FIRST_HOUR, SCHEMA

TARGET = "mart.result"
SQL = "SELECT id, ts, region, v FROM events"


def hour(number: float) -> dt.datetime:
    """Return the start of an hour, counted from the first one of the tables made here."""
    return EPOCH + dt.timedelta(hours=FIRST_HOUR + number)


def process_of(
    catalog: Catalog, *, source: str, mode: Mode, name: str = "proc", target: str = TARGET, run: str = "run"
) -> Process:
    """Return a process as one run of it sees it."""
    return Process(
        spec=ProcessSpec(
            process=name,
            sources={"events": IcebergSource(source, event_time="ts")},
            target=IcebergTarget(target, event_time="ts"),
            mode=mode,
        ),
        catalog=catalog,
        owner=Owner(deployment="bench", dag_id="dag", run_id=run, task_id="load"),
        transform=SQL,
    )


def make_target(catalog: Catalog, identifier: str = TARGET) -> Table:
    """Create an empty target with its first snapshot."""
    catalog.create_table(identifier, schema=SCHEMA, partition_spec=BY_HOUR, properties={"format-version": "2"})
    return bootstrap(catalog, identifier)


def publish_watermark(process: Process, position: SourcePosition, *, through: dt.datetime | None = None) -> Table:
    """Publish a watermark to the process's target, with the package's own commit, and return the target.

    :param through: event time up to which the target counts as complete.
    """
    spec = process.spec
    target = process.catalog.load_table(spec.target.table)
    now = dt.datetime.now(UTC)
    plan = Plan(
        process=spec.process,
        session=new_session_id(now),
        mode=spec.mode,
        kind="positions",
        reason="where the measurement starts",
        target=spec.target.table,
        target_uuid=str(target.metadata.table_uuid),
        main=target.metadata.refs["main"].snapshot_id,
        base_session=None,
        sources=(
            SourcePlan(
                name="events",
                table=spec.sources["events"].table,
                base=None,
                pinned=position,
                derivation="from_now",
            ),
        ),
        watermark=Watermark(positions={"events": position}, complete_through=through),
        owner=Owner(deployment="bench"),
        created_at=now,
    )
    publish_positions(process.catalog, spec, plan)
    return process.catalog.load_table(spec.target.table)


def rows(*hours: float) -> pa.Table:
    """Return one row for each hour."""
    count = len(hours)
    return pa.table(
        {
            "id": pa.array(range(count), pa.int64()),
            "ts": pa.array([hour(h) for h in hours], pa.timestamp("us", "UTC")),
            "region": pa.array(["eu"] * count, pa.string()),
            "v": pa.array([1] * count, pa.int64()),
        }
    )
