"""The example of Psyberg's own description, tick by tick: which hours each table reads and writes, and why hour 7 has to wait.

Signups and plan changes are appended; cancels depend on the order of events; the account dimension depends on all three, which
are themselves catching up.
"""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path

import attrs
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from airflow_incremental.core.plan import Owner
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.core.watermark import Watermark
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Process
from tests.support.tables import live_entries
from tests.support.world import create, new_catalog

DAY = dt.datetime(2023, 9, 14, tzinfo=UTC)
ROWS = pa.schema([("ts", pa.timestamp("us", "UTC")), ("account", pa.int64()), ("what", pa.string())])
STATES = pa.schema(
    [("ts", pa.timestamp("us", "UTC")), ("account", pa.int64()), ("what", pa.string()), ("events", pa.int64())]
)
FACTS = {"signups": "append", "plans": "append", "cancels": "stateful"}
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
    """Three raw sources, three facts and the dimension over them."""

    home: Path
    _run: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    _account: itertools.count[int] = attrs.field(factory=itertools.count)

    @property
    def catalog(self) -> Catalog:
        return new_catalog(self.home)

    def set_up(self) -> Membership:
        catalog = self.catalog
        for name, mode in FACTS.items():
            create(catalog, f"raw.{name}", ROWS, ())
            create(catalog, f"mart.{name}", ROWS if mode == "append" else STATES, [("hour", "ts")])
        create(catalog, "mart.accounts", STATES, [("hour", "ts")])
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

    def process(self, name: str) -> Process:
        if name == "accounts":
            sources = {f: IcebergSource(f"mart.{f}", event_time="ts") for f in FACTS}
            events = " UNION ALL ".join(f"SELECT ts, account, what FROM {f}" for f in FACTS)
        else:
            sources = {
                "raw": IcebergSource(
                    f"raw.{name}", event_time="ts", complete_through={"rule": "property", "name": "complete"}
                )
            }
            events = "SELECT ts, account, what FROM raw"
        mode = FACTS.get(name, "stateful")
        stateful = {"state": "latest_by(account)"} if mode == "stateful" else {}
        return Process(
            spec=ProcessSpec(
                process=name,
                sources=sources,
                target=IcebergTarget(f"mart.{name}", event_time="ts"),
                mode=mode,  # type: ignore[arg-type]
                **stateful,  # type: ignore[arg-type]
            ),
            catalog=self.catalog,
            owner=Owner(deployment="here", dag_id="dag", run_id=f"run{next(self._run)}", task_id=name),
            transform=events if mode == "append" else COUNTED.format(events=events),
        )

    def tick(self, name: str) -> set[int]:
        """Run a process; return the hours it replaced, or added rows to."""
        finished = steps.run(self.process(name))
        self.verify(name)
        if finished.plan is None or finished.published is None:
            return set()
        if FACTS.get(name) != "append":
            return {n for n in range(24) if finished.plan.replaced.contains(hour(n))}
        table = self.catalog.load_table(f"mart.{name}")
        entries = live_entries(table, table.snapshot_by_id(finished.published.snapshot_id))
        epoch = dt.datetime(1970, 1, 1, tzinfo=UTC)
        added = [e.data_file for _, e in entries if e.snapshot_id == finished.published.snapshot_id]
        return {(epoch + dt.timedelta(hours=f.partition[0]) - DAY) // dt.timedelta(hours=1) for f in added}

    def watermark(self, name: str) -> Watermark:
        found = published(self.catalog.load_table(f"mart.{name}"), name)
        assert found is not None
        return found.watermark

    def verify(self, name: str) -> None:
        """Assert that a table is what its sources give from scratch, as far as it is processed."""
        target = self.catalog.load_table(f"mart.{name}")
        through = self.watermark(name).processed_through
        raw = FACTS if name == "accounts" else [name]
        rows = [r for f in raw for r in self.catalog.load_table(f"raw.{f}").scan().to_arrow().to_pylist()]
        counts: dict[int, int] = {}
        expected = []
        for row in sorted(rows, key=lambda r: (r["ts"], r["what"])):
            if through is None or row["ts"] < through:
                counts[row["account"]] = counts.get(row["account"], 0) + 1
                expected.append((*row.values(), *(() if FACTS.get(name) == "append" else (counts[row["account"]],))))
        assert sorted(tuple(r.values()) for r in target.scan().to_arrow().to_pylist()) == sorted(expected)


@pytest.fixture
def membership(tmp_path: Path) -> Membership:
    """Everything is loaded through hour 5."""
    world = Membership(home=tmp_path).set_up()
    for name in FACTS:
        world.land(name, 0, 1, 2, 3, 4, 5, complete=5)
        world.tick(name)
    world.tick("accounts")
    assert {world.watermark(n).complete_through for n in (*FACTS, "accounts")} == {hour(6)}
    assert world.watermark("accounts").processed_through == hour(6)
    return world


def test_the_golden_example(membership: Membership) -> None:
    for name in ("signups", "plans"):
        membership.land(name, 2, 3, 6, complete=6)
        assert membership.tick(name) == {2, 3, 6}, "late rows land in the old hours they belong to"
    membership.land("cancels", 5, 6, 7, complete=7)
    assert membership.tick("cancels") == {5, 6, 7}, "everything from the late hour on is replaced"
    assert membership.tick("accounts") == {2, 3, 4, 5, 6}, "hour 7 is not complete in signups and plans"
    assert membership.watermark("accounts").complete_through == hour(7)
    assert membership.tick("accounts") == set()

    membership.land("signups", complete=7)
    membership.land("plans", complete=7)
    assert membership.tick("signups") == membership.tick("plans") == set(), "only complete-through moved"
    assert membership.watermark("signups").complete_through == hour(8)
    assert membership.tick("accounts") == {7}, "processed when it completes, without a row of signups or plans in it"
    assert membership.watermark("accounts").processed_through == hour(8)


def test_late_signups_that_page_nobody(membership: Membership) -> None:
    """Psyberg part 1: signups of hour 3 arrive at hour 6. By hand: find them, stop downstream, rerun 3 to 6 in order, catch up."""
    membership.land("signups", 3, 3, 6, complete=6)
    membership.land("plans", 6, complete=6)
    membership.land("cancels", 6, complete=6)
    assert membership.tick("signups") == {3, 6}
    assert membership.tick("plans") == {6}
    assert membership.tick("cancels") == {6}
    assert membership.tick("accounts") == {3, 4, 5, 6}
    assert membership.watermark("accounts").processed_through == hour(7)
