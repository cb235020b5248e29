"""Emitters and triggerers in processes of their own: what they find together is what one alone would."""

from __future__ import annotations

import multiprocessing
import time
from collections import defaultdict
from typing import Any

import pytest
from sqlalchemy import select

from airflow_incremental.core.errors import StoreError
from airflow_incremental.core.signals import SignalDependency
from airflow_incremental.store.database import Store
from airflow_incremental.store.matches import claim
from airflow_incremental.store.schema import match, match_signal, signal, signal_name
from airflow_incremental.store.subscriptions import advance, subscribe
from tests.support.signal_store import a_run
from tests.support.stores import address, say

JOINED = [SignalDependency("a", join=("k",)), SignalDependency("b", join=("k",))]
EACH = 60


def emitter(url: str, number: int) -> None:
    """Emit signals of both names, in an order of its own, each fact by both emitters."""
    store = Store.open(url)
    for n in range(EACH):
        turn = n if number == 0 else EACH - 1 - n
        for name in ("a", "b")[:: 1 - 2 * number]:
            say(store, name, n=turn, k=turn % 5)
    store.close()


def triggerer(url: str, number: int, claimed: Any, over: Any) -> None:
    """Subscribe, look and claim, until there is nothing more to come; a transaction that lost a race is done again."""
    store = Store.open(url)
    mine: set[str] = set()
    last = False
    while not last:
        last = over.is_set()
        try:
            with store.write() as conn:
                subscribe(conn, "s", JOINED, start="earliest")
                advance(conn, "s")
            with store.write() as conn:
                mine |= {m.id for m in claim(conn, "s", a_run(str(number)))}
        except StoreError:
            last = False
        time.sleep(0.005)
    claimed.put(sorted(mine))
    store.close()


@pytest.mark.parametrize("round_", range(2))
def test_every_match_is_found_and_claimed_once(store: Store, round_: int) -> None:
    del round_
    store_url = address(store)
    context = multiprocessing.get_context("spawn")
    over, claimed = context.Event(), context.Queue()
    emitters = [context.Process(target=emitter, args=(store_url, n)) for n in range(2)]
    triggerers = [context.Process(target=triggerer, args=(store_url, n, claimed, over)) for n in range(2)]
    for process in (*emitters, *triggerers):
        process.start()
    for process in emitters:
        process.join(120)
        assert process.exitcode == 0
    over.set()
    by_run = [claimed.get(timeout=120) for _ in triggerers]
    for process in triggerers:
        process.join(60)
        assert process.exitcode == 0

    lanes: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    with store.read() as conn:
        rows = conn.execute(select(signal_name.c.name, signal.c.seq, signal.c.params).join_from(signal, signal_name))
        for row in sorted(rows, key=lambda row: row.seq):
            lanes[row.name][row.params["k"]].append(row.seq)
        parts = defaultdict(list)
        for row in conn.execute(select(match_signal).order_by(match_signal.c.position)):
            parts[row.match_id].append(row.seq)
        numbers = conn.execute(select(match.c.number).order_by(match.c.number)).scalars().all()
    wanted = sorted(pair for k in range(5) for pair in zip(lanes["a"][k], lanes["b"][k], strict=True))
    assert len(wanted) == EACH
    assert sorted(tuple(seqs) for seqs in parts.values()) == wanted
    assert list(numbers) == list(range(1, EACH + 1))
    assert sorted(one for ids in by_run for one in ids) == sorted(parts), "each by one run"
