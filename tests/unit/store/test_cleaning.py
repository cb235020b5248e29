from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, func, insert, select, update

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signals import Emitter, SignalDependency
from airflow_incremental.store.cleaning import clean
from airflow_incremental.store.database import Store
from airflow_incremental.store.matches import claim, mark_announced, unannounced
from airflow_incremental.store.schema import signal, signal_name, wait, wait_signal
from airflow_incremental.store.subscriptions import advance, close_subscription, subscribe
from airflow_incremental.store.waits import close_wait, open_wait, release, wait_id
from tests.support.signal_store import NOW, a_run, as_store, put
from tests.support.stores import TASK, say

#: The claims below happen by the clock, the signals long before.
LATER = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=1)


def _seqs(engine: Engine, name: str = "a") -> list[int]:
    with engine.begin() as conn:
        query = select(signal.c.seq).join(signal_name).where(signal_name.c.name == name).order_by(signal.c.seq)
        return list(conn.execute(query).scalars())


def _put(engine: Engine, *days: int) -> None:
    with engine.begin() as conn:
        for day in days:
            put(conn, "a", {"day": day})


def _add_wait(conn: Connection, id_: str, state: str, *, gives_up_at: dt.datetime | None = None) -> None:
    closed_at = None if state == "open" else NOW
    dependencies = [SignalDependency("a").to_json()]
    conn.execute(
        insert(wait).values(
            id=id_,
            dependencies=dependencies,
            state=state,
            opened_at=NOW,
            gives_up_at=gives_up_at,
            closed_at=closed_at,
        )
    )


def test_old_signals_go_but_not_the_newest_of_a_name(engine: Engine) -> None:
    _put(engine, 1, 2, 3)
    gone = clean(as_store(engine), LATER)
    assert (gone["signal"], gone["signal_param"]) == (2, 2)
    assert _seqs(engine) == [3]
    _put(engine, 4)
    assert _seqs(engine) == [3, 4]


def test_the_newest_signal_of_each_process_stays_so_that_it_is_not_announced_again(engine: Engine) -> None:
    session = Emitter(source="session")
    with engine.begin() as conn:
        for process, snapshot in (("p", 1), ("p", 2), ("q", 3), ("q", 4)):
            put(conn, "a", {"process": process, "snapshot_id": snapshot}, emitter=session)
        # Of others' signals only the name counts.
        put(conn, "a", {"process": "r", "snapshot_id": 5})
        put(conn, "a", {"process": "s", "snapshot_id": 6})
    clean(as_store(engine), LATER)
    assert _seqs(engine) == [2, 4, 6]


def test_what_is_not_older_stays(engine: Engine) -> None:
    _put(engine, 1, 2, 3)
    assert not any(clean(as_store(engine), NOW).values())
    assert _seqs(engine) == [1, 2, 3]


def test_a_dry_run_says_what_would_go_and_removes_nothing(engine: Engine) -> None:
    _put(engine, *range(600))
    would = clean(as_store(engine), LATER, dry_run=True)
    assert len(_seqs(engine)) == 600
    assert clean(as_store(engine), LATER) == would
    assert would["signal"] == 599


def test_signals_that_a_subscription_has_not_passed_or_holds_stay(engine: Engine) -> None:
    _put(engine, 1)
    with engine.begin() as conn:
        subscribe(conn, "s", [SignalDependency("a"), SignalDependency("b")])
    _put(engine, 2, 3)
    clean(as_store(engine), LATER)
    assert _seqs(engine) == [2, 3]
    with engine.begin() as conn:
        advance(conn, "s")
    _put(engine, 4)
    clean(as_store(engine), LATER)
    assert _seqs(engine) == [2, 3, 4]
    with engine.begin() as conn:
        close_subscription(conn, "s")
    clean(as_store(engine), LATER)
    assert _seqs(engine) == [4]


def test_a_match_stays_until_it_is_claimed_and_announced(engine: Engine) -> None:
    with engine.begin() as conn:
        subscribe(conn, "s", [SignalDependency("a")])
    _put(engine, 1, 2)
    with engine.begin() as conn:
        advance(conn, "s")
    assert not any(clean(as_store(engine), LATER).values())
    with engine.begin() as conn:
        claim(conn, "s", a_run("one"))
    assert not any(clean(as_store(engine), LATER).values())
    with engine.begin() as conn:
        mark_announced(conn, [m.id for m in unannounced(conn, "s", 10)])
    gone = clean(as_store(engine), LATER)
    assert (gone["match"], gone["match_signal"], gone["signal"]) == (2, 2, 1)


def test_an_open_wait_keeps_all_signals_of_its_names(engine: Engine) -> None:
    _put(engine, 1, 2)
    with engine.begin() as conn:
        _add_wait(conn, "w", "open")
    assert not any(clean(as_store(engine), LATER).values())
    with engine.begin() as conn:
        conn.execute(update(wait).values(state="canceled", closed_at=NOW))
    assert clean(as_store(engine), LATER)["signal"] == 1


def test_a_wait_whose_run_is_gone_keeps_nothing_once_its_time_is_over(engine: Engine) -> None:
    _put(engine, 1, 2)
    with engine.begin() as conn:
        _add_wait(conn, "w", "open", gives_up_at=NOW + dt.timedelta(days=7))
    assert not any(clean(as_store(engine), NOW + dt.timedelta(days=7)).values())
    gone = clean(as_store(engine), NOW + dt.timedelta(days=8))
    assert (gone["wait"], gone["signal"]) == (1, 1)


def test_what_released_a_wait_goes_with_it(engine: Engine) -> None:
    _put(engine, 1, 2)
    with engine.begin() as conn:
        _add_wait(conn, "w", "released")
        name_id = conn.execute(select(signal_name.c.id)).scalar_one()
        conn.execute(insert(wait_signal).values(wait_id="w", position=0, name_id=name_id, seq=1))
    assert clean(as_store(engine), NOW + dt.timedelta(days=1)) == {
        "wait": 1, "wait_signal": 1, "match": 0, "match_signal": 0, "signal": 1, "signal_param": 1,
    }  # fmt: skip
    with engine.begin() as conn:
        assert conn.execute(select(func.count()).select_from(wait)).scalar_one() == 0


def test_a_time_without_zone_is_refused(engine: Engine) -> None:
    with pytest.raises(ArgumentError, match="without zone"):
        clean(as_store(engine), dt.datetime(2026, 1, 1))  # noqa: DTZ001


def test_cleaning_beside_releases_fails_neither(store: Store) -> None:
    """A signal goes just when it releases a step, or releases a step just when it goes."""
    stop = threading.Event()

    def clean_on() -> int:
        gone = 0
        while not stop.is_set():
            gone += clean(store, LATER)["signal"]
        return gone

    states = Counter[str]()
    with ThreadPoolExecutor(1) as pool:
        cleaning = pool.submit(clean_on)
        try:
            for n in range(60):
                found, _ = say(store, "a", n=n).signal, say(store, "a", n=-1 - n)
                identity = wait_id(TASK, max_tries=n)
                open_wait(store, identity, [SignalDependency("a")], TASK, timeout=dt.timedelta(days=1))
                state = release(store, identity, [found]).state
                if state == "open":
                    close_wait(store, identity, "timed_out")
                states[state] += 1
        finally:
            stop.set()
        assert cleaning.result() > 0
    assert set(states) <= {"released", "open"}
