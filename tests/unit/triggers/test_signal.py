"""The trigger that waits for a gate to open."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import Connection

from airflow_incremental.core.errors import StoreError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signals import SignalDependency
from airflow_incremental.hooks.store import IncrementalStoreHook
from airflow_incremental.store import searching
from airflow_incremental.store.database import Store
from airflow_incremental.store.waits import bypass, open_wait
from airflow_incremental.triggers.signal import SignalTrigger
from tests.support.stores import TASK, say

JOINED = [{"name": "a", "match": {"region": "eu"}, "join": ["day"]}, {"name": "b", "match": {}, "join": ["day"]}]


def trigger(store: Store, *signals: dict[str, Any], timeout: float = 60, **changed: Any) -> SignalTrigger:
    arguments: dict[str, Any] = {
        "wait_id": "w1",
        "signals": list(signals),
        "places": {},
        "store_id": store.store_id,
        "until": (dt.datetime.now(UTC) + dt.timedelta(seconds=timeout)).isoformat(),
        "poll_interval": 0.02,
        "incremental_conn_id": "store",
    }
    return SignalTrigger(**(arguments | changed))


async def first(waiting: SignalTrigger) -> dict[str, Any]:
    async for event in waiting.run():
        said = dict(event.payload)
        assert said.pop("until") == waiting.until
        return said
    return {}


async def while_it_waits(waiting: SignalTrigger, *steps: Callable[[], object]) -> dict[str, Any]:
    """Do steps while it waits, see that all but the last leave it waiting, and return its event."""
    task = asyncio.create_task(first(waiting))
    await asyncio.sleep(0.3)
    for step in steps:
        assert not task.done()
        await asyncio.to_thread(step)
        await asyncio.sleep(0.2)
    return await asyncio.wait_for(task, 30)


def test_it_comes_back_from_the_database_as_it_was(store: Store) -> None:
    before = trigger(store, *JOINED, places={"a": 3})
    path, arguments = before.serialize()
    assert path == "airflow_incremental.triggers.signal.SignalTrigger"
    assert SignalTrigger(**arguments).serialize() == before.serialize()
    assert arguments["signals"] == JOINED
    assert arguments["places"] == {"a": 3}


def test_it_fires_when_a_signal_fits(store: Store) -> None:
    waiting = trigger(store, {"name": "a", "match": {"hour": 6}})
    event = asyncio.run(while_it_waits(waiting, lambda: say(store, "a", hour=5), lambda: say(store, "a", hour=6)))
    assert event == {"wait": "w1"}


def test_joined_signals_wake_it_when_they_fit_each_other(store: Store) -> None:
    event = asyncio.run(
        while_it_waits(
            trigger(store, *JOINED),
            lambda: say(store, "a", region="eu", day="mon"),
            lambda: say(store, "b", day="tue"),
            lambda: say(store, "a", region="us", day="tue"),
            lambda: say(store, "a", region="eu", day="tue"),
        )
    )
    assert event == {"wait": "w1"}


def test_a_bypass_wakes_the_wait_it_is_of(store: Store) -> None:
    for map_index, identity in enumerate(("w1", "w2")):
        task = attrs.evolve(TASK, map_index=map_index)
        open_wait(store, identity, [SignalDependency("a")], task, timeout=dt.timedelta(days=7))
    event = asyncio.run(
        while_it_waits(
            trigger(store, {"name": "a"}),
            lambda: bypass(store, "w2", by="ann", reason="late"),
            lambda: bypass(store, "w1", by="ann", reason="late"),
        )
    )
    assert event == {"wait": "w1"}


def test_its_time_is_over_at_the_moment_the_task_said(store: Store) -> None:
    assert asyncio.run(first(trigger(store, {"name": "a"}, timeout=0.3))) == {
        "wait": "w1",
        "timed_out": True,
        "trouble": "",
    }
    assert asyncio.run(first(trigger(store, {"name": "a"}, timeout=-3600)))["timed_out"] is True


def test_another_store_than_the_task_saw_is_told_of_at_once(store: Store) -> None:
    event = asyncio.run(first(trigger(store, {"name": "a"}, store_id="another")))
    assert "this process looks at store" in event["error"]
    assert "incremental_default" in event["error"]


def test_a_store_that_is_not_there_yet_is_asked_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [StoreError("no route to the store"), RuntimeError("the API server is away")]
    opened = IncrementalStoreHook.aget_store

    async def flaky(conn_id: str) -> Store:
        if errors:
            raise errors.pop()
        return await opened(conn_id)

    monkeypatch.setattr(IncrementalStoreHook, "aget_store", flaky)
    event = asyncio.run(while_it_waits(trigger(store, {"name": "a"}), lambda: say(store, "a")))
    assert event == {"wait": "w1"}
    assert [text in caplog.text for text in ("no route to the store", "the API server is away")] == [True, True]


def test_a_store_that_stays_away_is_why_the_time_is_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(_conn_id: str) -> Store:
        raise StoreError("no route to the store")

    monkeypatch.setattr(IncrementalStoreHook, "aget_store", down)
    event = asyncio.run(first(trigger(store, {"name": "a"}, timeout=0.3)))
    assert event == {"wait": "w1", "timed_out": True, "trouble": "no route to the store."}


def test_a_store_that_goes_away_meanwhile_is_why_the_time_is_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any, **__: Any) -> Any:
        raise StoreError("the store is gone")

    def lose() -> None:
        monkeypatch.setattr(searching, "since", down)

    event = asyncio.run(while_it_waits(trigger(store, {"name": "a"}, timeout=1), lose))
    assert event == {"wait": "w1", "timed_out": True, "trouble": "the store is gone."}


def moved(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Copy a store to another place, and let its connection name that one."""
    file = Path(str(store.engine.url.database)).with_name("moved.db")
    with store.engine.connect() as old, sqlite3.connect(file) as new:
        old.connection.driver_connection.backup(new)  # type: ignore[union-attr]
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    return Store.open(f"sqlite:///{file}")


