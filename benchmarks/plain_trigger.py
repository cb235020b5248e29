"""A trigger as one writes it first: it asks the store for itself, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_incremental.core.signals import SignalDependency
from airflow_incremental.store.database import Store
from airflow_incremental.store.searching import find_gate
from airflow_incremental.triggers.stores import open_store


class PlainTrigger(BaseTrigger):
    """Fires when a signal is there.

    :param signal: what is waited for, in plain form.
    :param poll_interval: seconds between two looks.
    """

    def __init__(self, *, signal: Mapping[str, Any], poll_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.signal = signal
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as the triggerer stores them."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {"signal": self.signal, "poll_interval": self.poll_interval}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is there."""
        store = await open_store("incremental_default", None, interval=self.poll_interval, tell=self.log.warning)
        dependency = SignalDependency.read(self.signal)
        while not await asyncio.to_thread(_is_there, store, dependency):  # noqa: ASYNC110  # others cannot tell it
            await asyncio.sleep(self.poll_interval)
        yield TriggerEvent({})  # type: ignore[no-untyped-call]


def _is_there(store: Store, dependency: SignalDependency) -> bool:
    with store.read() as conn:
        return find_gate(conn, [dependency]) is not None
