"""A runner that does jobs in this process, with pyiceberg and DuckDB: what a Spark application has to do, and no JVM.

It reads nothing but the job, as an application does, so whatever it needs has to be there.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import duckdb
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from airflow_incremental.core.ranges import MAX_TIME, MIN_TIME, EventRanges, Grain, TimeRange
from airflow_incremental.core.spark_job import DONE, DRIVER, DRIVER_REPORT, SparkRead
from airflow_incremental.iceberg.reads import schema_at
from tests.support.spark_reads import Rows, spark_rows
from tests.support.tables import commit_snapshot, live_entries, write_data


@attrs.define(kw_only=True)
class LocalRunner:
    """Runs the SQL of jobs in DuckDB.

    :param connect: makes a catalog, as every application has its own.
    :param before_write: called with the job when its rows are computed: to kill it, say.
    """

    connect: Callable[[], Catalog]
    text: str
    before_write: Callable[[Mapping[str, Any]], None] = lambda _job: None
    marked: bool = True
    jobs: list[Mapping[str, Any]] = attrs.field(factory=list)

    @property
    def catalog(self) -> Mapping[str, Any]:
        return {"name": "local", "conf": {"type": "none"}}

    @property
    def transform(self) -> Mapping[str, Any]:
        return {"kind": "sql", "text": self.text}

    @property
    def fingerprint(self) -> str:
        return f"sql {hash(self.text)}"

    def run(self, job: Mapping[str, Any]) -> None:
        job = json.loads(json.dumps(job))
        self.jobs.append(job)
        Application(job=job, catalog=self.connect(), before_write=self.before_write).run(marked=self.marked)


@attrs.define(kw_only=True)
class Application:
    """One run of a job."""

    job: Mapping[str, Any]
    catalog: Catalog
    before_write: Callable[[Mapping[str, Any]], None]
    #: Rows of the target's columns that were written so far.
    written: list[dict[str, Any]] = attrs.field(factory=list)

    @property
    def target(self) -> Table:
        return self.catalog.load_table(self.job["target"]["table"])

    def run(self, *, marked: bool) -> None:
        target = self.job["target"]
        assert self.target.metadata.refs[target["branch"]].snapshot_id == target["base"]
        if target["replace"] is not None:
            self._replace(ranges_of(target["replace"]["ranges"]), target["replace"]["scope"])
        steps = self.job["steps"]
        for part in [None] if steps is None else steps["parts"]:
            rows = self._transformed(part)
            self.before_write(self.job)
            if rows.num_rows:
                added = write_data(self.target, rows)
                commit_snapshot(self.target, Operation.APPEND, added=added, branch=target["branch"])
            self.written += rows.to_pylist()
        if marked:
            report = json.dumps({"rows": len(self.written)})
            self.target.append(
                schema_to_pyarrow(self.target.schema(), include_field_ids=False).empty_table(),
                branch=target["branch"],
                snapshot_properties={DRIVER: DONE, DRIVER_REPORT: report},
            )

    def _replace(self, ranges: EventRanges, scope: Mapping[str, Sequence[Any]] | None) -> None:
        """Drop the files of the branch that hold rows of ranges and scope; none may hold others as well."""
        target, branch = self.target, self.job["target"]["branch"]
        snapshot = target.snapshot_by_name(branch)
        gone = []
        for _, entry in live_entries(target, snapshot):
            path = entry.data_file.file_path
            read = SparkRead(snapshot=target.metadata.refs[branch].snapshot_id, files=(path,), columns=_same(target))
            inside = {
                self._inside(dict(zip(target.schema().column_names, row, strict=True)), ranges, scope)
                for row in spark_rows(target, [read], target.schema().column_names, None)
            }
            assert inside in ({True}, {False}), "an expression drops whole files"
            if inside == {True}:
                gone.append(path)
        if gone:
            commit_snapshot(target, Operation.OVERWRITE, removed=gone, branch=branch)

    def _inside(self, row: Mapping[str, Any], ranges: EventRanges, scope: Mapping[str, Sequence[Any]] | None) -> bool:
        column = self.job["target"]["event_time"]
        timed = ranges.is_everything or (column is not None and ranges.contains(moment_of(row[column])))
        return timed and all(plain(row[c]) in values for c, values in (scope or {}).items())

    def _transformed(self, part: Sequence[str | None] | None) -> pa.Table:
        ranges = None if part is None else ranges_of({"ranges": [part], "nulls": False})
        with duckdb.connect() as con:
            con.execute("SET GLOBAL TimeZone = 'UTC'")
            for name, source in self.job["sources"].items():
                self._bind(con, name, source, ranges)
            bound = ranges_of(self.job["plan_ranges"]) if ranges is None else ranges
            times = [(r.start, r.end) for r in bound.ranges]
            con.register(
                "plan_ranges", pa.table({"range_start": [a for a, _ in times], "range_end": [b for _, b in times]})
            )
            steps = self.job["steps"]
            if steps is not None and steps["state"] is not None and part is not None:
                con.register("state", self._state(steps["state"], part))
            schema = schema_to_pyarrow(self.target.schema(), include_field_ids=False)
            found = con.sql(self.job["transform"]["text"]).to_arrow_table()
            return found.select(schema.names).cast(schema)

    def _bind(
        self, con: duckdb.DuckDBPyConnection, name: str, source: Mapping[str, Any], part: EventRanges | None
    ) -> None:
        table = self.catalog.load_table(source["table"])
        names = [column for column, _ in source["columns"]]
        rows = self._rows(table, source["rows"], source)
        lookup = source["added"] is None
        if part is not None and not lookup and source["event_time"] is not None:
            at = names.index(source["event_time"])
            rows = Rows({r: n for r, n in rows.items() if part.contains(moment_of(r[at]))})
        if self.job["keys"] is not None and name in self.job["keys"]["sources"]:
            positions = [names.index(c) for c in self.job["keys"]["sources"][name]]
            keys = self._keys()
            rows = Rows({r: n for r, n in rows.items() if tuple(r[p] for p in positions) in keys})
        snapshot = next((r["snapshot"] for r in source["rows"] if "snapshot" in r), None)
        types = schema_to_pyarrow(schema_at(table, snapshot), include_field_ids=False)
        types = pa.schema([types.field(n) if n in types.names else pa.field(n, pa.string()) for n in names])
        con.register(name, arrow(rows.elements(), types))
        if not lookup:
            came, went = self._changed(table, source)
            changed = [(*r, "insert") for r in (came - went).elements()]
            changed += [(*r, "delete") for r in (went - came).elements()]
            con.register(f"{name}_changes", arrow(changed, types.append(pa.field("_change_type", pa.string()))))

    def _keys(self) -> set[tuple[Any, ...]]:
        """Return the distinct keys of all changed rows of the drivers."""
        found = set()
        for name, columns in self.job["keys"]["sources"].items():
            source = self.job["sources"][name]
            names = [column for column, _ in source["columns"]]
            came, went = self._changed(self.catalog.load_table(source["table"]), source)
            found |= {tuple(r[names.index(c)] for c in columns) for r in [*(came - went), *(went - came)]}
        return {key for key in found if None not in key}

    def _changed(self, table: Table, source: Mapping[str, Any]) -> tuple[Rows, Rows]:
        return self._rows(table, source["added"], source), self._rows(table, source["removed"], source)

    @staticmethod
    def _rows(table: Table, reads: Iterable[Mapping[str, Any]], source: Mapping[str, Any]) -> Rows:
        names = [column for column, _ in source["columns"]]
        return spark_rows(table, [read_of(r) for r in reads], names, source["event_time"])

    def _state(self, state: Mapping[str, Any], part: Sequence[str | None]) -> pa.Table:
        """Return the state before a part: of what was published and stays, and of the parts before."""
        target, document = self.target, self.job["target"]
        time, replaced = document["event_time"], ranges_of(state["replaced"])
        names = target.schema().column_names
        old = spark_rows(target, [SparkRead(snapshot=document["base"], columns=_same(target))], names, time)
        rows = [dict(zip(names, r, strict=True)) for r in old.elements()]
        rows = [r for r in rows if not replaced.contains(moment_of(r[time]))] + self.written
        start = ranges_of({"ranges": [part], "nulls": False}).ranges[0].start
        before = [r for r in rows if r[time] is not None and r[time] < start]
        scope = document["check"]["scope"] or {}
        before = [r for r in before if all(plain(r[c]) in values for c, values in scope.items())]
        if state["kind"] == "previous_step":
            since = Grain(state["unit"]).before(start)
            before = [r for r in before if r[time] >= since]
        else:
            latest: dict[Any, dict[str, Any]] = {}
            for row in sorted(before, key=lambda r: r[time]):
                latest[tuple(row[c] for c in state["columns"])] = row
            before = list(latest.values())
        return pa.Table.from_pylist(before, schema=schema_to_pyarrow(target.schema(), include_field_ids=False))


def read_of(read: Mapping[str, Any]) -> SparkRead:
    """Return a read of a job."""
    files, rest = read["files"], read["not_files"]
    return SparkRead(
        snapshot=read.get("snapshot"),
        start=read.get("start"),
        end=read.get("end"),
        files=None if files is None else tuple(files),
        not_files=None if rest is None else tuple(rest),
        keep=None if read["keep"] is None else ranges_of(read["keep"]),
        drop=None if read["drop"] is None else ranges_of(read["drop"]),
        columns=read["columns"],
    )


def ranges_of(ranges: Mapping[str, Any]) -> EventRanges:
    """Return event times of a job."""
    found = [
        TimeRange(
            MIN_TIME if a is None else dt.datetime.fromisoformat(a),
            MAX_TIME if b is None else dt.datetime.fromisoformat(b),
        )
        for a, b in ranges["ranges"]
    ]
    return EventRanges(tuple(found), nulls=ranges["nulls"])


def moment_of(value: Any) -> dt.datetime | None:
    if value is None or isinstance(value, dt.datetime):
        return None if value is None else value.replace(tzinfo=value.tzinfo or dt.timezone.utc)
    return dt.datetime(value.year, value.month, value.day, tzinfo=dt.timezone.utc)


def plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else value


def arrow(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Return rows as Arrow."""
    found = list(rows)
    columns = [pa.array([r[i] for r in found], f.type) for i, f in enumerate(schema)]
    return pa.table(columns, schema=schema)


def _same(table: Table) -> dict[str, str]:
    return {name: name for name in table.schema().column_names}
