"""Tables that are loaded from tables that are loaded themselves: after every run each equals what its sources give from scratch.

Two raw sources of unequal completeness; a fact that appends one of them; hourly totals over the fact and the other source; and
balances, which depend on the order of all events. The oracle is written in plain Python and knows nothing of the package.
"""

from __future__ import annotations

import datetime as dt
import itertools
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.core.plan import Owner
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.iceberg.state import process_of, published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Finished, Process
from tests.support.tables import compact, roll_back
from tests.support.world import create, hour, new_catalog

EVENTS = pa.schema(
    [("id", pa.int64()), ("ts", pa.timestamp("us", "UTC")), ("customer", pa.string()), ("v", pa.int64())]
)
TOTALS = pa.schema([("ts", pa.timestamp("us", "UTC")), ("customer", pa.string()), ("n", pa.int64()), ("v", pa.int64())])
BALANCES = pa.schema(
    [("id", pa.int64()), ("ts", pa.timestamp("us", "UTC")), ("customer", pa.string()), ("balance", pa.int64())]
)
BOTH = "(SELECT id, ts, customer, v FROM a UNION ALL SELECT id, ts, customer, v FROM b)"
SQL = {
    "fact": "SELECT * FROM a",
    "totals": f"""
        SELECT date_trunc('hour', ts) AS ts, customer, count(*) AS n, sum(v)::BIGINT AS v FROM {BOTH} GROUP BY ALL
    """,
    "balances": f"""
        SELECT e.id, e.ts, e.customer,
               (coalesce(s.balance, 0) + sum(e.v) OVER (PARTITION BY e.customer ORDER BY e.ts, e.id))::BIGINT AS balance
        FROM {BOTH} e LEFT JOIN state s ON s.customer = e.customer
    """,
}
Row = tuple[Any, ...]
slow = settings(
    max_examples=settings().max_examples * 3 // 10, suppress_health_check=[HealthCheck.too_slow], deadline=None
)


@attrs.define
class Chain:
    """The tables and processes, the processes' runs, and what every table should hold."""

    home: Path
    step: str | None
    unit: str
    #: Up to where balances have been computed, by the rule in words: as far as both sources were ever complete.
    processed: dt.datetime | None = None
    _ids: itertools.count[int] = attrs.field(factory=itertools.count)
    _runs: itertools.count[int] = attrs.field(factory=itertools.count)

    @property
    def catalog(self) -> Catalog:
        return new_catalog(self.home)

    def table(self, name: str) -> Table:
        return self.catalog.load_table(name)

    def rows(self, name: str) -> list[Row]:
        return [tuple(r.values()) for r in self.table(name).scan().to_arrow().to_pylist()]

    def set_up(self) -> Chain:
        for name in ("raw.a", "raw.b"):
            create(self.catalog, name, EVENTS, ())
        for name, schema in (("fact", EVENTS), ("totals", TOTALS), ("balances", BALANCES)):
            create(self.catalog, f"mart.{name}", schema, [("hour" if name == "fact" else self.unit, "ts")])
        return self

    def land(self, source: str, hours: Iterable[int], customer: str) -> None:
        rows = [(i := next(self._ids), hour(h) + dt.timedelta(minutes=i % 60), customer, i * 7 % 11) for h in hours]
        columns = dict(zip(EVENTS.names, map(list, zip(*rows, strict=True)), strict=True))
        self.table(source).append(pa.table(columns, schema=EVENTS))

    def process(self, name: str) -> Process:
        drivers = {"a": "raw.a" if name == "fact" else "mart.fact"} | ({} if name == "fact" else {"b": "raw.b"})
        sources = {
            alias: IcebergSource(
                table, event_time="ts", complete_through="latest_event" if table.startswith("raw.") else "published"
            )
            for alias, table in drivers.items()
        }
        more: dict[str, Any] = {"state": "latest_by(customer)", "step": self.step} if name == "balances" else {}
        mode: Any = {"fact": "append", "totals": "overwrite", "balances": "stateful"}[name]
        target = IcebergTarget(f"mart.{name}", event_time="ts")
        return Process(
            spec=ProcessSpec(process=name, sources=sources, target=target, mode=mode, **more),
            catalog=self.catalog,
            owner=Owner(deployment="here", dag_id="dag", run_id=f"run{next(self._runs)}", task_id=name),
            transform=SQL[name],
            run_is_over=lambda _owner: True,
        )

    def run(self, name: str) -> Finished:
        """Run a process, and compare its table with what its sources give from scratch."""
        finished = steps.run(self.process(name))
        if name == "fact":
            expected = self.rows("raw.a")
        else:
            events = sorted((*self.rows("mart.fact"), *self.rows("raw.b")), key=lambda r: (r[1], r[0]))
            expected = totals(events) if name == "totals" else self.balances(events)
        assert sorted(self.rows(f"mart.{name}")) == sorted(expected)
        return finished

    def balances(self, events: list[Row]) -> list[Row]:
        """Return the balances up to where both sources were complete, once they were."""
        fact = published(self.table("mart.fact"), "fact")
        complete = [
            None if fact is None else fact.watermark.complete_through,
            max((floor(r[1], "hour") for r in self.seen_of_b()), default=None),
        ]
        if None not in complete:
            through = floor(min(c for c in complete if c is not None), self.unit)
            # Nothing is computed before the first event that is complete.
            if self.processed is not None or any(r[1] < through for r in events):
                self.processed = max(through, self.processed or through)
        held: dict[str, int] = {}
        found = []
        for i, ts, customer, v in events:
            if self.processed is not None and ts < self.processed:
                held[customer] = held.get(customer, 0) + v
                found.append((i, ts, customer, held[customer]))
        return found

    def seen_of_b(self) -> list[Row]:
        """The latest event of ``b`` that was ever seen counts, also when it was deleted since."""
        last = published(self.table("mart.balances"), "balances")
        seen = None if last is None else last.watermark.positions["b"].latest_event
        return self.rows("raw.b") + ([(0, seen)] if seen is not None else [])


