"""The trigger that waits until a table is complete, and the looks at a table that all share."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.sessions import steps
from airflow_incremental.triggers import sharing
from airflow_incremental.triggers.sharing import shared_table
from airflow_incremental.triggers.watermark import WatermarkTrigger
from tests.support.world import SOURCE, TARGET, World, hour

POLL = 0.2


class Counting:
    """A catalog that counts the looks at its tables, and fails as often as it is told."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.looks: Counter[str] = Counter()
        self.failures = 0

    def load_table(self, identifier: str) -> Table:
        self.looks[identifier] += 1
        if self.failures:
            self.failures -= 1
            raise ConnectionError
        return self.catalog.load_table(identifier)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world without rows."""
    return World(home=tmp_path).set_up()


@pytest.fixture
def counting(world: World, monkeypatch: pytest.MonkeyPatch) -> Counting:
    """The catalog behind every connection."""
    found = Counting(world.catalog)
    monkeypatch.setattr(sharing, "catalog_of", lambda _conn_id: found)
    return found


def trigger(**arguments: Any) -> WatermarkTrigger:
    given = {"iceberg_conn_id": "lake", "table": TARGET, "process": None, "rule": None, "poll_interval": POLL}
    return WatermarkTrigger(**{**given, "complete_through": "2024-01-01T02:00:00Z", **arguments})


async def first(waiting: WatermarkTrigger, timeout: float = 30) -> Any:
    async def event() -> Any:
        async for found in waiting.run():
            return found.payload
        return None

    return await asyncio.wait_for(event(), timeout)


def test_it_comes_back_from_the_database_as_it_was() -> None:
    rule = {"rule": "property", "lateness": 0.0, "name": "complete"}
    path, kept = trigger(process="p", rule=rule).serialize()
    assert path == "airflow_incremental.triggers.watermark.WatermarkTrigger"
    assert WatermarkTrigger(**kept).serialize() == (path, kept)
    assert (kept["process"], kept["rule"], kept["iceberg_conn_id"]) == ("p", rule, "lake")


def test_it_fires_when_the_table_is_complete_and_not_before(world: World, counting: Counting) -> None:
    async def scene() -> Any:
        waiting = asyncio.ensure_future(first(trigger()))
        world.land(1)
        await asyncio.to_thread(steps.run, world.process())
        await asyncio.sleep(3 * POLL)
        assert not waiting.done()
        world.land(2)
        await asyncio.to_thread(steps.run, world.process())
        return await waiting

    event = asyncio.run(scene())
    head = world.target.current_snapshot()
    assert head is not None
    assert event == {
        "result": {
            "table": TARGET,
            "process": "proc",
            "complete_through": "2024-01-01T02:00:00Z",
            "snapshot_id": head.snapshot_id,
        }
    }
    assert counting.looks[TARGET] > 2


def test_what_waiting_cannot_mend_is_told_to_the_task(world: World, counting: Counting) -> None:
    world.land(2)
    assert "no process publishes to the table raw.events" in asyncio.run(first(trigger(table=SOURCE)))["error"]
    assert counting.looks == {SOURCE: 1}


def test_a_table_that_is_not_there_is_waited_for(counting: Counting) -> None:
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(first(trigger(table="mart.to_come"), timeout=3 * POLL))
    assert counting.looks["mart.to_come"] > 1


def test_a_catalog_that_does_not_answer_is_asked_again(world: World, counting: Counting) -> None:
    world.land(2)
    steps.run(world.process())
    counting.failures = 2
    assert "result" in asyncio.run(first(trigger()))
    assert counting.looks[TARGET] == 3


def test_all_that_wait_for_a_table_share_one_look_per_interval(world: World, counting: Counting) -> None:
    """However many there are and whenever they came; each gets its own answer, and the table is forgotten after the last."""

    async def scene() -> tuple[list[Any], int]:
        waiting = []
        for i in range(40):
            waiting.append(asyncio.ensure_future(first(trigger(complete_through=hour(1 + i % 2).isoformat()))))
            await asyncio.sleep(POLL / 40)
        await asyncio.sleep(3 * POLL)
        looks = counting.looks[TARGET]
        world.land(2)
        await asyncio.to_thread(steps.run, world.process())
        return await asyncio.gather(*waiting), looks

    events, looks = asyncio.run(scene())
    assert len(events) == 40
    assert {e["result"]["complete_through"] for e in events} == {"2024-01-01T02:00:00Z"}
    assert 3 <= looks <= 6, "four intervals and a bit"


def test_one_that_stops_waiting_takes_nothing_from_the_others(world: World, counting: Counting) -> None:
    async def scene() -> Any:
        gone, stays = asyncio.ensure_future(first(trigger())), asyncio.ensure_future(first(trigger()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone.cancel()
        world.land(2)
        await asyncio.to_thread(steps.run, world.process())
        return await stays

    assert "result" in asyncio.run(scene())
    assert counting.looks[TARGET] >= 1


def test_a_table_is_forgotten_with_the_last_that_waits_for_it(counting: Counting) -> None:
    async def scene() -> None:
        with shared_table("lake", TARGET) as one:
            with shared_table("lake", TARGET) as two, shared_table("lake", SOURCE) as other:
                assert one is two
                assert one is not other
                looks = await asyncio.gather(*(s.look(60) for s in (one, two, other)))
                assert looks[0] is looks[1]
            with shared_table("lake", TARGET) as three:
                assert three is one
                assert await three.look(60) is looks[0]
                assert await three.look(0) is not looks[0]
        with shared_table("lake", TARGET) as anew:
            assert anew is not one

    asyncio.run(scene())
    assert counting.looks == {TARGET: 2, SOURCE: 1}


def test_an_interval_of_nothing_asks_no_more_than_now_and_then(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "PAUSE", 0.1)

    async def scene() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await first(trigger(table="nowhere.table", poll_interval=0), timeout=1)

    asyncio.run(scene())
    assert 2 <= counting.looks["nowhere.table"] <= 11
