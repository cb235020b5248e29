"""A small world to load in: a catalog, a source that keeps receiving rows, a process, and an oracle for its target."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.transforms import parse_transform

from airflow_incremental.core.plan import Owner
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.iceberg import naming
from airflow_incremental.sessions.process import Process

UTC = dt.timezone.utc
DAY0 = dt.datetime(2024, 1, 1, tzinfo=UTC)
SOURCE, TARGET = "raw.events", "mart.result"

EVENTS = pa.schema([("id", pa.int64()), ("ts", pa.timestamp("us", "UTC")), ("region", pa.string()), ("v", pa.int64())])
APPEND_SQL = "SELECT id, ts, region, v * 10 AS v10 FROM events"
OVERWRITE_SQL = """
SELECT date_trunc('hour', ts) AS hour_ts, region, count(*) AS n, sum(v)::BIGINT AS total FROM events GROUP BY ALL
"""


def hour(n: float) -> dt.datetime:
    """Return the time ``n`` hours after the world's first day began."""
    return DAY0 + dt.timedelta(hours=n)


Row = tuple[int, dt.datetime | None, str, int]


def rows_table(rows: Iterable[Row]) -> pa.Table:
    """Return rows as the source takes them."""
    columns: list[list[Any]] = [list(c) for c in zip(*rows, strict=True)] or [[], [], [], []]
    return pa.table(dict(zip(EVENTS.names, columns, strict=True)), schema=EVENTS)


def new_catalog(home: Path, uri: str | None = None) -> Catalog:
    """Return a SQL catalog: SQLite and files below ``home`` unless another database is given."""
    home.mkdir(parents=True, exist_ok=True)
    file = home / "catalog.db"
    # Most tests ask for very many catalogs of one world.
    known = uri is None and file.exists()
    catalog = SqlCatalog("test", uri=uri or f"sqlite:///{file}", warehouse=f"file://{home}/warehouse")
    for namespace in () if known else ("raw", "mart"):
        catalog.create_namespace_if_not_exists(namespace)
    return catalog


def create(
    catalog: Catalog, name: str, schema: pa.Schema, fields: Iterable[tuple[str, str]], **properties: str
) -> Table:
    """Create a table partitioned by ``(transform, column)`` fields."""
    table = catalog.create_table(name, schema=schema, properties=properties)
    fields = list(fields)
    if fields:
        with table.update_spec() as update:
            for transform, column in fields:
                update.add_field(
                    column,
                    parse_transform(transform),
                    f"{column}_{transform.rstrip(']').replace('[', '_')}" if transform != "identity" else column,
                )
    return catalog.load_table(name)