def floor(moment: dt.datetime, unit: str) -> dt.datetime:
    whole = moment.replace(minute=0, second=0, microsecond=0)
    return whole if unit == "hour" else whole.replace(hour=0)


def totals(events: list[Row]) -> list[Row]:
    groups: dict[tuple[dt.datetime, str], list[int]] = {}
    for _, ts, customer, v in events:
        groups.setdefault((floor(ts, "hour"), customer), []).append(v)
    return [(ts, customer, len(vs), sum(vs)) for (ts, customer), vs in groups.items()]


@attrs.frozen
class Land:
    source: str
    hours: tuple[int, ...]
    customer: str

    def do(self, chain: Chain) -> None:
        chain.land(self.source, self.hours, self.customer)


@attrs.frozen
class Compact:
    table: str

    def do(self, chain: Chain) -> None:
        if chain.table(self.table).current_snapshot() is not None:
            compact(chain.table(self.table))


@attrs.frozen
class Delete:
    """Rows of an hour leave the source that is not appended."""

    hour: int

    def do(self, chain: Chain) -> None:
        if chain.table("raw.b").current_snapshot() is not None:
            after, before = hour(self.hour).isoformat(), hour(self.hour + 1).isoformat()
            chain.table("raw.b").delete(f"ts >= '{after}' and ts < '{before}'")


@attrs.frozen
class RollBack:
    """A table of the chain goes back to the publish before its last one."""

    name: str

    def do(self, chain: Chain) -> None:
        table = chain.table(f"mart.{self.name}")
        publishes = [s for s in table.metadata.snapshots if process_of(s) is not None]
        head = table.current_snapshot()
        if head is None or len(publishes) < 2 or publishes[-1].snapshot_id != head.snapshot_id:
            return
        if head.parent_snapshot_id == publishes[-2].snapshot_id:
            roll_back(table, publishes[-2].snapshot_id)
            if self.name == "balances":
                last = published(chain.table("mart.balances"), "balances")
                assert last is not None
                chain.processed = last.watermark.processed_through


@attrs.frozen
class Run:
    name: str

    def do(self, chain: Chain) -> None:
        chain.run(self.name)


NAMES = ("fact", "totals", "balances")
_land = st.builds(
    Land,
    st.sampled_from(["raw.a", "raw.b"]),
    st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple),
    st.sampled_from(["x", "y"]),
)
_run = st.builds(Run, st.sampled_from(NAMES))
_rest = st.one_of(
    st.builds(Compact, st.sampled_from(["raw.a", "raw.b", "mart.fact"])),
    st.builds(Delete, st.integers(0, 40)),
    st.builds(RollBack, st.sampled_from(["totals", "balances"])),
)


@slow
@given(
    st.lists(st.one_of(_land, _land, _run, _run, _rest), min_size=3, max_size=16),
    st.sampled_from([None, "hour"]),
    st.sampled_from(["hour", "day"]),
)
def test_three_hops(actions: list[Any], step: str | None, unit: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        chain = Chain(home=Path(home), step=step, unit=unit).set_up()
        for action in [*actions, *map(Run, NAMES)]:
            action.do(chain)
        for name in NAMES:
            assert not chain.run(name).did_publish, "all is done"
