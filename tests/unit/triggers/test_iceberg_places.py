"""Where a watcher of a table goes on after Airflow has stored its events, and after it has not.

Airflow's own streams hand out the looks; what the triggerer does around them is done here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from airflow.triggers.shared_stream import SharedStreamManager
from pyiceberg.catalog import Catalog

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.triggers import sharing
from airflow_incremental.triggers.iceberg import IcebergDataTrigger
from tests.support.tables import append, at, compact, make_table, sql_catalog


class Store:
    """The state of one asset, which outlives a triggerer."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def aget(self, key: str) -> Any:
        """Return a value."""
        return self.values.get(key)

    async def aset(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.values[key] = value

    @property
    def snapshots(self) -> set[int]:
        """Snapshots of the places kept."""
        return {place["snapshot"] for place in self.values.values()}


@attrs.define
class Triggerer:
    """A triggerer with some triggers, until it is killed."""

    #: Whether Airflow's database takes events.
    stores: bool = True
    events: list[dict[str, Any]] = attrs.field(factory=list)
    ended: list[str] = attrs.field(factory=list)
    _streams: SharedStreamManager = attrs.field(factory=lambda: SharedStreamManager(ack_timeout=1))
    _tasks: list[asyncio.Task[None]] = attrs.field(factory=list)

    def start(self, watcher: IcebergDataTrigger, assets: Iterable[Store]) -> None:
        """Run a trigger for assets."""
        watcher.asset_state_store = SimpleNamespace(_by_name=dict(enumerate(assets)), _by_uri={})  # type: ignore[assignment]
        self._tasks.append(asyncio.create_task(self._run(len(self._tasks), watcher)))

    async def _run(self, number: int, watcher: IcebergDataTrigger) -> None:
        key = watcher.shared_stream_key()
        stream = self._streams.subscribe(trigger_id=number, trigger=watcher, key=key)
        try:
            async for event in watcher.filter_shared_stream(stream):
                seq = self._streams.bind_pending_event(trigger_id=number, key=key)
                self.events.append(event.payload)
                if self.stores and seq is not None:
                    asyncio.get_running_loop().call_soon(self._streams.confirm_persisted, [seq])
        except Exception as error:  # noqa: BLE001  (the triggerer takes any, and starts the trigger again)
            self.ended.append(type(error).__name__)
        finally:
            await self._streams.unsubscribe(number, key)

    async def kill(self) -> None:
        """End all triggers where they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def until(what: Callable[[], object]) -> None:
    for _ in range(1500):
        if what():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not happen within 30 s")


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    found = sql_catalog(tmp_path)
    monkeypatch.setattr(sharing, "catalog_of", lambda _conn_id: found)
    return found


def watch(**changes: Any) -> IcebergDataTrigger:
    return IcebergDataTrigger(**{"table": "raw.events", "poll_interval": 0.05, **changes})


def test_an_append_fires_for_each_asset_and_a_restart_goes_on_behind_it(catalog: Catalog) -> None:
    async def play() -> None:
        table = make_table(catalog)
        one, other = Store(), Store()
        first = Triggerer()
        first.start(watch(), [one, other])
        await until(lambda: one.values and other.values)  # the table is empty: nothing to tell
        told = append(table, (1, at(0)))
        await until(lambda: one.snapshots == other.snapshots == {told.snapshot_id})
        moved = await asyncio.to_thread(compact, table)
        await until(lambda: one.snapshots == other.snapshots == {moved.snapshot_id})
        await first.kill()
        assert [(e["to_snapshot_id"], e["from_snapshot_id"], e["rows_added"]) for e in first.events] == [
            (told.snapshot_id, None, 1)
        ]
        missed = append(table, (2, at(1)))
        second = Triggerer()
        second.start(watch(), [one, other])
        await until(lambda: one.snapshots == {missed.snapshot_id})
        await second.kill()
        assert [(e["to_snapshot_id"], e["from_snapshot_id"]) for e in second.events] == [
            (missed.snapshot_id, moved.snapshot_id)
        ]

    asyncio.run(play())


@pytest.mark.parametrize("stored", [True, False])
def test_no_later_place_is_kept_behind_an_event_that_was_not_stored(catalog: Catalog, stored: bool) -> None:
    async def play() -> None:
        table = make_table(catalog)
        begun = append(table, (1, at(0)))
        store = Store()
        first = Triggerer()
        first.start(watch(), [store])
        await until(lambda: store.values)
        first.stores = stored
        append(table, (2, at(1)))
        await until(lambda: len(first.events) == 2)
        # Without an event of its own: its look counts as dealt with, whatever became of the one before.
        moved = await asyncio.to_thread(compact, table)
        await until(lambda: store.snapshots == {moved.snapshot_id} if stored else first.ended)
        await first.kill()
        assert store.snapshots == ({moved.snapshot_id} if stored else {begun.snapshot_id})
        second = Triggerer()
        second.start(watch(), [store])
        await until(lambda: store.snapshots == {moved.snapshot_id})
        await second.kill()
        assert [e["operations"] for e in second.events] == ([] if stored else [["append", "replace"]])

    asyncio.run(play())


def test_a_crash_before_the_event_is_stored_repeats_it(catalog: Catalog) -> None:
    async def play() -> None:
        told = append(make_table(catalog), (1, at(0)))
        store = Store()
        first = Triggerer(stores=False)
        first.start(watch(), [store])
        await until(lambda: first.events)
        await first.kill()
        second = Triggerer()
        second.start(watch(), [store])
        await until(lambda: store.values)
        await second.kill()
        assert first.events == second.events
        assert first.events[0]["to_snapshot_id"] == told.snapshot_id
        assert first.events[0]["history_cut"]

    asyncio.run(play())


def test_it_comes_back_from_the_database_as_it_was() -> None:
    name, arguments = watch(branch="dev").serialize()
    assert name == "airflow_incremental.triggers.iceberg.IcebergDataTrigger"
    assert IcebergDataTrigger(**arguments).serialize() == (name, arguments)


@pytest.mark.parametrize(
    "wrong", [{"table": "events"}, {"branch": ""}, {"poll_interval": -1}, {"iceberg_conn_id": None}]
)
def test_wrong_arguments_fail_when_the_dag_is_parsed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        watch(**wrong)
