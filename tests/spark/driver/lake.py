"""Tables, branches and job documents of a test, in a Hadoop catalog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyspark

from airflow_incremental_spark import run

if TYPE_CHECKING:
    from pathlib import Path

ICEBERG = "1.11.0"
EVERYTHING = {"ranges": [[None, None]], "nulls": True}


def packages() -> str:
    """Return the coordinates of Iceberg for the pyspark that is installed."""
    spark = ".".join(pyspark.__version__.split(".")[:2])
    return f"org.apache.iceberg:iceberg-spark-runtime-{spark}_{'2.12' if spark == '3.5' else '2.13'}:{ICEBERG}"


def at(text: str) -> str:
    """Return a moment as the document writes it: ``at("01 05")`` is 5 o'clock of 1 January 2024."""
    day, hour = text.split()
    return f"2024-01-{day}T{hour}:00:00+00:00"


def ranges(*pairs: tuple[str | None, str | None], nulls: bool = False) -> dict[str, Any]:
    return {"ranges": [[None if e is None else at(e) for e in pair] for pair in pairs], "nulls": nulls}


class Lake:
    def __init__(self, spark: Any, warehouse: Path, namespace: str) -> None:
        self.spark = spark
        self.namespace = namespace
        self.catalog = {"name": "lake", "conf": {"type": "hadoop", "warehouse": str(warehouse)}}
        for key, value in self.catalog["conf"].items():
            spark.conf.set(f"spark.sql.catalog.lake.{key}", value)
        spark.conf.set("spark.sql.catalog.lake", "org.apache.iceberg.spark.SparkCatalog")
        spark.conf.set("spark.sql.catalog.lake.cache-enabled", "false")
        spark.conf.set("spark.sql.session.timeZone", "UTC")

    def name(self, table: str) -> str:
        return f"lake.{self.namespace}.{table}"

    def create(self, table: str, columns: str, partition: str = "", properties: str = "") -> str:
        name = self.name(table)
        by = f"PARTITIONED BY ({partition})" if partition else ""
        more = f", {properties}" if properties else ""
        self.spark.sql(f"CREATE TABLE {name} ({columns}) USING iceberg {by} TBLPROPERTIES ('format-version'='2'{more})")
        return name

    def insert(self, table: str, values: str) -> int:
        """Insert rows as one snapshot and return its id."""
        self.spark.sql(f"INSERT INTO {self.name(table)} {values}")
        return self.head(table)

    def head(self, table: str, ref: str = "main") -> int:
        found = self.spark.table(f"{self.name(table)}.refs").where(f"name = '{ref}'").collect()
        return found[0]["snapshot_id"]

    def branch(self, table: str, name: str = "attempt") -> int:
        """Make a branch at the head of ``main`` and return that."""
        self.spark.sql(f"ALTER TABLE {self.name(table)} CREATE BRANCH `{name}`")
        return self.head(table)

    def files(self, table: str) -> list[str]:
        return [r["file_path"] for r in self.spark.table(f"{self.name(table)}.files").collect()]

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table or, with ``.branch_x`` after its name, of a branch."""
        frame = self.spark.table(self.name(table))
        return sorted((tuple(r) for r in frame.collect()), key=lambda r: tuple((v is None, v) for v in r))

    def columns(self, table: str) -> list[list[str]]:
        return [[f.name, f.dataType.simpleString()] for f in self.spark.table(self.name(table)).schema.fields]

    def read(self, table: str, **read: Any) -> dict[str, Any]:
        """Return a READ of all columns."""
        names = {c: c for c, _ in self.columns(table)}
        return {"files": None, "not_files": None, "keep": None, "drop": None, "columns": names, **read}

    def source(
        self, table: str, *reads: Any, event_time: str | None = None, kind: str = "timestamptz", **more: Any
    ) -> dict[str, Any]:
        return {
            "table": f"{self.namespace}.{table}",
            "columns": self.columns(table),
            "event_time": event_time,
            "event_time_type": None if event_time is None else kind,
            "rows": list(reads),
            "added": list(reads),
            "removed": None,
            "ranges": {"ranges": [], "nulls": False},
            "bounds": {},
            "bounds_types": {},
            **more,
        }

    def lookup(self, table: str) -> dict[str, Any]:
        return self.source(table, self.read(table, snapshot=self.head(table)), added=None, lookup=True)

    def document(
        self, target: str, transform: Any, *, branch: str = "attempt", base: int | None = None, **more: Any
    ) -> dict[str, Any]:
        """Return a job document; ``transform`` is SQL, or a mapping."""
        given = more.pop("target_more", {})
        return {
            "version": 1,
            "what": "load",
            "process": "p",
            "session": "s",
            "mode": "overwrite",
            "attempt": 1,
            "kind": "load",
            "catalog": self.catalog,
            "session_conf": {},
            "plan": {
                "replaced": [],
                "affected": [],
                "session": "s",
                "sources": [
                    {"name": n, "derivation": "lookup" if s.get("lookup") else "lineage"}
                    for n, s in more.get("sources", {}).items()
                ],
                **more.pop("plan_more", {}),
            },
            "plan_ranges": {"ranges": [], "nulls": False},
            "transform": {"kind": "sql", "text": transform} if isinstance(transform, str) else transform,
            "sources": {},
            "keys": None,
            "steps": None,
            "target": {
                "table": f"{self.namespace}.{target}",
                "branch": branch,
                "base": self.head(target) if base is None else base,
                "columns": self.columns(target),
                "event_time": None,
                "event_time_type": None,
                "replace": None,
                "check": {"ranges": None, "scope": None, "keys": False},
                **given,
            },
            **more,
        }

    def run(self, document: dict[str, Any], function: Any = None) -> dict[str, Any]:
        """Run a document as it comes over the wire."""
        return run(self.spark, json.loads(json.dumps(document)), function)

    def marks(self, table: str, branch: str = "attempt") -> tuple[str | None, dict[str, Any]]:
        """Return what a driver left at a branch's head: its mark and its report."""
        head = self.head(table, branch)
        summary = (
            self.spark.table(f"{self.name(table)}.snapshots").where(f"snapshot_id = {head}").collect()[0]["summary"]
        )
        return summary.get("incremental.driver"), json.loads(summary.get("incremental.driver-report", "{}"))
