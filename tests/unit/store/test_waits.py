from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import attrs
import pytest

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signals import read_dependencies
from airflow_incremental.store.database import Store
from airflow_incremental.store.searching import since
from airflow_incremental.store.waits import (
    BYPASS,
    bypass,
    close_wait,
    find_wait,
    find_waits,
    open_wait,
    release,
    signals_of_wait,
    wait_id,
)
from tests.support.stores import TASK, say

WANTED = read_dependencies([{"name": "a"}, {"name": "b"}])
ID = wait_id(TASK, max_tries=0)
WEEK = dt.timedelta(days=7)


def test_tries_share_a_wait_and_clears_do_not() -> None:
    assert wait_id(attrs.evolve(TASK, try_number=2, source="x"), max_tries=0) == ID
    others = {
        wait_id(TASK, max_tries=1),
        wait_id(attrs.evolve(TASK, map_index=1), max_tries=0),
        wait_id(attrs.evolve(TASK, run_id="other"), max_tries=0),
        wait_id(attrs.evolve(TASK, deployment="other"), max_tries=0),
    }
    assert len(others | {ID}) == 5


def test_a_wait_is_released_once_and_keeps_what_released_it(store: Store) -> None:
    assert open_wait(store, ID, WANTED, TASK, timeout=WEEK).state == "open"
    first = [say(store, "a", n=1).signal, say(store, "b", n=1).signal]
    other = [say(store, "a", n=2).signal, say(store, "b", n=2).signal]

    assert release(store, ID, first).state == "released"
    assert release(store, ID, other).state == "released"
    assert open_wait(store, ID, WANTED, TASK, timeout=WEEK).state == "released", "a later try finds it"
    with store.read() as conn:
        assert signals_of_wait(conn, ID) == first
        (found,) = find_waits(conn, dag_id="dag", run_id="run", task_id="task")
    assert (found.task, found.state) == (attrs.evolve(TASK, source="task"), "released")
    assert close_wait(store, ID, "timed_out").state == "released"


def test_one_of_a_clear_before_is_over(store: Store) -> None:
    again, other = wait_id(TASK, max_tries=1), wait_id(attrs.evolve(TASK, map_index=1), max_tries=0)
    open_wait(store, ID, WANTED, TASK, timeout=WEEK)
    open_wait(store, other, WANTED, attrs.evolve(TASK, map_index=1), timeout=WEEK)
    open_wait(store, again, WANTED, attrs.evolve(TASK, try_number=3), timeout=WEEK)
    with store.read() as conn:
        assert {found.id: found.state for found in find_waits(conn)} == {
            ID: "canceled",
            other: "open",
            again: "open",
        }


def test_a_signal_that_was_cleaned_away_releases_nothing(store: Store) -> None:
    found = say(store, "a").signal
    open_wait(store, ID, WANTED[:1], TASK, timeout=WEEK)
    gone = attrs.evolve(found, seq=found.seq + 1)
    assert release(store, ID, [gone]).state == "open"
    assert release(store, ID, [found]).state == "released"


def test_a_time_beyond_all_times_is_as_long_as_there_are_times(store: Store) -> None:
    found = open_wait(store, ID, WANTED, TASK, timeout=dt.timedelta.max)
    assert found.gives_up_at is not None
    assert found.gives_up_at.year == 9999


def test_one_that_was_given_up_is_opened_again(store: Store) -> None:
    open_wait(store, ID, WANTED, TASK, timeout=WEEK)
    assert close_wait(store, ID, "timed_out").state == "timed_out"
    assert open_wait(store, ID, WANTED[:1], TASK, timeout=WEEK).state == "open"
    with store.read() as conn:
        (found,) = find_waits(conn, state="open")
    assert found.dependencies == [WANTED[0].to_json()]


def test_a_bypass_is_kept_with_who_and_why_and_pollers_hear_of_it(store: Store) -> None:
    open_wait(store, ID, WANTED, TASK, timeout=WEEK)

    found = bypass(store, ID, by="anna", reason="the source is late, and we know")

    assert (found.state, found.closed_by, found.reason) == ("bypassed", "anna", "the source is late, and we know")
    with store.read() as conn:
        (said,) = since(conn, {BYPASS: 0}, limit=10)
        assert signals_of_wait(conn, ID) == []
    assert said.params == {"wait": ID}
    assert release(store, ID, []).state == "bypassed"
    assert bypass(store, ID, by="anna", reason="the source is late, and we know") == found, "an answer that was lost"
    with pytest.raises(ArgumentError, match="is bypassed"):
        bypass(store, ID, by="anna", reason="again")


def test_a_bypass_says_who_and_why_and_of_what(store: Store) -> None:
    with pytest.raises(ArgumentError, match="there is no wait nowhere"):
        bypass(store, "nowhere", by="anna", reason="why not")
    for by, reason in (
        ("anna", "what a terminal made of no text: \udcff"),
        ("anna", " "),
        ("", "why not"),
        ("anna" * 200, "why not"),
        ("anna", "why\0"),
        ("anna", "w" * 5000),
    ):
        with pytest.raises(ArgumentError, match=r"of a bypass is .*who does it, and why"):
            bypass(store, ID, by=by, reason=reason)


def test_of_many_who_end_a_wait_one_does(store: Store) -> None:
    """Whoever ends it, everybody hears the same of it, and a bypass is told to pollers only if it was one."""
    signals = [say(store, "a").signal, say(store, "b").signal]

    def end(how: int) -> str:
        if how == 2:
            with suppress(ArgumentError):  # that it is over
                bypass(store, identity, by="anna", reason="why not")
            with store.read() as conn:
                return find_wait(conn, identity).state
        return (release(store, identity, signals) if how == 0 else close_wait(store, identity, "timed_out")).state

    bypassed = 0
    with ThreadPoolExecutor(3) as pool:
        for clear in range(15):
            identity = wait_id(TASK, max_tries=clear)
            open_wait(store, identity, WANTED, TASK, timeout=WEEK)
            (state,) = set(pool.map(end, [clear % 3, (clear + 1) % 3, (clear + 2) % 3]))
            with store.read() as conn:
                assert find_wait(conn, identity).state == state
                assert len(signals_of_wait(conn, identity)) == (2 if state == "released" else 0)
            bypassed += state == "bypassed"
    with store.read() as conn:
        assert len(since(conn, {BYPASS: 0}, limit=100)) == bypassed
