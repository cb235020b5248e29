"""Processes to measure: a target, a source and what a DAG author would declare."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

import attrs
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.audits import Audit
from airflow_incremental.core.plan import Owner, Plan, SourcePlan, new_session_id
from airflow_incremental.core.ranges import EPOCH, UTC
from airflow_incremental.core.spec import Mode, ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.core.watermark import SourcePosition, Watermark
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.lineage import position_of
from airflow_incremental.iceberg.locks import bootstrap
from airflow_incremental.iceberg.publish import publish_positions
from airflow_incremental.sessions.process import Process
from benchmarks.histories import BY_HOUR, FIRST_HOUR, SCHEMA, History, copies, make_table

SOURCE, TARGET = "raw.events", "mart.result"
SQL = "SELECT id, ts, region, v FROM events"


def hour(number: float) -> dt.datetime:
    """Return the start of an hour, counted from the first one of the tables made here."""
    return EPOCH + dt.timedelta(hours=FIRST_HOUR + number)


def process_of(
    catalog: Catalog,
    *,
    source: str = SOURCE,
    mode: Mode = "append",
    name: str = "proc",
    target: str = TARGET,
    audits: Sequence[Audit] = (),
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
        owner=Owner(deployment="bench", dag_id="dag", run_id="run", task_id="load"),
        transform=SQL,
        audits=audits,
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


@attrs.frozen(kw_only=True)
class World:
    """A source with some new rows, and a target that sessions of the process have published to many times."""

    catalog: Catalog
    #: The target as its history left it; measure on copies, so that every round begins with the same history.
    target: Table

    @classmethod
    def make(
        cls, catalog: Catalog, *, snapshots: int, new_rows: bool = True, source_snapshots: int | None = None
    ) -> World:
        """Make the tables.

        :param snapshots: publishes in the target's history.
        :param new_rows: whether the source has a snapshot after the watermark.
        :param source_snapshots: appends in the source's history, made by hand; None makes a small source with real files.
        """
        if source_snapshots is None:
            source = catalog.create_table(SOURCE, schema=SCHEMA, properties={"format-version": "2"})
            source.append(rows(snapshots - 1))
        else:
            source = make_table(catalog, SOURCE, History(snapshots=source_snapshots, files=source_snapshots))
        words = _words_of_a_publish(catalog, position_of(source, source.current_snapshot()))
        target = make_table(
            catalog,
            TARGET,
            History(
                snapshots=snapshots,
                files=snapshots,
                summary=lambda n: {**words, naming.SESSION: f"session-{n}", naming.BASE_SESSION: f"session-{n - 1}"},
            ),
        )
        if new_rows:
            source.append(rows(snapshots))
        return cls(catalog=catalog, target=target)

    def copies(self) -> Iterator[str]:
        """Yield names of tables that are as the target is now, a new one for each ``next``."""
        return copies(self.catalog, self.target, TARGET)


def _words_of_a_publish(catalog: Catalog, position: SourcePosition) -> dict[str, str]:
    """Return what the package writes into the summary of a published snapshot, from one that it has really published."""
    name = "mart.example"
    make_target(catalog, name)
    target = publish_watermark(process_of(catalog, target=name), position)
    catalog.drop_table(name)
    head = target.current_snapshot()
    assert head is not None
    assert head.summary is not None
    return {k: v for k, v in head.summary.additional_properties.items() if k.startswith(naming.PREFIX)}
