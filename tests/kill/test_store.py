"""SIGKILL of the database, and of those who emit: what was acknowledged is there once, and so is what was tried again."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue

import pytest
from sqlalchemy import func, select

from airflow_incremental.core.errors import StoreError
from airflow_incremental.store import schema
from airflow_incremental.store.database import Store
from airflow_incremental.store.emitting import Emission, emit
from airflow_incremental.store.searching import newest, since
from tests.integration.postgres import PostgresServer, find_binaries
from tests.support.stores import TASK, address

NAMES = ("a", "b", "c")
EMITTERS, FACTS = 3, 150
SPAWN = multiprocessing.get_context("spawn")
Said = tuple[str, int]


def emit_all(url: str, turn: int, said: Queue[Said]) -> None:
    """Emit all facts, in an order of one's own, each until the store has it; tell of each that it has."""
    store = Store.open(url)
    facts = [(name, n) for n in range(FACTS) for name in NAMES]
    for name, n in facts[turn:] + facts[:turn]:
        emission = Emission.read(name, {"n": n}, request_id=f"fact {n}", emitter=TASK)
        while True:
            try:
                emit(store, emission)
                break
            except StoreError:  # that it did not come back within a try's patience
                time.sleep(0.1)
        said.put((name, n))
    store.close()


class Follower(threading.Thread):
    """Follows all names as a poller does, whatever happens to the database."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store, self.places = store, dict.fromkeys(NAMES, 0)
        self.seen: list[Said] = []
        self.over = threading.Event()

    def run(self) -> None:
        last = False
        while not last:
            last = self.over.is_set()
            try:
                with self.store.read() as conn:
                    found = since(conn, self.places, limit=10_000)
            except StoreError:
                last = False
                time.sleep(0.05)
                continue
            for each in found:
                assert each.seq == self.places[each.name] + 1
                self.places[each.name] = each.seq
                self.seen.append((each.name, int(str(each.params["n"]))))
            time.sleep(0.01)


def check(store: Store, acknowledged: set[Said]) -> None:
    """Each fact is there once, in order and without gaps, with its parameters."""
    with store.read() as conn:
        rows = since(conn, dict.fromkeys(NAMES, 0), limit=100_000)
        assert newest(conn, NAMES) == dict.fromkeys(NAMES, FACTS)
        params = conn.execute(select(func.count()).select_from(schema.signal_param)).scalar()
    assert [(row.name, row.seq) for row in rows] == [(name, seq + 1) for name in NAMES for seq in range(FACTS)]
    assert sorted((row.name, row.params["n"]) for row in rows) == [(name, n) for name in NAMES for n in range(FACTS)]
    assert params == len(rows)
    assert acknowledged == {(name, n) for name in NAMES for n in range(FACTS)}


def start(store: Store, count: int) -> tuple[Queue[Said], list[SpawnProcess]]:
    """Start processes that emit; what they tell has a queue of its own, whose lock one that is killed may keep."""
    said: Queue[Said] = SPAWN.Queue()
    emitters = [SPAWN.Process(target=emit_all, args=(address(store), 100 * turn, said)) for turn in range(count)]
    for emitter in emitters:
        emitter.start()
    return said, emitters


def heard(said: Queue[Said], count: int) -> set[Said]:
    """Wait until so many were acknowledged."""
    return {said.get(timeout=120) for _ in range(count)}


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of one's own, which may be killed."""
    binaries = find_binaries()
    assert binaries is not None
    with PostgresServer(binaries) as running:
        yield running


def test_a_database_killed_and_started_again_under_load_loses_and_doubles_nothing(server: PostgresServer) -> None:
    store = Store.open(server.create_database("signals", driver="psycopg2"))
    follower = Follower(store)
    follower.start()
    said, emitters = start(store, EMITTERS)

    acknowledged = heard(said, 100)
    for _ in range(2):
        server.kill()
        server.start_again()
        acknowledged |= heard(said, 100)
    acknowledged |= heard(said, EMITTERS * FACTS * len(NAMES) - 300)
    for emitter in emitters:
        emitter.join()
        assert emitter.exitcode == 0
    follower.over.set()
    follower.join()

    check(store, acknowledged)
    assert sorted(follower.seen) == sorted(acknowledged)
    assert len(follower.seen) == len(acknowledged)
    store.close()


def test_emitters_killed_and_started_again_lose_and_double_nothing(store: Store) -> None:
    for _ in range(2):
        said, emitters = start(store, 2)
        heard(said, 50)
        for emitter in emitters:
            emitter.kill()
            emitter.join()
            assert emitter.exitcode == -signal.SIGKILL
    said, emitters = start(store, 2)
    acknowledged = heard(said, 2 * FACTS * len(NAMES))
    for emitter in emitters:
        emitter.join()
        assert emitter.exitcode == 0
    check(store, acknowledged)
