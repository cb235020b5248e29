"""The shared poll: one query per interval for all who wait, nobody woken for nothing, nobody forgotten."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from airflow_incremental.core.errors import StoreError
from airflow_incremental.core.signals import SignalDependency, ge
from airflow_incremental.store.database import Store
from airflow_incremental.triggers import polling
from airflow_incremental.triggers.polling import Poller
from tests.support.stores import say

INTERVAL = 0.02


@contextmanager
def counting(store: Store) -> Iterator[list[str]]:
    """Record the statements that the store is asked."""
    asked: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(store.engine, "before_cursor_execute", note)
    yield asked
    event.remove(store.engine, "before_cursor_execute", note)


def on(name: str, **match: Any) -> SignalDependency:
    return SignalDependency.read({"name": name, "match": match})


async def fitted(one: polling.Waiting, timeout: float = 10) -> set[int]:
    return await asyncio.wait_for(one.fitted(), timeout)


async def sleeps(one: polling.Waiting, seconds: float = 8 * INTERVAL) -> bool:
    """Say whether nobody woke one for a few intervals."""
    try:
        await asyncio.wait_for(one.fitted(), seconds)
    except asyncio.TimeoutError:
        return True
    return False


def test_a_wait_is_woken_by_a_signal_that_fits_and_told_which_dependency_it_was(store: Store) -> None:
    async def scene() -> set[int]:
        with Poller.of(store).waiting([on("a"), on("b", hour=ge(6))], {}, interval=INTERVAL) as one:
            say(store, "b", hour=5)
            assert await sleeps(one)
            say(store, "b", hour=6)
            return await fitted(one)

    assert asyncio.run(scene()) == {1}


def test_signals_up_to_its_place_do_not_wake_a_wait(store: Store) -> None:
    say(store, "a", hour=1)
    say(store, "a", hour=2)

    async def scene() -> None:
        poller = Poller.of(store)
        with (
            poller.waiting([on("a")], {"a": 2}, interval=INTERVAL) as seen,
            poller.waiting([on("a")], {"a": 1}, interval=INTERVAL) as behind,
        ):
            assert await fitted(behind) == {0}
            assert await sleeps(seen)
            say(store, "a", hour=3)
            assert await fitted(seen) == await fitted(behind) == {0}

    asyncio.run(scene())


def test_a_wait_that_comes_later_with_an_older_place_is_caught_up_with(store: Store) -> None:
    async def scene() -> None:
        poller = Poller.of(store)
        with poller.waiting([on("a")], {}, interval=INTERVAL) as first:
            for hour in range(5):
                say(store, "a", hour=hour)
            await fitted(first)
            await asyncio.sleep(4 * INTERVAL)  # by now the poller is beyond all of them
            with poller.waiting([on("a", hour=3)], {"a": 2}, interval=INTERVAL) as late:
                assert await fitted(late) == {0}

    asyncio.run(scene())


def test_one_that_comes_while_a_query_runs_misses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    say(store, "a", hour=1)
    say(store, "a", hour=2)

    async def scene() -> set[int]:
        poller = Poller.of(store)
        loop = asyncio.get_running_loop()
        asked, go_on = asyncio.Event(), asyncio.Event()
        read = poller._read

        def slow(places: Any) -> Any:
            found = read(places)  # the second signal, for the first wait
            loop.call_soon_threadsafe(asked.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
            return found

        monkeypatch.setattr(poller, "_read", slow)
        with poller.waiting([on("a")], {"a": 1}, interval=INTERVAL):
            await asked.wait()
            with poller.waiting([on("a", hour=1)], {"a": 0}, interval=INTERVAL) as late:
                go_on.set()
                return await fitted(late)

    assert asyncio.run(scene()) == {0}


def test_more_signals_than_a_page_are_read_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "PAGE", 3)
    for hour in range(10):
        say(store, "ab"[hour % 2], hour=hour)

    async def scene() -> None:
        # The second look would be an hour later.
        with Poller.of(store).waiting([on("a", hour=8), on("b", hour=9)], {}, interval=3600) as one:
            found: set[int] = set()
            while found != {0, 1}:
                found |= await fitted(one)

    asyncio.run(scene())


def test_an_interval_of_nothing_asks_no_more_than_now_and_then(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "PAUSE", 0.1)

    async def scene() -> int:
        poller, looks = Poller.of(store), list[object]()
        read = poller._read
        monkeypatch.setattr(poller, "_read", lambda places: looks.append(places) or read(places))
        with poller.waiting([on("a")], {}, interval=0):
            await asyncio.sleep(0.5)
        return len(looks)

    assert 2 <= asyncio.run(scene()) <= 6


def test_a_poll_ends_with_the_last_wait_even_when_a_hint_comes_just_then(store: Store) -> None:
    async def scene() -> list[Any]:
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        poller = Poller.of(store)
        with poller.waiting([on("a")], {}, interval=3600):
            await asyncio.sleep(0.3)  # the first look is over
            poller._hurry.set()
            await asyncio.sleep(0)  # by now the hint is heard, and nobody has looked up yet
            await asyncio.sleep(0)
            (poll,) = (task for task in asyncio.all_tasks() if task is not asyncio.current_task())
        await asyncio.wait([poll], timeout=5)
        assert poll.done()
        if not poll.cancelled():
            assert poll.exception() is None
        return errors

    assert asyncio.run(scene()) == []


def queries_of(store: Store, waits: int, looks: int) -> Sequence[str]:
    """Return what a number of waits, for as many hours, ask the store until some looks are over."""

    async def scene() -> None:
        poller = Poller.of(store)
        done = asyncio.Event()
        left = looks
        look = poller._look

        async def counted() -> bool:
            nonlocal left
            left -= 1
            if left < 0:
                done.set()
                return False
            return await look()

        poller._look = counted  # type: ignore[method-assign]
        contexts = [poller.waiting([on("a", hour=n)], {}, interval=INTERVAL) for n in range(waits)]
        for context in contexts:
            context.__enter__()
        await asyncio.wait_for(done.wait(), 60)
        for context in contexts:
            context.__exit__(None, None, None)

    with counting(store) as asked:
        asyncio.run(scene())
    return asked


def test_a_thousand_waits_ask_no_more_than_ten(store: Store) -> None:
    few, many = queries_of(store, 10, looks=5), queries_of(store, 1000, looks=5)
    assert few == many
    assert sum("incremental_signal" in statement for statement in many) == 5


def test_an_outage_is_told_of_once_and_nothing_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=polling.__name__)

    async def scene() -> None:
        poller = Poller.of(store)
        is_down = True
        read = poller._read

        def flaky(places: Any) -> Any:
            if is_down:
                raise StoreError("the store is down")
            return read(places)

        monkeypatch.setattr(poller, "_read", flaky)
        with poller.waiting([on("a")], {}, interval=INTERVAL) as one:
            say(store, "a")
            assert await sleeps(one)
            assert poller.trouble == "the store is down."
            is_down = False
            assert await fitted(one) == {0}
            assert not poller.trouble

    asyncio.run(scene())
    assert [record.message for record in caplog.records] == [
        "could not look for new signals; looking again later: the store is down.",
        f"the store at {store.where} answers again",
    ]


def test_a_query_that_hangs_is_not_waited_for_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(polling, "PATIENCE", 0.2)
    hanging = threading.Event()

    async def scene() -> set[int]:
        poller = Poller.of(store)
        read, asked = poller._read, list[object]()

        def hangs_twice(places: Any) -> Any:
            asked.append(places)
            if len(asked) <= 2:
                hanging.wait(60)
            return read(places)

        monkeypatch.setattr(poller, "_read", hangs_twice)
        with poller.waiting([on("a")], {}, interval=INTERVAL) as one:
            say(store, "a")
            try:
                return await fitted(one)
            finally:
                hanging.set()

    assert asyncio.run(scene()) == {0}
    assert "has not answered for 0.2 seconds" in caplog.text


def test_an_error_that_nobody_expected_does_not_end_the_poll(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> set[int]:
        poller = Poller.of(store)
        read, errors = poller._read, [RuntimeError("what is this")]

        def broken_once(places: Any) -> Any:
            if errors:
                raise errors.pop()
            return read(places)

        monkeypatch.setattr(poller, "_read", broken_once)
        with poller.waiting([on("a")], {}, interval=INTERVAL) as one:
            say(store, "a")
            return await fitted(one)

    assert asyncio.run(scene()) == {0}


@pytest.mark.parametrize("hour", ["0001-01-01T00:00:00+14:00", ge("0001-01-01T00:00:00+14:00"), "soon"])
def test_a_wait_for_what_is_no_value_is_woken_and_stops_nobody(store: Store, hour: Any) -> None:
    async def scene() -> tuple[set[int], set[int]]:
        poller = Poller.of(store)
        with (
            poller.waiting(
                [on("a", hour=hour)], {}, interval=INTERVAL
            ) as wrong,  # of what kind an hour is nobody knows yet
            poller.waiting([on("b")], {}, interval=INTERVAL) as right,
        ):
            say(store, "a", hour=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc))
            say(store, "b")
            return await fitted(right), await fitted(wrong)

    assert asyncio.run(scene()) == ({0}, {0})


def test_a_shorter_interval_does_not_wait_for_the_end_of_a_longer_one(store: Store) -> None:
    async def scene() -> set[int]:
        poller = Poller.of(store)
        with poller.waiting([on("b")], {}, interval=3600):
            await asyncio.sleep(0.3)  # the first look is over
            with poller.waiting([on("a")], {}, interval=INTERVAL) as hasty:
                await asyncio.sleep(0.1)
                say(store, "a")
                return await fitted(hasty)

    assert asyncio.run(scene()) == {0}


def test_many_signals_for_many_waits_leave_the_loop_to_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "SHARE", 0.0)
    for hour in range(20):
        say(store, "a", hour=hour)

    async def scene() -> None:
        poller = Poller.of(store)
        find, turns, others = poller._index.find, list[int](), 0

        def counted(*arguments: Any) -> Any:
            turns.append(others)
            return find(*arguments)

        monkeypatch.setattr(poller._index, "find", counted)
        with poller.waiting([on("a", hour=ge(19))], {}, interval=3600) as one:
            woken = asyncio.create_task(fitted(one))
            while not woken.done():
                others += 1
                await asyncio.sleep(0)
            assert woken.result() == {0}
        assert len(set(turns)) == len(turns) == 20  # others had a turn between any two

    asyncio.run(scene())


def test_one_that_comes_while_others_are_woken_misses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "SHARE", 0.0)
    for hour in range(5):
        say(store, "a", hour=hour)

    async def scene() -> set[int]:
        poller = Poller.of(store)
        with poller.waiting([on("a", hour=1)], {}, interval=INTERVAL) as first:
            await fitted(first)
            with poller.waiting([on("a", hour=0)], {}, interval=INTERVAL) as late:
                return await fitted(late)

    assert asyncio.run(scene()) == {0}


def test_nobody_polls_when_nobody_waits_and_the_next_wait_starts_it_again(store: Store) -> None:
    async def scene() -> None:
        poller = Poller.of(store)
        assert Poller.of(store) is poller
        with poller.waiting([on("a")], {}, interval=INTERVAL):
            await asyncio.sleep(3 * INTERVAL)
        await asyncio.sleep(3 * INTERVAL)  # a query that was on its way
        with counting(store) as asked:
            await asyncio.sleep(5 * INTERVAL)
        assert asked == []
        with poller.waiting([on("a")], {}, interval=INTERVAL) as one:
            say(store, "a")
            assert await fitted(one) == {0}

    asyncio.run(scene())
