"""Triggers that open a store in the same moment ask for it once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_incremental.core.errors import StoreError
from airflow_incremental.hooks.store import IncrementalStoreHook
from airflow_incremental.triggers.stores import open_store


class Airflow:
    """What knows connections: answers after a while, as often as it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.wrong = 0
        monkeypatch.setattr(IncrementalStoreHook, "aget_store", self.answer)

    async def answer(self, conn_id: str) -> Any:
        self.asked.append(conn_id)
        number = len(self.asked)
        await asyncio.sleep(0.05)
        if number <= self.wrong:
            raise StoreError("it does not answer", expected="an answer", hint="wait")
        return f"store of {conn_id}, asked {number}"


async def opened(conn_id: str, told: list[str] | None = None) -> Any:
    return await open_store(conn_id, None, interval=0.01, tell=[].append if told is None else told.append)


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    return Airflow(monkeypatch)


def test_those_who_ask_together_ask_once(airflow: Airflow) -> None:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(opened(conn_id) for conn_id in ("a", "b") for _ in range(100)))

    found = asyncio.run(all_of_them())
    assert airflow.asked == ["a", "b"]
    assert found == ["store of a, asked 1"] * 100 + ["store of b, asked 2"] * 100


def test_who_comes_later_asks_anew(airflow: Airflow) -> None:
    async def one_after_the_other() -> list[Any]:
        return [await opened("a"), await opened("a")]

    assert asyncio.run(one_after_the_other()) == ["store of a, asked 1", "store of a, asked 2"]
    assert airflow.asked == ["a", "a"]


def test_who_is_canceled_takes_the_answer_from_nobody_else(airflow: Airflow) -> None:
    async def first_goes() -> Any:
        first, second = asyncio.create_task(opened("a")), asyncio.create_task(opened("a"))
        await asyncio.sleep(0.01)
        first.cancel()
        return await second

    assert asyncio.run(first_goes()) == "store of a, asked 1"
    assert airflow.asked == ["a"]


def test_all_hear_of_a_store_that_does_not_answer_and_ask_again(airflow: Airflow) -> None:
    airflow.wrong = 2
    told: list[str] = []

    async def both() -> list[Any]:
        return await asyncio.gather(opened("a", told), opened("a", told))

    assert asyncio.run(both()) == ["store of a, asked 3"] * 2
    assert len(told) == 4
    assert all("it does not answer" in each for each in told)
