"""Any order of emits, subscriptions, looks, crashes, announcements, claims and cleanings, against a naive model in memory."""

from __future__ import annotations

import datetime as dt
import secrets
from collections import defaultdict
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Connection, Engine, event, select

from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signals import SignalDependency
from airflow_incremental.store.cleaning import clean
from airflow_incremental.store.matches import claim, mark_announced, unannounced
from airflow_incremental.store.schema import signal, signal_name
from airflow_incremental.store.subscriptions import advance, close_subscription, subscribe
from tests.integration.postgres import PostgresServer
from tests.support.signal_store import a_run, as_store, bare_store, put

NAMES = st.sampled_from(["a", "b"])
SHAPES = {
    "one": [{"name": "a", "match": {"n": {">=": 2}}}],
    "both": [{"name": "a"}, {"name": "b"}],
    "joined": [{"name": "a", "join": ["k"]}, {"name": "b", "join": ["k"], "match": {"n": {"in": [1, 2, 3]}}}],
    "twice": [{"name": "a"}, {"name": "a", "match": {"k": "x"}}],
}
Place = tuple[int, ...]


class _Crash(Exception):
    """A process that ends before its transaction does."""


class _Model:
    """What one subscription has to find: signals as lists, everything computed anew each time."""

    def __init__(self, shape: str, starts: dict[str, int]) -> None:
        self.dependencies = [SignalDependency.read(plain) for plain in SHAPES[shape]]
        self.starts = starts

    def matches(self, emitted: dict[str, list[dict[str, object]]]) -> set[Place]:
        lanes: dict[tuple[str, ...], list[list[int]]] = defaultdict(lambda: [[] for _ in self.dependencies])
        for i, dependency in enumerate(self.dependencies):
            for seq, params in enumerate(emitted[dependency.name], start=1):
                if seq > self.starts[dependency.name] and dependency.matches(params):  # type: ignore[arg-type]
                    lanes[dependency.join_value(params)][i].append(seq)  # type: ignore[arg-type]
        return {pair for lane in lanes.values() for pair in zip(*lane, strict=False)}


