"""Events for commits that changed data: at least once, for every watcher, through Airflow's own shared streams and state stores."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from airflow.sdk import Asset, AssetWatcher
from airflow.sdk.execution_time.context import AssetStateStoreAccessor, AssetStateStoreAccessors
from airflow.triggers.base import BaseEventTrigger
from airflow.triggers.shared_stream import SharedStreamManager
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.triggers import sharing
from airflow_incremental.triggers.iceberg import IcebergDataTrigger
from tests.support.tables import append, at, compact, make_table, sql_catalog

POLL = 0.05
KEY = "incremental.place.iceberg_default.raw.events.main"
State = dict[tuple[str, str], Any]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """The catalog behind every connection."""
    found = sql_catalog(tmp_path)
    monkeypatch.setattr(sharing, "catalog_of", lambda _conn_id: found)
    return found


@pytest.fixture
def table(catalog: Catalog) -> Table:
    """An empty table."""
    return make_table(catalog)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> State:
    """Airflow's state of assets: what its accessors write, as the API server would keep it."""
    kept: State = {}

    async def aget(self: AssetStateStoreAccessor, key: str, default: Any = None) -> Any:
        found = kept.get((str(self._name), key))
        return default if found is None else json.loads(found)

    async def aset(self: AssetStateStoreAccessor, key: str, value: Any) -> None:
        kept[str(self._name), key] = json.dumps(value)

    monkeypatch.setattr(AssetStateStoreAccessor, "aget", aget)
    monkeypatch.setattr(AssetStateStoreAccessor, "aset", aset)
    return kept


