"""One poll for all who wait: the triggers of an event loop that look at one store share a query per interval."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, TypeVar
from weakref import WeakKeyDictionary

import attrs

from airflow_incremental.core.errors import IncrementalError, StoreError
from airflow_incremental.core.signal_index import SignalIndex
from airflow_incremental.triggers.threads import in_thread_of, leave_threads_of
from airflow_incremental.triggers.within import within

if TYPE_CHECKING:
    from airflow_incremental.core.signals import Signal, SignalDependency
    from airflow_incremental.store.database import Store
    from airflow_incremental.store.hints import Listener

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Signals read by one query. More are read by further ones at once.
PAGE = 1_000
#: Seconds between two looks, at least, however many hints come and however short an interval is asked for.
PAUSE = 0.1
#: Seconds that the store has for an answer.
PATIENCE = 60.0
#: Seconds of the event loop at a stretch.
SHARE = 0.02


@attrs.define(eq=False)
class Waiting:
    """Someone who is woken when a signal comes that fits one of his dependencies.

    :param places: name of a signal -> ``seq`` up to which he has looked himself. Signals up to it do not wake him.
    :param interval: seconds between two looks, at most.
    """

    dependencies: Sequence[SignalDependency]
    places: Mapping[str, int]
    interval: float
    _fitted: set[int] = attrs.field(factory=set, init=False)
    _woken: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    async def fitted(self) -> set[int]:
        """Wait until a signal fits, and return the positions of the dependencies that signals have fitted since the last call."""
        await self._woken.wait()
        self._woken.clear()
        found, self._fitted = self._fitted, set()
        return found

    def wake(self, position: int) -> None:
        """Note that a signal fits the dependency at a position."""
        self._fitted.add(position)
        self._woken.set()


class Poller:
    """Looks at a store for all who wait in one event loop, in a thread, as long as somebody waits.

    Each name that is waited for has a place: the least that one of its waits has looked up to, then what the poller has read. So a
    wait that comes with an old place, after a restart of the triggerer, is caught up with by the same query.

    A store that does not answer is looked up anew by its connection: it may have moved, or have another password. So may one that a
    new wait has found elsewhere.
    """

    _of: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]]] = WeakKeyDictionary()

    def __init__(self, store: Store) -> None:
        self._store = store
        self._conn_id: str | None = None
        self._index: SignalIndex[tuple[Waiting, int]] = SignalIndex()
        self._waiting: set[Waiting] = set()
        self._names: dict[str, int] = {}  # how many dependencies are on each
        self._places: dict[str, int] = {}
        self._pause = math.inf  # seconds from the last look to the next
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        #: What was wrong at the last look; empty when it went well.
        self.trouble = ""

    @classmethod
    def of(cls, store: Store, conn_id: str | None = None) -> Poller:
        """Return the poller of this event loop for a store.

        :param store: as it was opened last.
        :param conn_id: Airflow connection by which it is opened again.
        """
        pollers = cls._of.setdefault(asyncio.get_running_loop(), {})
        poller = pollers.setdefault(store.store_id, cls(store))
        poller.use(store, conn_id)
        return poller

    @contextmanager
    def waiting(
        self, dependencies: Sequence[SignalDependency], places: Mapping[str, int], *, interval: float
    ) -> Iterator[Waiting]:
        """Wait for signals, for the length of a context.

        :param dependencies: what may wake; each alone, whatever their joins say.
        :param places: name of a signal -> ``seq`` up to which the caller has looked, 0 for a name that is missing.
        :param interval: seconds between two looks, at most; the least of all who wait holds.
        """
        one = Waiting(dependencies, places, interval)
        self._enter(one)
        try:
            yield one
        finally:
            self._leave(one)

    def _enter(self, one: Waiting) -> None:
        for position, dependency in enumerate(one.dependencies):
            name = dependency.name
            place = one.places.get(name, 0)
            self._index.add((one, position), dependency)
            self._names[name] = self._names.get(name, 0) + 1
            self._places[name] = min(place, self._places.get(name, place))
        if one.interval < self._pause:
            self._pause = one.interval
            self._hurry.set()
        self._waiting.add(one)
        if self._task is None:
            # In a context of its own: what it logs is not about the task whose trigger happened to come first.
            self._task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._poll())

    def _leave(self, one: Waiting) -> None:
        self._waiting.remove(one)
        for position, dependency in enumerate(one.dependencies):
            self._index.remove((one, position), dependency)
            self._names[dependency.name] -= 1
            if not self._names[dependency.name]:
                del self._names[dependency.name], self._places[dependency.name]
        if not self._waiting and self._task is not None:
            self._task.cancel()
            self._task = None
            self._stop_listening()

    async def _poll(self) -> None:
        while True:
            self._hurry.clear()
            try:
                await self._listen()
                while await self._look():
                    pass
            except IncrementalError as error:
                if not self.trouble:  # an outage is told of once
                    log.warning("could not look for new signals; looking again later: %s", error)
                self.trouble = str(error)
            except Exception as error:
                # A poll that ended would leave all who wait alone.
                log.warning("could not look for new signals; looking again later", exc_info=True)
                self.trouble = str(error)
            else:
                if self.trouble:
                    log.info("the store at %s answers again", self._store.where)
                self.trouble = ""
            if self.trouble:
                await self._open_again()
            try:
                self._pause = min(one.interval for one in self._waiting)
                await within(max(self._pause, PAUSE), self._hurry.wait())
            except asyncio.TimeoutError:
                continue
            await asyncio.sleep(PAUSE)

    def use(self, store: Store, conn_id: str | None) -> None:
        """Look at the store where it was opened last."""
        self._conn_id = conn_id or self._conn_id
        if store.engine.url != self._store.engine.url:
            self._store = store
            self._stop_listening()

    async def _open_again(self) -> None:
        """Take the store from where its connection says that it is now."""
        from airflow_incremental.hooks.store import IncrementalStoreHook

        if self._conn_id is None:
            return
        try:
            store = await IncrementalStoreHook.aget_store(self._conn_id)
        except Exception:
            log.debug("the connection %r does not help", self._conn_id, exc_info=True)
            return
        if store.store_id == self._store.store_id:
            self.use(store, self._conn_id)

    async def _look(self) -> bool:
        """Read one page of new signals, wake those they concern, and say whether there may be more."""
        asked = dict(self._places)
        signals = await self._patiently(in_thread_of(self._store.store_id, self._read, asked))
        read: dict[str, int] = {}
        for signal in signals:
            read[signal.name] = signal.seq
        # Before anybody is woken: who comes with an older place from here on looks for himself.
        for name, seq in read.items():
            # Somebody may have come with an older place, or everybody have gone, while the query ran; then this look was not his.
            if self._places.get(name) == asked[name]:
                self._places[name] = seq
        await self._wake(signals)
        return len(signals) == PAGE

    async def _patiently(self, asked: Awaitable[T]) -> T:
        """Return an answer of the store, unless it takes too long: a connection that leads nowhere is not closed for hours.

        Its thread is left to it. The next look has others, and another connection.
        """
        try:
            return await within(PATIENCE, asked)
        except asyncio.TimeoutError:
            leave_threads_of(self._store.store_id)
            raise StoreError(
                f"the store at {self._store.where} has not answered for {PATIENCE:g} seconds",
                expected="a database that answers",
                hint="see that it is up, that this machine reaches it, and whether it is overloaded",
            ) from None

    async def _wake(self, signals: Sequence[Signal]) -> None:
        """Wake all whom signals concern; many signals for many who wait take seconds, which are shared with other triggers."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        for signal in signals:
            for one, position in self._index.find(signal.name, signal.params):
                if signal.seq > one.places.get(signal.name, 0):
                    one.wake(position)
            if clock() - begun > SHARE:
                await asyncio.sleep(0)
                begun = clock()

    def _read(self, places: Mapping[str, int]) -> list[Signal]:
        from airflow_incremental.store.searching import since

        with self._store.read() as conn:
            return since(conn, places, limit=PAGE)

    async def _listen(self) -> None:
        """Listen for hints, where there are any: before a look, so that none is missed between the two."""
        from airflow_incremental.store.hints import Listener, are_on

        if self._listener is not None or not are_on(self._store.engine):
            return
        self._listener = await in_thread_of(self._store.store_id, Listener.open, self._store.engine)
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener.file, self._heard)

    def _heard(self) -> None:
        if self._listener is not None and not self._listener.is_alive():
            self._stop_listening()  # until the next look, which connects again
        self._hurry.set()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.file)
            self._listener.close()
            self._listener = None
