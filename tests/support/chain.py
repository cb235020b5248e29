"""A chain of three hops in which all modes take part, and the check of each run against ``tests.support.naive``.

::

    raw.a ─append─► fact ─┬─overwrite─► totals ──overwrite─► days
    raw.b ────────────────┤
                          └─stateful──► balances ──merge───► customers ◄─lookup─ raw.names
    raw.c ─ totals only
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import TargetNotEmpty, WatermarkLost
from airflow_incremental.core.plan import Owner
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Process
from tests.support import naive
from tests.support.chain_work import check_work, lineage
from tests.support.naive import Memory, Row, Rule, Shape
from tests.support.world import create, hour, new_catalog

TS = pa.timestamp("us", "UTC")
EVENTS = pa.schema([("id", pa.int64()), ("ts", TS), ("customer", pa.string()), ("v", pa.int64())])
NAMES = pa.schema([("customer", pa.string()), ("name", pa.string())])
TARGETS = {
    "fact": EVENTS,
    "totals": pa.schema([("ts", TS), ("customer", pa.string()), ("n", pa.int64()), ("v", pa.int64())]),
    "balances": pa.schema([("id", pa.int64()), ("ts", TS), ("customer", pa.string()), ("balance", pa.int64())]),
    "customers": pa.schema(
        [("customer", pa.string()), ("name", pa.string()), ("n", pa.int64()), ("highest", pa.int64())]
    ),
    "days": pa.schema([("ts", TS), ("n", pa.int64()), ("v", pa.int64())]),
}
#: In the order in which rows travel.
PROCESSES = tuple(TARGETS)
CUSTOMERS = ("x", "y", "z")
PROPERTY = "landing.complete-through"
OPEN_REFS = ("main", "inc_wm_", "inc_pin_")


@attrs.frozen(kw_only=True)
class Setting:
    """What differs between chains.

    :param rules: up to where each raw source is complete; one to three of them.
    :param unit: of the partitions of ``totals`` and ``balances``.
    :param pinned: whether the processes pin what they have consumed.
    """

    rules: Mapping[str, Rule]
    unit: Any = "hour"
    step: str | None = None
    buckets: bool = False
    pinned: bool = True


@attrs.frozen(kw_only=True)
class Publish:
    """A publish of a process: the naive memory of it, and the heads of its drivers then."""

    snapshot_id: int
    memory: Memory
    heads: Mapping[str, int | None]


@attrs.define
class Chain:
    """The tables and processes of one setting, and what every table should hold."""

    home: Path
    setting: Setting
    #: Opens another catalog than the SQL catalog below ``home``; its namespaces are there.
    opens: Callable[[], Catalog] | None = None
    #: Of some processes: makes of the transform's SQL what runs it elsewhere.
    runners: Mapping[str, Callable[[str], Any]] = attrs.field(factory=dict)
    #: The hour that is now, for what lands on time; the first day, where days are what is computed, is complete.
    clock: int = attrs.field(init=False)
    #: All publishes of each process that were seen, and the one that stands.
    publishes: dict[str, list[Publish]] = attrs.field(factory=lambda: {name: [] for name in PROCESSES})
    current: dict[str, Publish | None] = attrs.field(factory=lambda: dict.fromkeys(PROCESSES))
    catalog: Catalog = attrs.field(init=False)
    _ids: itertools.count[int] = attrs.field(factory=itertools.count)
    _runs: itertools.count[int] = attrs.field(factory=itertools.count)
    #: Processes whose table was rolled back: their pins may have moved on from what they go on from.
    undone: set[str] = attrs.field(factory=set)
    #: Processes whose watermark was taken away, and the publish that their rows are of; and the same by the reset.
    taken: dict[str, Publish] = attrs.field(factory=dict)
    resets: dict[str, Publish] = attrs.field(factory=dict)
    #: Processes from whose table somebody else deleted the rows.
    emptied: set[str] = attrs.field(factory=set)
    #: Rows by snapshot, which never change.
    _scanned: dict[int, list[Row]] = attrs.field(factory=dict)
    #: Keys that the last run of ``customers`` read.
    _keys: set[str] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.clock = 26 if self.setting.unit == "day" else 10
        self.catalog = new_catalog(self.home) if self.opens is None else self.opens()
        for source in self.setting.rules:
            create(self.catalog, f"raw.{source}", EVENTS, ())
        create(self.catalog, "raw.names", NAMES, ())
        self.rename("x", "Xaver")
        partitions = {
            "fact": [("hour", "ts")],
            "customers": [("bucket[2]", "customer")] if self.setting.buckets else [],
            "days": [("day", "ts")],
        }
        for name, schema in TARGETS.items():
            create(self.catalog, f"mart.{name}", schema, partitions.get(name, [(self.setting.unit, "ts")]))

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of all tables."""
        raw = (*self.setting.rules, "names")
        return (*(f"raw.{name}" for name in raw), *(f"mart.{name}" for name in PROCESSES))

    def table(self, name: str) -> Table:
        return self.catalog.load_table(name)

    def rows(self, name: str) -> list[Row]:
        """Return a table's rows, sorted."""
        table = self.table(name)
        head = table.metadata.current_snapshot_id
        if head is None:
            return []
        if head not in self._scanned:
            self._scanned[head] = sorted(tuple(r.values()) for r in table.scan().to_arrow().to_pylist())
        return self._scanned[head]

    def land(self, source: str, hours: Iterable[int], customer: str) -> None:
        rows = []
        for h in hours:
            i = next(self._ids)
            # No two events at one moment: state keeps the latest row of a customer.
            rows.append((i, hour(h) + dt.timedelta(minutes=i % 60, seconds=i // 60), customer, i * 7 % 11 - 3))
        self.table(f"raw.{source}").append(events(rows))

    def rename(self, customer: str, name: str) -> None:
        """Give a customer another name, in the table that is only looked up."""
        names = {**dict(self.rows("raw.names")), customer: name}
        columns = {"customer": list(names), "name": list(names.values())}
        self.table("raw.names").overwrite(pa.table(columns, schema=NAMES))

    def shape(self, name: str) -> Shape:
        """Return what a process is, in the words of the naive implementation."""
        second = {source: f"raw.{source}" for source in self.setting.rules if source != "a"}
        fact = {"a": "mart.fact"}
        unit = self.setting.unit
        if name == "fact":
            return Shape(mode="append", drivers={"a": "raw.a"}, unit="hour", compute=naive.facts)
        if name == "totals":
            return Shape(mode="overwrite", drivers=fact | second, unit=unit, compute=naive.totals)
        if name == "balances":
            second.pop("c", None)
            return Shape(mode="stateful", drivers=fact | second, unit=unit, compute=naive.balances)
        if name == "customers":
            return Shape(mode="merge", drivers={"balances": "mart.balances"}, unit=None, compute=naive.customers)
        return Shape(mode="overwrite", drivers={"totals": "mart.totals"}, unit="day", compute=naive.days)

    def rule(self, table: str) -> Rule:
        return self.setting.rules[table[4:]] if table.startswith("raw.") else Rule(kind="published")

    def process(self, name: str, **policies: Any) -> Process:
        """Return a process as a new run sees it."""
        shape = self.shape(name)
        sources = {
            alias: IcebergSource(
                table, event_time="ts", complete_through=_declared(self.rule(table)), pin=self.setting.pinned
            )
            for alias, table in shape.drivers.items()
        }
        if name == "balances":
            policies |= {"state": "latest_by(customer)", "step": self.setting.step}
        elif name == "customers":
            policies["keys"] = ["customer"]
            sources["names"] = IcebergSource("raw.names", role="lookup")
        target = IcebergTarget(f"mart.{name}", event_time="ts" if shape.unit else None)
        transform: Any = self.customers if name == "customers" else _sql(name, list(shape.drivers))
        if name in self.runners:
            transform = self.runners[name](transform)
        return Process(
            spec=ProcessSpec(process=name, sources=sources, target=target, mode=shape.mode, **policies),
            catalog=self.catalog,
            owner=Owner(deployment="here", dag_id="dag", run_id=f"run{next(self._runs)}", task_id=name),
            transform=transform,
            run_is_over=lambda _owner: True,
        )

    def customers(self, relations: Mapping[str, Any], _plan: Any) -> pa.Table:
        """Merge balances by customer, and note whose rows were read."""
        groups: dict[str, list[int]] = {}
        for customer, balance in relations["balances"].select("customer, balance").fetchall():
            groups.setdefault(customer, []).append(balance)
        self._keys |= groups.keys()
        names = dict(relations["names"].fetchall())
        found = [(c, names.get(c), len(b), max(b)) for c, b in groups.items()]
        return _arrow(found, TARGETS["customers"])

    def run(self, name: str, *, adopts: Publish | None = None, **policies: Any) -> None:
        """Run a process, and compare what it did and what its table holds with the naive implementation.

        :param adopts: what the rows of a table without a watermark stand for, as ``policies`` say; else they are refused.
        """
        shape, before = self.shape(name), adopts or self.current[name]
        if before is None and name in self.taken and self.rows(f"mart.{name}"):
            refs = self.table(f"mart.{name}").metadata.refs
            with pytest.raises(TargetNotEmpty):
                steps.run(self.process(name))
            assert self.table(f"mart.{name}").metadata.refs == refs
            return
        reads = {alias: self._read(table) for alias, table in shape.drivers.items()}
        heads = {a: self.table(t).metadata.current_snapshot_id for a, t in shape.drivers.items()}
        names: dict[str, str] = dict(self.rows("raw.names")) if name == "customers" else {}
        expected = naive.run(shape, reads, names, before.memory if before else None)
        self._keys.clear()
        try:
            finished = steps.run(self.process(name, **policies))
        except WatermarkLost:
            assert before is not None
            assert self._may_lose(name, before), "nothing was lost"
            assert not self.setting.pinned or name in self.undone or shape.mode == "append", "it was pinned"
            finished = steps.run(self.process(name, on_lost_watermark="reload"))
            expected = naive.reload(shape, reads, names)
        check_work(self.catalog, shape, before, expected, finished, heads=heads, keys=self._keys)
        # Nothing to do for the transform may still be something to publish: how far the sources are complete.
        last = finished.published
        if last is not None and (before is None or last.snapshot_id != before.snapshot_id):
            memory = expected.memory
            assert last.watermark.complete_through == memory.complete
            assert last.watermark.processed_through == memory.processed
            publish = Publish(snapshot_id=last.snapshot_id, memory=memory, heads=heads)
            self.publishes[name].append(publish)
            self.current[name] = publish
            self.taken.pop(name, None)
        assert self.rows(f"mart.{name}") == expected.memory.expected
        assert all(ref.startswith(OPEN_REFS) for ref in self.table(f"mart.{name}").metadata.refs)

    def check(self) -> None:
        """Compare every table with what its last publish should have left."""
        for name, stands in self.current.items():
            publish = stands or self.taken.get(name)
            assert self.rows(f"mart.{name}") == (publish.memory.expected if publish else [])

    def _read(self, table: str) -> naive.Read:
        found, rule, told = self.table(table), self.rule(table), None
        head = found.current_snapshot()
        if rule.kind == "published":
            upstream = self.current[table.removeprefix("mart.")]
            told = upstream.memory.complete if upstream else None
        elif rule.kind == "property" and PROPERTY in found.properties:
            told = dt.datetime.fromisoformat(found.properties[PROPERTY])
        elif rule.kind == "arrival" and head is not None:
            told = dt.datetime.fromtimestamp(head.timestamp_ms / 1000, dt.timezone.utc)
        return naive.Read(rows=self.rows(table), rule=rule, told=told)

    def _may_lose(self, name: str, before: Publish) -> bool:
        """Say whether the position of a process is gone: expired, or for ``append`` not to be told from a rewrite."""
        shape = self.shape(name)
        for alias, table in shape.drivers.items():
            found, base = self.table(table), before.heads[alias]
            if base is None:
                continue
            if found.snapshot_by_id(base) is None or (shape.mode == "append" and not _leads_to(found, base)):
                return True
        return not _leads_to(self.table(f"mart.{name}"), before.snapshot_id)


def _leads_to(table: Table, snapshot_id: int) -> bool:
    return any(s.snapshot_id == snapshot_id for s in lineage(table))


def events(rows: Iterable[Row]) -> pa.Table:
    """Return events as their sources take them."""
    return _arrow(rows, EVENTS)


def _arrow(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    columns: list[list[Any]] = [list(c) for c in zip(*rows, strict=True)] or [[] for _ in schema.names]
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)


def _declared(rule: Rule) -> CompleteThrough:
    if rule.kind == "property":
        return CompleteThrough.property(PROPERTY)
    return CompleteThrough(rule=rule.kind, lateness=rule.lateness.total_seconds())


def _sql(name: str, aliases: list[str]) -> str:
    events = "(" + " UNION ALL ".join(f"SELECT * FROM {alias}" for alias in aliases) + ")"
    if name == "fact":
        return "SELECT * FROM a"
    if name == "totals":
        return f"""
            SELECT date_trunc('hour', ts) AS ts, customer, count(*) AS n, sum(v)::BIGINT AS v FROM {events} GROUP BY ALL
        """
    if name == "balances":
        return f"""
            SELECT e.id, e.ts, e.customer,
                   (coalesce(s.balance, 0) + sum(e.v) OVER (PARTITION BY e.customer ORDER BY e.ts, e.id))::BIGINT AS balance
            FROM {events} e LEFT JOIN state s ON s.customer = e.customer
        """
    return f"SELECT date_trunc('day', ts) AS ts, sum(n)::BIGINT AS n, sum(v)::BIGINT AS v FROM {events} GROUP BY ALL"