@attrs.define
class Triggerer:
    """What Airflow's triggerer does with watchers: real shared streams, and events that are stored a while after they are out."""

    #: Whether events are stored: a triggerer that crashes before has lost them.
    stores: bool = True
    streams: SharedStreamManager = attrs.field(factory=SharedStreamManager)
    #: (trigger, payload) of all events that were stored.
    stored: list[tuple[int, dict[str, Any]]] = attrs.field(factory=list)
    out: list[int] = attrs.field(factory=list)
    tasks: list[asyncio.Task[None]] = attrs.field(factory=list)

    def watch(self, *assets: str, **arguments: Any) -> int:
        """Start the trigger that watches for some assets, and return its number."""
        path, kept = trigger(**arguments).serialize()
        assert path.endswith("triggers.iceberg.IcebergDataTrigger")
        started = IcebergDataTrigger(**kept)
        started.asset_state_store = AssetStateStoreAccessors(inlets=[Asset(name) for name in assets])
        number = len(self.tasks)
        self.tasks.append(asyncio.ensure_future(self._run(number, started)))
        return number

    async def _run(self, number: int, started: IcebergDataTrigger) -> None:
        key = started.shared_stream_key()
        stream = self.streams.subscribe(trigger_id=number, trigger=started, key=key)
        try:
            async for event in started.filter_shared_stream(stream):
                await asyncio.sleep(0)  # Airflow writes its log here
                seq = self.streams.bind_pending_event(trigger_id=number, key=key)
                assert seq is not None, "the stream is in ack mode"
                self.out.append(number)
                if self.stores:
                    asyncio.get_running_loop().call_later(POLL / 2, self._store, number, event.payload, seq)
        finally:
            await self.streams.unsubscribe(number, key)

    def _store(self, number: int, payload: dict[str, Any], seq: int) -> None:
        self.stored.append((number, payload))
        self.streams.confirm_persisted([seq])

    async def crash(self) -> None:
        """End without another word."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.streams.stop_all()

    def told(self, number: int = 0) -> list[tuple[int | None, int | None]]:
        """Return the snapshots between which a trigger has told of changes."""
        return [(e["from_snapshot_id"], e["to_snapshot_id"]) for n, e in self.stored if n == number]


@asynccontextmanager
async def triggerer(**arguments: Any) -> AsyncIterator[Triggerer]:
    running = Triggerer(**arguments)
    try:
        yield running
        assert not [t for t in running.tasks if t.done()], "a watcher never ends"
    finally:
        await running.crash()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(POLL / 5)
    pytest.fail("it did not come to that")


def trigger(**arguments: Any) -> IcebergDataTrigger:
    return IcebergDataTrigger(**{"table": "raw.events", "poll_interval": POLL, **arguments})


def place(state: State, asset: str = "events") -> int | None:
    """Return the snapshot that is kept for an asset."""
    found = state.get((asset, KEY))
    return None if found is None else json.loads(found)["snapshot"]


def test_it_comes_back_from_the_database_as_it_was() -> None:
    arguments = {"table": "raw.events", "iceberg_conn_id": "lake", "branch": "dev", "poll_interval": 5.0}
    assert trigger(**arguments).serialize() == (
        "airflow_incremental.triggers.iceberg.IcebergDataTrigger",
        arguments,
    )
    watcher = AssetWatcher(name="commits", trigger=trigger())
    assert isinstance(watcher.trigger, BaseEventTrigger)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "events"}, "names no namespace"),
        ({"table": None}, "the table of IcebergDataTrigger is None"),
        ({"branch": ""}, "the branch of IcebergDataTrigger is ''"),
        ({"iceberg_conn_id": None}, "the iceberg_conn_id of IcebergDataTrigger is None"),
        ({"poll_interval": "often"}, "poll_interval is 'often'"),
    ],
)
def test_what_is_wrong_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        trigger(**arguments)


def test_appends_fire_and_compaction_does_not(table: Table, state: State) -> None:
    async def scene() -> None:
        async with triggerer() as running:
            running.watch("events")
            await until(lambda: place(state) is None and ("events", KEY) in state)
            first = append(table, (1, at(1)), (2, at(2)))
            await until(lambda: place(state) == first.snapshot_id)
            compacted = compact(table)
            await until(lambda: place(state) == compacted.snapshot_id)
            last = append(table, (3, at(3)))
            await until(lambda: place(state) == last.snapshot_id)
            assert running.told() == [(None, first.snapshot_id), (compacted.snapshot_id, last.snapshot_id)]
            assert running.stored[-1][1] == {
                "table": "raw.events",
                "branch": "main",
                "from_snapshot_id": compacted.snapshot_id,
                "to_snapshot_id": last.snapshot_id,
                "operations": ["append"],
                "rows_added": 1,
                "history_cut": False,
            }

    asyncio.run(scene())


def test_a_restart_goes_on_where_it_was(table: Table, state: State) -> None:
    async def scene() -> None:
        first = append(table, (1, at(1)))
        async with triggerer() as running:
            running.watch("events")
            await until(lambda: place(state) == first.snapshot_id)
            assert [e["history_cut"] for _, e in running.stored] == [True], "nothing was known before"
        last = append(table, (2, at(2)), (3, at(3)))
        async with triggerer() as running:
            running.watch("events")
            await until(lambda: place(state) == last.snapshot_id)
            assert running.told() == [(first.snapshot_id, last.snapshot_id)]
        async with triggerer() as running:
            running.watch("events")
            await asyncio.sleep(4 * POLL)
            assert running.told() == []

    asyncio.run(scene())


def test_a_crash_before_the_event_is_stored_repeats_it(table: Table, state: State) -> None:
    async def scene() -> None:
        first = append(table, (1, at(1)))
        async with triggerer() as running:
            running.watch("events")
            await until(lambda: place(state) == first.snapshot_id)
        last = append(table, (2, at(2)))
        async with triggerer(stores=False) as running:
            running.watch("events")
            await until(lambda: running.out == [0])
            await asyncio.sleep(4 * POLL)
            assert running.out == [0], "it is told of once"
            assert place(state) == first.snapshot_id, "but not stored, so the place is not kept"
        async with triggerer() as running:
            running.watch("events")
            await until(lambda: place(state) == last.snapshot_id)
            assert running.told() == [(first.snapshot_id, last.snapshot_id)]

    asyncio.run(scene())


def test_a_crash_while_the_event_is_handed_over_repeats_it(table: Table, state: State) -> None:
    async def scene() -> None:
        first = append(table, (1, at(1)))
        async with triggerer() as running:
            running.watch("events")
            await until(lambda: place(state) == first.snapshot_id)
        last = append(table, (2, at(2)))
        started = trigger()
        started.asset_state_store = AssetStateStoreAccessors(inlets=[Asset("events")])
        streams, key = SharedStreamManager(), started.shared_stream_key()
        events = started.filter_shared_stream(streams.subscribe(trigger_id=1, trigger=started, key=key))
        assert (await anext(aiter(events))).payload["to_snapshot_id"] == last.snapshot_id
        # Cancelled here, with the event in hand and nothing bound to it, Airflow takes the poll for done with.
        await events.aclose()  # type: ignore[attr-defined]
        await streams.unsubscribe(1, key)
        assert place(state) == first.snapshot_id

    asyncio.run(scene())


def test_a_place_that_cannot_be_written_costs_a_repetition(
    table: Table, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise ConnectionError

    async def scene() -> None:
        async with triggerer() as running:
            running.watch("events")
            await until(lambda: ("events", KEY) in state)
            with monkeypatch.context() as patch:
                patch.setattr(AssetStateStoreAccessor, "aset", broken)
                first = append(table, (1, at(1)))
                await until(lambda: bool(running.stored))
                await asyncio.sleep(3 * POLL)
            assert running.told() == [(None, first.snapshot_id)]
        async with triggerer() as running:
            running.watch("events")
            await until(lambda: place(state) == first.snapshot_id)
            assert running.told() == [(None, first.snapshot_id)]

    asyncio.run(scene())


def test_watchers_of_one_table_share_polls_and_each_gets_every_event(
    table: Table, state: State, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: Counter[str] = Counter()
    load = catalog.load_table

    def counted(identifier: str) -> Table:
        looks[identifier] += 1
        return load(identifier)

    async def scene() -> None:
        async with triggerer() as running:
            for i in range(10):
                running.watch(f"asset{i}", "events")
            await until(lambda: len({a for a, _ in state}) == 11)
            monkeypatch.setattr(catalog, "load_table", counted)
            commits = []
            for i in range(3):
                commits.append((await asyncio.to_thread(append, table, (i, at(i)))).snapshot_id)
                await until(lambda: all(place(state, f"asset{n}") == commits[-1] for n in range(10)))
            await asyncio.sleep(4 * POLL)
            expected = list(zip([None, *commits], commits, strict=False))
            assert [running.told(n) for n in range(10)] == [expected] * 10
            polls = looks["raw.events"]
        assert polls > 6
        assert polls < 80, "ten watchers of their own would have looked ten times as often"

    asyncio.run(scene())


def test_two_assets_behind_one_trigger_have_a_place_each(table: Table, state: State) -> None:
    """Watched with the same arguments they are one trigger to Airflow, whose events reach both."""

    async def scene() -> None:
        first = append(table, (1, at(1)))
        async with triggerer() as running:
            running.watch("events", "copies")
            await until(lambda: place(state) == place(state, "copies") == first.snapshot_id)
        older = state["copies", KEY]
        last = append(table, (2, at(2)))
        async with triggerer() as running:
            running.watch("events", "copies")
            await until(lambda: place(state) == place(state, "copies") == last.snapshot_id)
            assert running.told() == [(first.snapshot_id, last.snapshot_id)]
        state["copies", KEY] = older  # as a crash leaves it that comes between the two
        async with triggerer() as running:
            running.watch("events", "copies", "newcomer")
            await until(lambda: place(state, "newcomer") == place(state, "copies") == last.snapshot_id)
            assert running.told() == [(first.snapshot_id, last.snapshot_id)], "again rather than never"

    asyncio.run(scene())


def test_one_asset_can_have_watchers_of_several_tables(table: Table, catalog: Catalog, state: State) -> None:
    other = make_table(catalog, "raw.others")

    async def scene() -> None:
        first, second = append(table, (1, at(1))), append(other, (2, at(2)))
        async with triggerer() as running:
            running.watch("events")
            running.watch("events", table="raw.others")
            await until(lambda: len(state) == 2)
            assert running.told(0) == [(None, first.snapshot_id)]
            assert running.told(1) == [(None, second.snapshot_id)]

    asyncio.run(scene())


def test_what_fails_for_a_moment_is_looked_at_again(
    table: Table, catalog: Catalog, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = append(table, (1, at(1)))
    failures = {"load": 2, "state": 2}
    load, aget = catalog.load_table, AssetStateStoreAccessor.aget

    def failing(identifier: str) -> Table:
        if failures["load"]:
            failures["load"] -= 1
            raise ConnectionError
        return load(identifier)

    async def failing_state(self: AssetStateStoreAccessor, key: str, default: Any = None) -> Any:
        if failures["state"]:
            failures["state"] -= 1
            raise ConnectionError
        return await aget(self, key, default)

    monkeypatch.setattr(catalog, "load_table", failing)
    monkeypatch.setattr(AssetStateStoreAccessor, "aget", failing_state)

    async def scene() -> None:
        async with triggerer() as running:
            running.watch("events")
            await until(lambda: place(state) == first.snapshot_id)
            assert running.told() == [(None, first.snapshot_id)]

    asyncio.run(scene())
    assert failures == {"load": 0, "state": 0}


def test_a_table_that_is_not_there_is_waited_for(catalog: Catalog, state: State) -> None:
    async def scene() -> None:
        async with triggerer() as running:
            running.watch("events", table="raw.events")
            running.watch("events", branch="dev")
            await asyncio.sleep(3 * POLL)
            first = append(make_table(catalog), (1, at(1)))
            await until(lambda: place(state) == first.snapshot_id)
            assert (running.told(0), running.told(1)) == ([(None, first.snapshot_id)], [])

    asyncio.run(scene())


def test_without_shared_streams_it_polls_alone(table: Table) -> None:
    """As Airflow before 3.3 has it, where no state of assets is kept."""

    async def scene() -> list[Any]:
        first = append(table, (1, at(1)))
        alone = trigger()
        del alone.asset_state_store
        events = aiter(alone.run())
        found = [(await asyncio.wait_for(anext(events), 20)).payload]
        last = append(table, (2, at(2)))
        found.append((await asyncio.wait_for(anext(events), 20)).payload)
        await events.aclose()  # type: ignore[attr-defined]
        assert [e["to_snapshot_id"] for e in found] == [first.snapshot_id, last.snapshot_id]
        return found

    assert [e["history_cut"] for e in asyncio.run(scene())] == [True, False]
