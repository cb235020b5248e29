"""Matches of a subscription on their way to Airflow: found once, handed over in order, noted when Airflow has them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.core.signals import SignalDependency, read_dependencies
from airflow_incremental.triggers.polling import Poller
from airflow_incremental.triggers.stores import open_store
from airflow_incremental.triggers.threads import in_time
from airflow_incremental.triggers.within import within

if TYPE_CHECKING:
    from airflow_incremental.store.database import Store
    from airflow_incremental.store.matches import Match

T = TypeVar("T")
log = logging.getLogger(__name__)

#: Matches read at once.
PAGE = 100
#: Seconds until something is tried again that only a person can mend.
MENDING = 60.0
#: Seconds after which a subscription is looked at without news, too: so it shows that it has a triggerer, and hears when its
#: connection leads to another store, as after somebody has made one.
SEEN = 60.0


class Announcer:
    """The matches of one subscription that Airflow may not have yet, and the note that it has.

    Nothing is kept here that a crash could lose: a match is in the store before it is handed over, and is handed over again, by
    whoever is the next announcer, until it is noted. Errors are told in the log and tried again, because nobody would miss a
    trigger that ends.

    :param subscription: its name; it is made at the first look.
    :param signals: its dependencies in plain form, as JSON text.
    :param start: ``latest`` or ``earliest``, for one that is made.
    :param poll_interval: seconds between two looks, at most.
    :param incremental_conn_id: Airflow connection of the store.
    """

    def __init__(
        self,
        *,
        subscription: str,
        signals: str,
        start: Any,
        poll_interval: float,
        incremental_conn_id: str,
    ) -> None:
        self._subscription = subscription
        self._signals = read_dependencies(json.loads(signals))
        self._start = start
        self._interval = poll_interval
        self._conn_id = incremental_conn_id

    async def matches(self) -> AsyncGenerator[Match, None]:
        """Hand over matches for ever, each once, oldest first."""
        # Any signal of the names, so that the subscription's place moves on and old signals can be cleaned away.
        names = [SignalDependency(name) for name in sorted({d.name for d in self._signals})]
        while True:
            store, places = await self._ask(self._subscribe)
            last = 0
            with Poller.of(store, self._conn_id).waiting(names, places, interval=self._interval) as waiting:
                while await self._ask(partial(self._advance, store.store_id)):
                    while found := await self._ask(partial(self._unannounced, after=last)):
                        for match in found:
                            yield match
                        last = found[-1].number
                    with suppress(asyncio.TimeoutError):
                        await within(SEEN, waiting.fitted())
            log.warning("the connection %r leads to another store now; subscribing there", self._conn_id)

    async def note(self, match_ids: Sequence[str]) -> None:
        """Note that Airflow has the events of matches."""

        def work(store: Store) -> None:
            from airflow_incremental.store.matches import mark_announced

            store.writing(lambda conn: mark_announced(conn, match_ids))

        await self._ask(work)

    async def _store(self) -> Store:
        return await open_store(self._conn_id, None, interval=self._interval, tell=self._tell)

    async def _ask(self, work: Callable[[Store], T]) -> T:
        """Do work on the store in a thread, again and again until it succeeds; it may go on in the one that was given up."""
        while True:
            try:
                store = await self._store()
                return await in_time(store.store_id, work, store)
            except IncrementalError as error:
                self._tell(str(error))
                pause = self._interval if error.retryable else max(self._interval, MENDING)
            except Exception:
                log.exception("subscription %r waits; trying again later", self._subscription)
                pause = max(self._interval, MENDING)
            await asyncio.sleep(pause)

    def _tell(self, trouble: str) -> None:
        log.error("subscription %r waits; trying again later: %s", self._subscription, trouble)

    def _subscribe(self, store: Store) -> tuple[Store, Mapping[str, int]]:
        """Subscribe, and return where, and the places from which on news are waited for: those before are looked at afterwards."""
        from airflow_incremental.store.searching import newest
        from airflow_incremental.store.subscriptions import subscribe

        store.writing(lambda conn: subscribe(conn, self._subscription, self._signals, start=self._start))
        with store.read() as conn:
            return store, newest(conn, {d.name for d in self._signals})

    def _advance(self, store_id: str, store: Store) -> bool:
        """Look for matches, and say whether that was in the store that was subscribed to."""
        from airflow_incremental.store.subscriptions import advance

        if store.store_id != store_id:
            return False
        store.writing(lambda conn: advance(conn, self._subscription))
        return True

    def _unannounced(self, store: Store, *, after: int) -> list[Match]:
        from airflow_incremental.store.matches import unannounced

        with store.read() as conn:
            return unannounced(conn, self._subscription, PAGE, after=after)
