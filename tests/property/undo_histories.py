"""What people do by hand to a chain between two ticks: undo, set a watermark back or take it away, end a session that is open."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import attrs
import pytest
from hypothesis import strategies as st
from pyiceberg.expressions import AlwaysTrue

from airflow_incremental.core.errors import ArgumentError, RollbackRefused, TargetNotEmpty, WatermarkLost
from airflow_incremental.core.plan import Plan
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.state import published, records
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import draft
from airflow_incremental.sessions.planner import plan as open_session
from airflow_incremental.sessions.process import Session
from airflow_incremental.sessions.undoing import undo
from airflow_incremental.sessions.watermarks import reset_watermark, set_watermark
from tests.property.chain_histories import Compact, Complete, Expire, Land, Tick, everything, histories
from tests.support.by_hand import ACT
from tests.support.chain import PROCESSES, Chain, Publish
from tests.support.naive import event_time


@attrs.frozen
class Undo:
    """A table of the chain goes back to before one of the last sessions of its process."""

    nth: int
    sessions: int

    def do(self, chain: Chain) -> None:
        name = PROCESSES[self.nth % len(PROCESSES)]
        table = chain.table(f"mart.{name}")
        known = {p.snapshot_id: p for p in chain.publishes[name]}
        standing = [r for r in records(main_lineage(table), name) if r.undone_by is None]
        if not standing:
            return
        first = standing[min(self.sessions, len(standing) - 1)]
        parent = table.snapshot_by_id(first.snapshot.parent_snapshot_id or -1)
        try:
            done = undo(chain.catalog, f"mart.{name}", None, first.session, act=ACT)
        except RollbackRefused as error:
            why = error.found
        else:
            why = None
        if why is not None:
            assert "expired" in why or ("another writer" in why and name in chain.emptied), (
                "else nobody writes to these tables"
            )
            return
        assert parent is not None
        assert done.record is not None
        at = {r.session: r.snapshot.snapshot_id for r in records(main_lineage(table), name)}
        before = None if done.watermark is None else known[at[done.back_to or ""]]
        chain.current[name] = None if before is None else attrs.evolve(before, snapshot_id=done.record.snapshot_id)
        chain.taken.pop(name, None)
        if done.back_to in chain.resets:
            chain.taken[name] = chain.resets[done.back_to]
        _keep(chain, name)
        chain.undone.add(name)
        chain.check()


@attrs.frozen
class SetBack:
    """The watermark of a process that replaces rows is set back to where it was some publishes ago."""

    nth: int
    publishes: int

    def do(self, chain: Chain) -> None:
        name = PROCESSES[1 + self.nth % (len(PROCESSES) - 1)]
        now, earlier = chain.current[name], chain.publishes[name]
        if now is None:
            if name in chain.taken:
                with pytest.raises(ArgumentError, match="has no watermark on"):
                    set_watermark(chain.catalog, f"mart.{name}", None, {}, act=ACT)
            return
        old = earlier[-min(self.publishes + 1, len(earlier))]
        positions, heads, rows = {}, dict(now.heads), dict(now.memory.rows)
        for alias, table in chain.shape(name).drivers.items():
            at = old.heads[alias]
            lineage = [s.snapshot_id for s in main_lineage(chain.table(table))]
            # Not further on than it is, and nothing that is gone.
            if (
                at in lineage
                and now.heads[alias] in lineage
                and lineage.index(at) >= lineage.index(now.heads[alias] or 0)
            ):
                positions[alias] = str(at)
                heads[alias], rows[alias] = at, old.memory.rows[alias]
        try:
            if positions:
                set_watermark(chain.catalog, f"mart.{name}", None, positions, act=ACT)
        except WatermarkLost:
            return
        found = published(chain.table(f"mart.{name}"), name)
        assert found is not None
        memory = attrs.evolve(now.memory, rows=rows)
        chain.current[name] = Publish(snapshot_id=found.snapshot_id, memory=memory, heads=heads)
        _keep(chain, name)
        chain.undone.add(name)
        chain.check()


@attrs.frozen
class Abandon:
    """A session of a process gets as far as its seal, and is ended by a person."""

    nth: int

    def do(self, chain: Chain) -> None:
        name = PROCESSES[self.nth % len(PROCESSES)]
        process = chain.process(name)
        try:
            drafted = draft(process, chain.table(f"mart.{name}"))
        except (WatermarkLost, KeyError):
            return
        except TargetNotEmpty:
            assert name in chain.taken
            return
        if not isinstance(drafted, Plan) or drafted.kind == "positions":
            return
        session = open_session(process)
        assert isinstance(session, Session)
        steps.load(session)
        assert steps.abandon(chain.catalog, f"mart.{name}", name, reason="history") == session.plan.session
        for ref in [r for r in chain.table(f"mart.{name}").metadata.refs if r.startswith("inc_failed_")]:
            with chain.table(f"mart.{name}").manage_snapshots() as refs:
                refs.remove_branch(ref)
        chain.check()


@attrs.frozen
class Reset:
    """The watermark of a process is taken away; no row changes, and whoever reads the table knows it as complete no more."""

    nth: int

    def do(self, chain: Chain) -> None:
        name = PROCESSES[self.nth % len(PROCESSES)]
        now = chain.current[name]
        if now is None:
            return
        done = reset_watermark(chain.catalog, f"mart.{name}", None, act=ACT)
        assert done.outcome == "done"
        chain.taken[name] = chain.resets[done.session or ""] = now
        chain.current[name] = None
        chain.check()


@attrs.frozen
class Decide:
    """Of a table without a watermark the rows are adopted, or deleted, or the reset is undone."""

    nth: int
    way: Literal["adopt", "empty", "undo"]

    def do(self, chain: Chain) -> None:
        name = PROCESSES[self.nth % len(PROCESSES)]
        if name not in chain.taken:
            return
        at = _consumed_at(chain, name, chain.taken[name])
        if self.way == "undo":
            Undo(self.nth, 0).do(chain)
        elif self.way == "adopt" and at is not None and chain.shape(name).mode != "stateful":
            memory = chain.taken[name].memory
            # What a deleted row said of how far a source is complete is forgotten.
            latest = {alias: max(map(event_time, rows)) for alias, rows in memory.rows.items() if rows}
            adopts = attrs.evolve(chain.taken[name], memory=attrs.evolve(memory, latest=latest))
            chain.run(name, adopts=adopts, initial={"adopt": at})
        if name in chain.taken:
            chain.table(f"mart.{name}").delete(AlwaysTrue())
            chain.emptied.add(name)
            del chain.taken[name]
        chain.check()


def _consumed_at(chain: Chain, name: str, publish: Publish) -> dt.datetime | None:
    """Return a time that names what a publish had consumed of all drivers, if there is one."""
    tables = {alias: chain.table(table) for alias, table in chain.shape(name).drivers.items()}
    heads = [t.snapshot_by_id(publish.heads[alias] or -1) for alias, t in tables.items()]
    if None in heads:
        return None
    at = max(s.timestamp_ms for s in heads if s is not None)
    for alias, table in tables.items():
        last = next((s.snapshot_id for s in main_lineage(table) if s.timestamp_ms <= at), None)
        if last != publish.heads[alias]:
            return None
    return dt.datetime.fromtimestamp(at / 1000, dt.timezone.utc)


def _keep(chain: Chain, name: str) -> None:
    """Let the chain know the publish that stands now, for what goes back to it later."""
    now = chain.current[name]
    if now is not None:
        chain.publishes[name].append(now)


_ways = st.sampled_from(["adopt", "empty", "undo"])
_acts: st.SearchStrategy[Any] = st.one_of(
    st.builds(Undo, st.integers(0, 4), st.integers(0, 2)),
    st.builds(Undo, st.integers(0, 4), st.just(0)),
    st.builds(SetBack, st.integers(0, 3), st.integers(0, 3)),
    st.builds(Abandon, st.integers(0, 4)),
    st.builds(Reset, st.integers(0, 4)),
    st.builds(Reset, st.integers(0, 4)),
    st.builds(Decide, st.integers(0, 4), _ways),
)


@st.composite
def undo_histories(draw: st.DrawFn) -> list[Any]:
    """Return a history of a chain with acts of people at random places."""
    actions = list(draw(histories))
    for act in draw(st.lists(_acts, min_size=1, max_size=5)):
        actions.insert(draw(st.integers(0, len(actions))), act)
    # In the end somebody has decided about each.
    return [*actions, *(Decide(nth, draw(_ways)) for nth in range(len(PROCESSES)))]


#: All acts on all processes, before and after compaction and expiry, whatever Hypothesis draws.
all_acts: list[Any] = [
    *everything[: everything.index(Tick()) + 1],
    *(Land(0, (0, 5), "y", 1), Land(1, (1, 7), "z", 1), Complete(0, 0), Tick()),
    *(Undo(nth, 0) for nth in range(5)),
    Tick(),
    *(Land(0, (2, 9), "x", 1), Complete(1, 0), Tick(("fact", "totals"))),
    *(Undo(0, 0), Tick()),
    *(SetBack(nth, 2) for nth in range(4)),
    *(Land(0, (4,), "z", 1), *(Abandon(nth) for nth in range(5)), Tick()),
    *(*(Reset(nth) for nth in range(5)), Tick(), Land(0, (0, 3), "y", 1), Land(1, (2,), "x", 0), Tick(), Compact(5)),
    *(*(SetBack(0, 1), Undo(3, 0), Undo(4, 1)), *(Decide(nth, "adopt") for nth in range(5)), Tick()),
    *(*(Reset(nth) for nth in range(5)), Land(1, (4,), "z", 1), *(Abandon(nth) for nth in range(5))),
    *(*(Decide(nth, way) for nth, way in enumerate(("empty", "undo", "undo", "empty", "adopt"))), Tick()),
    *(Reset(0), Decide(0, "adopt"), Undo(0, 0), Tick(), Decide(0, "empty"), Tick()),
    *(*map(Compact, range(9)), Undo(0, 1), Undo(2, 1), Tick()),
    *(Undo(1, 9), Tick(("totals",)), Undo(1, 0), Undo(4, 9), Tick()),
    *(
        Land(1, (3,), "x", 0),
        Tick(),
        *(Expire(nth, 1) for nth in range(9)),
        *(Undo(nth, 0) for nth in range(5)),
        Tick(),
    ),
]
