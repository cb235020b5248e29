"""Wait, in the triggerer, until a gate may open."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signals import SignalDependency, read_dependencies
from airflow_incremental.triggers.polling import Poller
from airflow_incremental.triggers.stores import open_store
from airflow_incremental.triggers.threads import in_thread_of
from airflow_incremental.triggers.within import within

if TYPE_CHECKING:
    from airflow_incremental.store.database import Store

log = logging.getLogger(__name__)


class SignalTrigger(BaseTrigger):
    """Fires when a gate may be open, when its wait was bypassed, or when its time is over.

    It only wakes the task, which looks itself and then records what released it; so an event that is lost with its triggerer, or
    comes twice, does no harm. A store that does not answer is asked again at the next poll.

    :param wait_id: the wait, for its bypass.
    :param signals: what is waited for, in plain form.
    :param places: name of a signal -> ``seq`` up to which the task has looked.
    :param store_id: the store in which it looked.
    :param until: when the time is over, as ISO 8601.
    :param poll_interval: seconds between two looks, at most.
    :param incremental_conn_id: Airflow connection of the store.
    """

    def __init__(
        self,
        *,
        wait_id: str,
        signals: Sequence[Mapping[str, Any]],
        places: Mapping[str, int],
        store_id: str,
        until: str,
        poll_interval: float,
        incremental_conn_id: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wait_id = wait_id
        self.signals = signals
        self.places = places
        self.store_id = store_id
        self.until = until
        self.poll_interval = poll_interval
        self.incremental_conn_id = incremental_conn_id
        self._trouble = ""
        self._poller: Poller | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as the triggerer stores them."""
        names = ("wait_id", "signals", "places", "store_id", "until", "poll_interval", "incremental_conn_id")
        return (f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until there is a reason to wake the task."""
        left = (dt.datetime.fromisoformat(self.until) - dt.datetime.now(UTC)).total_seconds()
        try:
            why = await within(max(left, 0), self._reason())
        except asyncio.TimeoutError:
            trouble = self._trouble or (self._poller.trouble if self._poller else "")
            why = {"timed_out": True, "trouble": trouble}
        yield TriggerEvent({"wait": self.wait_id, "until": self.until, **why})  # type: ignore[no-untyped-call]

    async def _reason(self) -> dict[str, Any]:
        from airflow_incremental.store.waits import BYPASS

        try:
            store = await open_store(
                self.incremental_conn_id, self.store_id, interval=self.poll_interval, tell=self._note
            )
        except IncrementalError as error:
            return {"error": str(error)}
        self._trouble = ""
        dependencies = read_dependencies(self.signals)
        bypass = SignalDependency.read({"name": BYPASS, "match": {"wait": self.wait_id}})
        self._poller = Poller.of(store, self.incremental_conn_id)
        with self._poller.waiting([*dependencies, bypass], self.places, interval=self.poll_interval) as waiting:
            while True:
                fitted = await waiting.fitted()
                # A single signal, or a bypass, is enough. Of several signals the store knows whether they join.
                if len(dependencies) == 1 or len(dependencies) in fitted or await self._opens(store, dependencies):
                    return {}

    async def _opens(self, store: Store, dependencies: Sequence[SignalDependency]) -> bool:
        """Say whether signals that fit each other are in history, or something that the task has to hear of is wrong."""
        while True:
            try:
                is_open = await in_thread_of(store.store_id, _gate_is_open, store, dependencies)
            except IncrementalError as error:
                if not error.retryable:
                    return True  # the task looks, and says what it is
                self._note(str(error))
            else:
                self._trouble = ""
                return is_open
            await asyncio.sleep(self.poll_interval)

    def _note(self, trouble: str) -> None:
        log.warning("could not look for signals; looking again later: %s", trouble)
        self._trouble = trouble


def _gate_is_open(store: Store, dependencies: Sequence[SignalDependency]) -> bool:
    from airflow_incremental.store.searching import find_gate

    with store.read() as conn:
        return find_gate(conn, dependencies) is not None