@pytest.mark.parametrize("is_down", [True, False])
def test_a_store_that_has_moved_is_followed(store: Store, monkeypatch: pytest.MonkeyPatch, is_down: bool) -> None:
    since = searching.since

    def of_the_new_one(conn: Connection, *arguments: Any, **named: Any) -> Any:
        if is_down and conn.engine.url == store.engine.url:
            raise StoreError("nobody is there any more")
        return since(conn, *arguments, **named)

    async def scene() -> list[dict[str, Any]]:
        waiting = [asyncio.create_task(first(trigger(store, {"name": "a"}, timeout=10)))]
        await asyncio.sleep(0.3)
        new = moved(store, monkeypatch)
        if is_down:
            monkeypatch.setattr(searching, "since", of_the_new_one)
        else:  # the old one still answers, and the next to wait knows better
            waiting.append(asyncio.create_task(first(trigger(store, {"name": "a"}, timeout=10))))
            await asyncio.sleep(0.3)
        say(new, "a")
        events = await asyncio.gather(*waiting)
        new.close()
        return events

    assert asyncio.run(scene()) == [{"wait": "w1"}] * (1 if is_down else 2)


def test_joined_signals_are_asked_for_again_when_the_store_fails_just_then(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors, find_gate = [StoreError("gone for a moment")], searching.find_gate

    def flaky(*arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return find_gate(*arguments)

    monkeypatch.setattr(searching, "find_gate", flaky)
    say(store, "a", region="eu", day="mon")
    say(store, "b", day="mon")
    assert asyncio.run(first(trigger(store, *JOINED))) == {"wait": "w1"}
    assert errors == []


def test_a_wrong_kind_wakes_the_task_which_says_so(store: Store) -> None:
    single = trigger(store, {"name": "a", "match": {"day": 6}})
    assert asyncio.run(while_it_waits(single, lambda: say(store, "a", day="mon"))) == {"wait": "w1"}
    say(store, "b")
    joined = trigger(store, {"name": "a", "match": {"day": 6}}, {"name": "b"})
    assert asyncio.run(first(joined)) == {"wait": "w1"}
