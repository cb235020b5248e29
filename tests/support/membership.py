"""The tables of Psyberg's own example: signups, plan changes and cancels of a membership, and the account dimension over them.

Signups and plan changes are appended; cancels depend on the order of events; the dimension depends on all three, which are
themselves catching up.
"""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import ManifestEntryStatus

from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.core.watermark import Watermark
from airflow_incremental.iceberg.state import published
from tests.support.world import create, new_catalog

DAY = dt.datetime(2023, 9, 14, tzinfo=UTC)
ROWS = pa.schema([("ts", pa.timestamp("us", "UTC")), ("account", pa.int64()), ("what", pa.string())])
STATES = pa.schema(
    [("ts", pa.timestamp("us", "UTC")), ("account", pa.int64()), ("what", pa.string()), ("events", pa.int64())]
)
#: Fact -> its mode.
FACTS = {"signups": "append", "plans": "append", "cancels": "stateful"}
DIMENSION = "accounts"
#: One row per event of an account, with how many it has had: it depends on everything before.
COUNTED = """
SELECT e.ts, e.account, e.what,
       (coalesce(s.events, 0) + row_number() OVER (PARTITION BY e.account ORDER BY e.ts, e.what))::BIGINT AS events
FROM ({events}) e LEFT JOIN state s ON s.account = e.account
"""


def hour(n: int) -> dt.datetime:
    return DAY + dt.timedelta(hours=n)


@attrs.define
class Membership:
    """Three raw sources, three facts and the dimension over them; each of these is a process of the same name."""

    home: Path
    _account: itertools.count[int] = attrs.field(factory=itertools.count)

    @property
    def catalog(self) -> Catalog:
        return new_catalog(self.home)

    def set_up(self) -> Membership:
        catalog = self.catalog
        for name, mode in FACTS.items():
            create(catalog, f"raw.{name}", ROWS, ())
            create(catalog, f"mart.{name}", ROWS if mode == "append" else STATES, [("hour", "ts")])
        create(catalog, f"mart.{DIMENSION}", STATES, [("hour", "ts")])
        return self

    def land(self, name: str, *hours: int, complete: int) -> None:
        """Commit one event in each of the hours; the source then says that it is complete through ``complete``, inclusive."""
        table = self.catalog.load_table(f"raw.{name}")
        if hours:
            rows = [
                {"ts": hour(h) + dt.timedelta(minutes=5), "account": next(self._account) % 3, "what": name}
                for h in hours
            ]
            table.append(pa.Table.from_pylist(rows, schema=ROWS))
        with table.transaction() as change:
            change.set_properties({"complete": hour(complete + 1).isoformat()})

    @staticmethod
    def declaration(name: str) -> dict[str, Any]:
        """Return what a DAG author declares of a process."""
        if name == DIMENSION:
            sources = {f: IcebergSource(f"mart.{f}", event_time="ts") for f in FACTS}
        else:
            through = {"rule": "property", "name": "complete"}
            sources = {"raw": IcebergSource(f"raw.{name}", event_time="ts", complete_through=through)}
        mode = FACTS.get(name, "stateful")
        stateful = {"state": "latest_by(account)"} if mode == "stateful" else {}
        target = IcebergTarget(f"mart.{name}", event_time="ts")
        return {"process": name, "sources": sources, "target": target, "mode": mode, **stateful}

    @staticmethod
    def transform(name: str) -> str:
        """Return the SQL of a process."""
        tables = FACTS if name == DIMENSION else ["raw"]
        events = " UNION ALL ".join(f"SELECT ts, account, what FROM {table}" for table in tables)
        return events if FACTS.get(name) == "append" else COUNTED.format(events=events)

    def watermark(self, name: str) -> Watermark:
        found = published(self.catalog.load_table(f"mart.{name}"), name)
        assert found is not None
        return found.watermark

    def written(self, name: str, snapshot_id: int) -> set[int]:
        """Return the hours of the files that a snapshot added to a table or took out of it."""
        table = self.catalog.load_table(f"mart.{name}")
        snapshot = table.snapshot_by_id(snapshot_id)
        assert snapshot is not None
        partitions = [
            entry.data_file.partition[0]
            for manifest in snapshot.manifests(table.io)
            if manifest.added_snapshot_id == snapshot_id
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
            if entry.status != ManifestEntryStatus.EXISTING and entry.snapshot_id == snapshot_id
        ]
        since = (DAY - dt.datetime(1970, 1, 1, tzinfo=UTC)) // dt.timedelta(hours=1)
        return {hours - since for hours in partitions}

    def verify(self, name: str) -> None:
        """Assert that a table is what its raw sources give from scratch, as far as it is processed."""
        target = self.catalog.load_table(f"mart.{name}")
        through = self.watermark(name).processed_through
        raw = FACTS if name == DIMENSION else [name]
        rows = [r for f in raw for r in self.catalog.load_table(f"raw.{f}").scan().to_arrow().to_pylist()]
        counts: dict[int, int] = {}
        expected = []
        for row in sorted(rows, key=lambda r: (r["ts"], r["what"])):
            if through is None or row["ts"] < through:
                counts[row["account"]] = counts.get(row["account"], 0) + 1
                expected.append((*row.values(), *(() if FACTS.get(name) == "append" else (counts[row["account"]],))))
        assert sorted(tuple(r.values()) for r in target.scan().to_arrow().to_pylist()) == sorted(expected)