class Signals(RuleBasedStateMachine):
    """The store of one deployment, its emitters, its triggerers and its runs."""

    make_engine: Callable[[], Engine] = staticmethod(bare_store)

    def __init__(self) -> None:
        super().__init__()
        self.engine = self.make_engine()
        self.emitted: dict[str, list[dict[str, object]]] = {"a": [], "b": []}
        self.models: dict[str, _Model] = {}
        #: Of each subscription: what was announced, and which run has what.
        self.announced: dict[str, set[Place]] = defaultdict(set)
        self.claimed: dict[str, dict[str, set[Place]]] = defaultdict(lambda: defaultdict(set))
        self.numbers = count()
        #: Signals, by name and seq, that were not cleaned away.
        self.known: set[tuple[str, int]] = set()

    def teardown(self) -> None:
        for shape in self.models:
            self.finish(shape)
        self.engine.dispose()

    def finish(self, shape: str) -> None:
        """After a last look, announcement and claim, all there is to find was found, announced and claimed once."""
        self.look(shape, None)
        self.announce(shape, "after")
        self.run_claims(shape, "last")
        wanted = self.models[shape].matches(self.emitted)
        found = [place for places in self.claimed[shape].values() for place in places]
        assert sorted(found) == sorted(wanted)
        assert self.announced[shape] == wanted

    @rule(name=NAMES, k=st.sampled_from("xy"), n=st.integers(0, 3), crash=st.booleans())
    def emit(self, name: str, k: str, n: int, crash: bool) -> None:
        params: dict[str, object] = {"k": k, "n": n}
        if crash:
            self._crash(lambda conn: put(conn, name, params), after=1)
            return
        with self.engine.begin() as conn:
            seq = put(conn, name, params)
        there = [i for i, had in enumerate(self.emitted[name], start=1) if had == params and (name, i) in self.known]
        if not there:
            self.emitted[name].append(params)
            there = [len(self.emitted[name])]
            self.known.add((name, there[0]))
        assert [seq] == there

    @rule(shape=st.sampled_from(sorted(SHAPES)))
    def subscribes(self, shape: str) -> None:
        with self.engine.begin() as conn:
            subscribe(conn, shape, SHAPES[shape])
        self.models.setdefault(shape, _Model(shape, {name: len(found) for name, found in self.emitted.items()}))

    @precondition(lambda self: self.models)
    @rule(data=st.data(), crash=st.none() | st.integers(1, 12))
    def looks(self, data: st.DataObject, crash: int | None) -> None:
        self.look(data.draw(st.sampled_from(sorted(self.models))), crash)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), how=st.sampled_from(["before", "after", "lost mark"]))
    def announces(self, data: st.DataObject, how: str) -> None:
        self.announce(data.draw(st.sampled_from(sorted(self.models))), how)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), run=st.sampled_from(["1", "2"]), limit=st.none() | st.integers(1, 3))
    def claims(self, data: st.DataObject, run: str, limit: int | None) -> None:
        self.run_claims(data.draw(st.sampled_from(sorted(self.models))), run, limit)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), statement=st.integers(1, 6))
    def claim_crashes(self, data: st.DataObject, statement: int) -> None:
        shape = data.draw(st.sampled_from(sorted(self.models)))
        self._crash(lambda conn: claim(conn, shape, a_run("crashed")), after=statement)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def closes(self, data: st.DataObject) -> None:
        shape = data.draw(st.sampled_from(sorted(self.models)))
        with self.engine.begin() as conn:
            close_subscription(conn, shape)
        for places in (self.models, self.announced, self.claimed):
            places.pop(shape, None)

    @rule()
    def cleans_signals(self) -> None:
        # All signals of these tests are old; matches stay, as runs may be retried.
        clean(as_store(self.engine), dt.datetime(2026, 1, 2, tzinfo=UTC))
        # The store forgets the identity of what went: the like of it is a new fact from now on.
        with self.engine.begin() as conn:
            rows = conn.execute(select(signal_name.c.name, signal.c.seq).join_from(signal, signal_name)).all()
        self.known = {(row.name, row.seq) for row in rows}
        for name, found in self.emitted.items():
            assert not found or (name, len(found)) in self.known, "the newest of each name stays"

    @invariant()
    def nothing_is_invented_or_claimed_twice(self) -> None:
        for shape, model in self.models.items():
            found = [place for places in self.claimed[shape].values() for place in places]
            assert len(found) == len(set(found))
            assert {*found, *self.announced[shape]} <= model.matches(self.emitted)

    def look(self, shape: str, crash: int | None) -> None:
        if crash is not None:
            self._crash(lambda conn: advance(conn, shape), after=crash)
            return
        with self.engine.begin() as conn:
            advance(conn, shape)
        with self.engine.begin() as conn:  # the other triggerer
            assert advance(conn, shape) == 0

    def announce(self, shape: str, how: str) -> None:
        with self.engine.begin() as conn:
            found = unannounced(conn, shape, 100)
        if how == "before":
            return
        self.announced[shape] |= {tuple(signal.seq for signal in m.signals) for m in found}
        if how == "after":
            with self.engine.begin() as conn:
                mark_announced(conn, [m.id for m in found])

    def run_claims(self, shape: str, run: str, limit: int | None = None) -> None:
        with self.engine.begin() as conn:
            found = claim(conn, shape, a_run(run, try_number=next(self.numbers)), limit=limit)
        places = {tuple(signal.seq for signal in m.signals) for m in found}
        assert places >= self.claimed[shape][run], "a retry gets what it had"
        self.claimed[shape][run] = places

    def _crash(self, work: Callable[[Connection], object], *, after: int) -> None:
        """Do something in a transaction that ends before one of its statements or, if it has fewer, before its commit."""
        left = count(after, -1)

        def stop(*_: object) -> None:
            if next(left) == 0:
                raise _Crash

        with pytest.raises(_Crash), self.engine.begin() as conn:  # noqa: PT012 (all of it may be where it ends)
            event.listen(conn, "before_cursor_execute", stop)
            work(conn)
            raise _Crash


class OnPostgreSQL(Signals):
    server: PostgresServer

    @staticmethod
    def make_engine() -> Engine:
        name = f"machine_{secrets.token_hex(6)}"
        return bare_store(OnPostgreSQL.server.create_database(name, driver="psycopg2"))


class TestOnSQLite(Signals.TestCase):
    settings = settings(max_examples=60, stateful_step_count=40)


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> None:
    """Let the machines that run on PostgreSQL know of the server."""
    OnPostgreSQL.server = postgres


@pytest.mark.usefixtures("server")
class TestOnPostgreSQL(OnPostgreSQL.TestCase):
    settings = settings(max_examples=10, stateful_step_count=30)
