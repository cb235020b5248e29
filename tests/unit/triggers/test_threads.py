"""A catalog or store that hangs keeps nobody waiting for another one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from airflow_incremental.core.signals import SignalDependency
from airflow_incremental.hooks.store import IncrementalStoreHook
from airflow_incremental.store.database import Store
from airflow_incremental.triggers import sharing, threads
from airflow_incremental.triggers.polling import Poller
from airflow_incremental.triggers.sharing import looks
from airflow_incremental.triggers.threads import in_thread_of
from tests.support.stores import address, say

HANGING = 60


@pytest.fixture(params=["catalog_of", "_find"])
def _hanging(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A catalog that accepts connections and never answers, or none of the questions for tables."""
    go_on = threading.Event()

    def hang(catalog: Any, *_: Any) -> Any:
        if catalog == "hangs":
            go_on.wait(60)
        return catalog

    monkeypatch.setattr(sharing, "catalog_of", lambda conn_id: conn_id)
    monkeypatch.setattr(sharing, "_find", lambda *_: SimpleNamespace())
    monkeypatch.setattr(sharing, request.param, hang)
    yield
    go_on.set()


async def one_look(conn_id: str, table: str) -> None:
    async for _ in looks(conn_id, table, 60):
        return


@pytest.mark.usefixtures("_hanging")
def test_a_catalog_that_hangs_keeps_nobody_waiting_for_others(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.dumps({"conn_type": "sqlite", "extra": {"url": address(sqlite_store)}})
    monkeypatch.setenv("AIRFLOW_CONN_STORE", connection)

    async def scene() -> set[int]:
        hanging = [asyncio.create_task(one_look("hangs", f"n.t{number}")) for number in range(HANGING)]
        await asyncio.sleep(0.3)
        try:
            await asyncio.wait_for(one_look("answers", "n.t"), 10)
            store = await asyncio.wait_for(IncrementalStoreHook.aget_store("store"), 10)
            with Poller.of(store).waiting([SignalDependency("a")], {}, interval=0.02) as one:
                say(store, "a")
                return await asyncio.wait_for(one.fitted(), 10)
        finally:
            for task in hanging:
                task.cancel()

    assert asyncio.run(scene()) == {0}


@pytest.mark.parametrize("hangs", ["catalog_of", "_find", "question"])
def test_what_hangs_is_asked_again_of_others(monkeypatch: pytest.MonkeyPatch, hangs: str) -> None:
    monkeypatch.setattr(threads, "PATIENCE", 0.3)
    go_on, asked = threading.Event(), list[str]()

    def answer(what: str) -> Any:
        asked.append(what)
        if what == hangs and asked.count(what) <= HANGING:
            go_on.wait(60)
        return SimpleNamespace()

    monkeypatch.setattr(sharing, "catalog_of", lambda _: answer("catalog_of"))
    monkeypatch.setattr(sharing, "_find", lambda *_: answer("_find"))

    def question(_table: Any) -> bool:
        return bool(answer("question"))

    async def answered(table: str) -> bool:
        async for look in looks("lake", table, 0.05):
            with suppress(asyncio.TimeoutError):
                return await look.ask(question)
        return False

    async def scene() -> list[bool]:
        try:
            waiting = [answered(f"n.t{number}") for number in range(HANGING)]
            return await asyncio.wait_for(asyncio.gather(*waiting), 20)
        finally:
            go_on.set()

    assert asyncio.run(scene()) == [True] * HANGING


def test_there_is_a_way_back_to_the_loop_as_airflow_3_1_takes_it() -> None:
    async def loop_of() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def ask() -> asyncio.AbstractEventLoop:
        return async_to_sync(loop_of)()

    async def scene() -> bool:
        return await in_thread_of("catalog", ask) is asyncio.get_running_loop()

    assert asyncio.run(scene())
