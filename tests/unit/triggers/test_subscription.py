"""The watcher that fires once per match: in order, across restarts, and until Airflow has its events."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.models.trigger import Trigger
from airflow.sdk import Asset, AssetWatcher
from airflow.serialization.decoders import smart_decode_trigger_kwargs
from airflow.serialization.encoders import encode_trigger
from airflow.triggers.base import BaseEventTrigger
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome, SharedStreamManager

from airflow_incremental.core.errors import ArgumentError, StoreError
from airflow_incremental.core.signals import SignalDependency, ge
from airflow_incremental.hooks.store import IncrementalStoreHook
from airflow_incremental.store import subscriptions
from airflow_incremental.store.database import Store
from airflow_incremental.store.matches import unannounced
from airflow_incremental.store.subscriptions import close_subscription
from airflow_incremental.triggers import acknowledged, announcing, subscription, threads
from airflow_incremental.triggers.acknowledged import MatchProducer
from airflow_incremental.triggers.subscription import SignalMatchTrigger
from tests.support.stores import say

INTERVAL = 0.02


def trigger(*signals: Any, **changed: Any) -> SignalMatchTrigger:
    arguments = {
        "subscription": "s",
        "signals": list(signals) or [{"name": "a"}],
        "poll_interval": INTERVAL,
        "incremental_conn_id": "store",
    }
    return SignalMatchTrigger(**(arguments | changed))


def left(store: Store) -> list[int]:
    """Return the numbers of the matches that are not noted as announced."""
    with store.read() as conn:
        return [match.number for match in unannounced(conn, "s", 10_000)]


async def subscribed(store: Store) -> None:
    """Wait until the subscription is there."""
    for _ in range(500):
        with store.read() as conn:
            if subscriptions.list_subscriptions(conn):
                return
        await asyncio.sleep(0.02)


async def until(true: Any) -> None:
    """Wait until something is true."""
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError


class Alone:
    """A triggerer without shared streams, as far as it concerns one trigger."""

    def __init__(self, one: SignalMatchTrigger) -> None:
        self.payloads: list[dict[str, Any]] = []
        self._one = one

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Alone]:
        """Run the trigger, and cancel it at the end, as a triggerer does."""

        async def run() -> None:
            async for event in self._one.run():
                self.payloads.append(json.loads(json.dumps(event.payload)))

        task = asyncio.create_task(run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def numbers(self) -> list[int]:
        return [payload["number"] for payload in self.payloads]


class Sharing(Alone):
    """A triggerer with Airflow's own shared streams.

    :param stores: whether events get into Airflow's database.
    """

    def __init__(self, one: SignalMatchTrigger, *, stores: bool = True) -> None:
        super().__init__(one)
        self.stores = stores

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Sharing]:
        manager = SharedStreamManager(max_subscriber_queue=20)
        key = self._one.shared_stream_key()
        assert key is not None

        async def run() -> None:
            stream = manager.subscribe(trigger_id=1, trigger=self._one, key=key)
            async for event in self._one.filter_shared_stream(stream):
                seq = manager.bind_pending_event(trigger_id=1, key=key)
                self.payloads.append(json.loads(json.dumps(event.payload)))
                await asyncio.sleep(0)
                if self.stores:
                    assert seq is not None
                    manager.confirm_persisted([seq])

        task = asyncio.create_task(run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await manager.stop_all()


@pytest.fixture(params=[Alone, Sharing])
def triggerer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Alone]:
    """Both kinds, with events that are stored at once."""
    monkeypatch.setattr(subscription, "STORED_AFTER", 0.0)
    return request.param


def test_it_fires_once_per_match_in_order(store: Store, triggerer: type[Alone]) -> None:
    say(store, "a", hour=0)  # before anybody subscribed

    async def scene() -> list[dict[str, Any]]:
        async with triggerer(trigger({"name": "a", "match": {"hour": ge(2)}})).running() as one:
            await subscribed(store)
            for hour in range(5):
                say(store, "a", hour=hour)
            await until(lambda: len(one.payloads) == 3)
            await until(lambda: left(store) == [])
            await asyncio.sleep(5 * INTERVAL)
            return one.payloads

    found = asyncio.run(scene())
    assert [(p["subscription"], p["number"], p["signals"][0]["params"]["hour"]) for p in found] == [
        ("s", 1, 2),
        ("s", 2, 3),
        ("s", 3, 4),
    ]
    assert len({p["id"] for p in found}) == 3


def test_signals_are_paired_by_what_they_are_joined_on(store: Store, triggerer: type[Alone]) -> None:
    joined = trigger(SignalDependency("a", join=("day",)), SignalDependency("b", join=("date",)))

    async def scene() -> list[list[int]]:
        async with triggerer(joined).running() as one:
            await subscribed(store)
            for name, day in [
                ("a", {"day": "mon"}),
                ("b", {"date": "tue"}),
                ("b", {"date": "mon"}),
                ("a", {"day": "wed"}),
            ]:
                say(store, name, **day)
            await until(lambda: one.payloads)
            await asyncio.sleep(5 * INTERVAL)
            return [[signal["seq"] for signal in payload["signals"]] for payload in one.payloads]

    assert asyncio.run(scene()) == [[1, 2]]


def test_what_was_there_before_is_taken_if_asked_for(store: Store, triggerer: type[Alone]) -> None:
    say(store, "a", hour=1)

    async def scene() -> list[int]:
        async with triggerer(trigger(start="earliest")).running() as one:
            await until(lambda: one.payloads)
            return one.numbers

    assert asyncio.run(scene()) == [1]


def test_after_a_restart_it_goes_on_where_airflow_had_the_events(store: Store, triggerer: type[Alone]) -> None:
    async def scene() -> tuple[list[int], list[int]]:
        async with triggerer(trigger()).running() as one:
            await subscribed(store)
            say(store, "a", hour=1)
            await until(lambda: one.payloads and left(store) == [])
        say(store, "a", hour=2)  # while nobody looks
        async with triggerer(trigger()).running() as other:
            say(store, "a", hour=3)
            await until(lambda: len(other.payloads) == 2)
            await asyncio.sleep(5 * INTERVAL)
            return one.numbers, other.numbers

    assert asyncio.run(scene()) == ([1], [2, 3])


@pytest.mark.parametrize("shares", [True, False])
def test_what_died_with_the_triggerer_is_announced_again(store: Store, shares: bool) -> None:
    def first() -> Alone:  # half a minute does not pass here
        return Sharing(trigger(), stores=False) if shares else Alone(trigger())

    async def scene() -> tuple[list[int], list[int]]:
        async with first().running() as one:
            await subscribed(store)
            say(store, "a", hour=1)
            say(store, "a", hour=2)
            await until(lambda: len(one.payloads) == 2)
            await asyncio.sleep(1.2)
            assert left(store) == [1, 2]
        async with Sharing(trigger()).running() as other:
            await until(lambda: left(store) == [])
            return one.numbers, other.numbers

    assert asyncio.run(scene()) == ([1, 2], [1, 2])


def test_two_triggerers_at_once_make_no_match_twice(store: Store, triggerer: type[Alone]) -> None:
    async def scene() -> tuple[list[int], list[int]]:
        async with triggerer(trigger()).running() as one, triggerer(trigger()).running() as other:
            await subscribed(store)
            for hour in range(20):
                await asyncio.to_thread(say, store, "a", hour=hour)
            await until(lambda: {*one.numbers, *other.numbers} == set(range(1, 21)))
            await until(lambda: left(store) == [])
            return one.numbers, other.numbers

    for numbers in asyncio.run(scene()):
        assert numbers == sorted(set(numbers))


def test_a_backlog_does_not_run_over_the_queue_of_a_subscriber(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledged, "ON_THEIR_WAY", 10)
    monkeypatch.setattr(announcing, "PAGE", 7)
    for hour in range(60):
        say(store, "a", hour=hour)

    async def scene() -> list[int]:
        async with Sharing(trigger(start="earliest")).running() as one:
            await until(lambda: len(one.payloads) >= 60)
            await until(lambda: left(store) == [])
            return one.numbers

    assert asyncio.run(scene()) == list(range(1, 61))


def test_an_event_that_airflow_did_not_store_is_not_noted(store: Store) -> None:
    say(store, "a", hour=1)
    say(store, "a", hour=2)

    async def scene() -> None:
        producer = MatchProducer(trigger(start="earliest").serialize()[1])
        async with aclosing(producer.open_stream()) as stream:
            (_, first), (_, second) = await stream.__anext__(), await stream.__anext__()
            stored, failed = AdvanceOutcome(acked=1, failed=0), AdvanceOutcome(acked=0, failed=1)
            await producer.advance([AdvanceItem(first, failed), AdvanceItem(second, stored)])

    asyncio.run(scene())
    assert left(store) == [1]


def test_a_subscription_without_news_shows_that_it_has_a_triggerer(
    store: Store, triggerer: type[Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "SEEN", 0.1)
    monkeypatch.setattr(subscriptions, "_SEEN_EVERY", dt.timedelta(0))

    def polled_at() -> dt.datetime:
        with store.read() as conn:
            return subscriptions.list_subscriptions(conn)[0].polled_at

    async def scene() -> None:
        async with triggerer(trigger()).running():
            await subscribed(store)
            await asyncio.sleep(0.3)
            before = polled_at()
            await until(lambda: polled_at() > before)

    asyncio.run(scene())


def test_it_subscribes_anew_when_its_connection_leads_to_another_store(
    store: Store, triggerer: type[Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "SEEN", 0.1)
    file = Path(str(store.engine.url.database)).with_name("another.db")
    another = Store.open(f"sqlite:///{file}")

    async def scene() -> list[int]:
        async with triggerer(trigger()).running() as one:
            await subscribed(store)
            say(store, "a", hour=1)
            await until(lambda: len(one.payloads) == 1)
            monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": "sqlite", "host": str(file)}))
            await subscribed(another)
            say(another, "a", hour=7)
            await until(lambda: len(one.payloads) == 2)
            return [payload["signals"][0]["params"]["hour"] for payload in one.payloads]

    assert asyncio.run(scene()) == [1, 7]
    another.close()


def test_a_store_that_is_down_is_tried_again(
    store: Store, triggerer: type[Alone], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(announcing, "MENDING", INTERVAL)
    errors = [StoreError("advance failed"), RuntimeError("nobody expected this")]
    advance, opened = subscriptions.advance, IncrementalStoreHook.aget_store
    away = [StoreError("no route to the store")]

    def flaky(*arguments: Any) -> int:
        if errors:
            raise errors.pop()
        return advance(*arguments)

    async def late(conn_id: str) -> Store:
        if away:
            raise away.pop()
        return await opened(conn_id)

    monkeypatch.setattr(subscriptions, "advance", flaky)
    monkeypatch.setattr(IncrementalStoreHook, "aget_store", late)

    async def scene() -> list[int]:
        async with triggerer(trigger()).running() as one:
            await subscribed(store)
            say(store, "a", hour=1)
            await until(lambda: one.payloads)
            return one.numbers

    assert asyncio.run(scene()) == [1]
    assert [t in caplog.text for t in ("advance failed", "no route to the store", "nobody expected")] == [True] * 3


def test_a_store_that_hangs_is_asked_again(
    store: Store, triggerer: type[Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "MENDING", INTERVAL)
    monkeypatch.setattr(threads, "PATIENCE", 1.0)
    go_on, hanging, writing = threading.Event(), [True], Store.writing

    def hangs_once(opened: Store, work: Any) -> Any:
        """Hang before the transaction: a SQLite file has only one that writes."""
        if "_advance" in work.__qualname__ and hanging:
            hanging.pop()
            go_on.wait(60)
            raise StoreError("the connection is lost")
        return writing(opened, work)

    monkeypatch.setattr(Store, "writing", hangs_once)

    async def scene() -> list[int]:
        async with triggerer(trigger()).running() as one:
            try:
                await subscribed(store)
                say(store, "a", hour=1)
                await until(lambda: one.payloads)
                return one.numbers
            finally:
                go_on.set()

    assert asyncio.run(scene()) == [1]


def test_other_signals_under_the_same_name_are_refused_until_it_is_closed(
    store: Store, triggerer: type[Alone], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(announcing, "MENDING", INTERVAL)

    async def scene() -> list[str]:
        async with triggerer(trigger({"name": "a"})).running():
            await subscribed(store)
        async with triggerer(trigger({"name": "b"})).running() as changed:
            await until(lambda: "close the subscription first" in caplog.text)
            store.writing(lambda conn: close_subscription(conn, "s"))
            await asyncio.sleep(0.5)
            say(store, "b", hour=1)
            await until(lambda: changed.payloads)
            return [payload["signals"][0]["name"] for payload in changed.payloads]

    assert asyncio.run(scene()) == ["b"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"subscription": ""}, ["the name of a subscription is ''"]),
        ({"subscription": "{{ dag.dag_id }}"}, ["holds the template '{{ dag.dag_id }}'", "belongs to no run"]),
        ({"signals": [{"name": "a", "match": {"day": "{{ ds }}"}}]}, ["holds the template '{{ ds }}'"]),
        ({"signals": []}, ["0 signals"]),
        ({"signals": "a"}, ["signals is 'a'"]),
        ({"signals": [{"name": "a", "match": {"x": ge(1), "y": ge(1)}}]}, ["one range"]),
        ({"start": "now"}, ["start is 'now'", "'latest', 'earliest'"]),
        ({"poll_interval": 0}, ["poll_interval is 0", "more than 0"]),
        ({"poll_interval": True}, ["poll_interval is True"]),
    ],
)
def test_a_wrong_argument_fails_the_import(changed: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ArgumentError) as raised:
        trigger(**changed)
    assert [word for word in words if word not in str(raised.value)] == []


def test_it_comes_back_from_the_database_as_it_was_and_is_one_trigger_in_every_parse() -> None:
    first = trigger(SignalDependency.read({"name": "a", "match": {"x": 1, "y": ge(2)}, "join": "day"}))
    again = trigger({"join": ["day"], "match": {"y": ge(2), "x": 1}, "name": "a"})
    path, arguments = first.serialize()
    assert path == "airflow_incremental.triggers.subscription.SignalMatchTrigger"
    assert SignalMatchTrigger(**json.loads(json.dumps(arguments))).serialize() == first.serialize()
    assert BaseEventTrigger.hash(*first.serialize()) == BaseEventTrigger.hash(*again.serialize())
    assert first.shared_stream_key() == again.shared_stream_key() != trigger().shared_stream_key()
    assert Asset("x", watchers=[AssetWatcher(name="w", trigger=first)]).watchers[0].trigger is first


def test_without_shared_streams_it_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(BaseEventTrigger, "create_shared_stream_producer")
    assert trigger().shared_stream_key() is None


def test_airflow_finds_the_watcher_again_however_often_it_has_encoded_it() -> None:
    first = trigger({"name": "a", "match": {"region": "eu"}, "join": ["day"]}, {"name": "b", "join": ["date"]})
    encoded = encode_trigger(first)
    again = encode_trigger(
        {"classpath": encoded["classpath"], "kwargs": smart_decode_trigger_kwargs(encoded["kwargs"])}
    )
    stored = Trigger(classpath=again["classpath"], kwargs=again["kwargs"])

    assert BaseEventTrigger.hash(stored.classpath, stored.kwargs) == BaseEventTrigger.hash(
        again["classpath"], again["kwargs"]
    )
    assert SignalMatchTrigger(**smart_decode_trigger_kwargs(stored.kwargs)).signals == first.signals