@attrs.define
class World:
    """One source, one target, one process in ``mode``."""

    home: Path
    mode: str = "append"
    target_fields: tuple[tuple[str, str], ...] | None = None
    source_fields: tuple[tuple[str, str], ...] = ()
    catalog_uri: str | None = None
    #: Opens another catalog than the SQL catalog below ``home``; its namespaces are there.
    opens: Callable[[], Catalog] | None = None
    policies: Mapping[str, Any] = attrs.field(factory=dict)
    name: str = "proc"
    scope: Mapping[str, Any] | None = None
    over: Callable[[Owner], bool] = lambda _owner: True
    #: More of what a process is bound to.
    binding: Mapping[str, Any] = attrs.field(factory=dict)
    #: Makes of the transform's SQL what runs it elsewhere; None runs it here.
    runner: Callable[[str], Any] | None = None
    next_id: int = 0
    run: int = 0

    def set_up(self) -> World:
        """Create the source and the target."""
        return self.set_up_with(source_version="2")

    def set_up_with(self, *, source_version: str) -> World:
        """Create the source, in an Iceberg format version, and the target."""
        catalog = self.catalog
        create(catalog, SOURCE, EVENTS, self.source_fields, **{"format-version": source_version})
        create(catalog, TARGET, self.target_schema, self.partitioning)
        return self

    @property
    def catalog(self) -> Catalog:
        """A new catalog object, as every task process has its own."""
        return new_catalog(self.home, self.catalog_uri) if self.opens is None else self.opens()

    @property
    def target_schema(self) -> pa.Schema:
        """Schema of the target in this mode."""
        if self.mode == "append":
            return pa.schema(
                [("id", pa.int64()), ("ts", pa.timestamp("us", "UTC")), ("region", pa.string()), ("v10", pa.int64())]
            )
        return pa.schema(
            [("hour_ts", pa.timestamp("us", "UTC")), ("region", pa.string()), ("n", pa.int64()), ("total", pa.int64())]
        )

    @property
    def event_time(self) -> str:
        """Event time of the target."""
        return "ts" if self.mode == "append" else "hour_ts"

    @property
    def partitioning(self) -> tuple[tuple[str, str], ...]:
        """Partition fields of the target."""
        return self.target_fields if self.target_fields is not None else (("hour", self.event_time),)

    @property
    def spec(self) -> ProcessSpec:
        """What a DAG author would declare."""
        return ProcessSpec(
            process=self.name,
            sources={"events": IcebergSource(SOURCE, event_time="ts")},
            target=IcebergTarget(TARGET, event_time=self.event_time, scope=self.scope),
            mode=self.mode,
            **self.policies,
        )

    def process(self, run_id: str | None = None, **changes: Any) -> Process:
        """Return the process as one run sees it; a new run unless ``run_id`` names one."""
        if run_id is None:
            self.run += 1
            run_id = f"run{self.run}"
        values: dict[str, Any] = {
            "spec": self.spec,
            "catalog": self.catalog,
            "owner": Owner(
                deployment="here",
                dag_id="dag",
                run_id=run_id,
                task_id="load",
                clear_number=changes.pop("clear_number", 0),
            ),
            "transform": APPEND_SQL if self.mode == "append" else OVERWRITE_SQL,
            "run_is_over": self.over,
            **self.binding,
        }
        values |= changes
        if self.runner is not None and isinstance(values["transform"], str):
            values["transform"] = self.runner(values["transform"])
        return Process(**values)

    def land(self, *hours: float | None, region: str = "eu") -> list[Row]:
        """Commit one append of rows with these event times (hours after the first day began; None for null)."""
        rows: list[Row] = []
        for h in hours:
            self.next_id += 1
            rows.append((self.next_id, None if h is None else hour(h), region, self.next_id * 7 % 101))
        self.source.append(rows_table(rows))
        return rows

    @property
    def source(self) -> Table:
        """The source as it is now."""
        return self.catalog.load_table(SOURCE)

    @property
    def target(self) -> Table:
        """The target as it is now."""
        return self.catalog.load_table(TARGET)

    def source_rows(self, snapshot_id: int | None = None) -> list[Row]:
        """Return the source's rows by a full scan."""
        table = self.source
        if snapshot_id is None and table.current_snapshot() is None:
            return []
        found = table.scan(snapshot_id=snapshot_id).to_arrow().to_pylist()
        return [(r["id"], r["ts"], r["region"], r["v"]) for r in found]

    def target_rows(self) -> Counter[tuple[Any, ...]]:
        """Return the target's rows by a full scan, with how often each occurs."""
        table = self.target
        if table.current_snapshot() is None:
            return Counter()
        return Counter(tuple(r.values()) for r in table.scan().to_arrow().select(self.target_schema.names).to_pylist())

    def oracle(self, rows: Iterable[Row]) -> Counter[tuple[Any, ...]]:
        """Compute the target from scratch, in plain Python."""
        if self.mode == "append":
            return Counter((i, ts, region, v * 10) for i, ts, region, v in rows)
        groups: dict[tuple[Any, str], list[int]] = {}
        for _, ts, region, v in rows:
            key = (None if ts is None else ts.replace(minute=0, second=0, microsecond=0), region)
            groups.setdefault(key, []).append(v)
        return Counter((ts, region, len(vs), sum(vs)) for (ts, region), vs in groups.items())

    def check(self, *, rows: Iterable[Row] | None = None) -> None:
        """Assert that the target is what a computation from all source rows gives, and that no session is left open."""
        assert self.target_rows() == self.oracle(self.source_rows() if rows is None else rows)
        left = [r for r in self.target.metadata.refs if r.startswith("inc_") and r != naming.watermark_tag(self.name)]
        assert [r for r in left if not r.startswith(naming.FAILED_PREFIX)] == []
