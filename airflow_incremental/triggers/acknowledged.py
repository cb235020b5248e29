"""Airflow's shared streams as a way to hear when it has an event: in its database, not only in the triggerer's memory.

Airflow has them from 3.3 on; this module can only be imported there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from airflow_incremental.triggers.announcing import Announcer

#: Matches on their way at once; a subscriber of Airflow's has a queue of 1,024, and fails when it runs over.
ON_THEIR_WAY = 500


class MatchProducer(SharedStreamProducer):
    """Hands matches over, and notes them when Airflow says that their events are in its database.

    A triggerer that is killed in between has noted nothing, and the next one hands them over again.

    :param kwargs: of the trigger.
    """

    def __init__(self, kwargs: Mapping[str, Any]) -> None:
        self._announcer = Announcer(**kwargs)
        self._free = asyncio.Semaphore(ON_THEIR_WAY)

    async def open_stream(self) -> AsyncIterator[tuple[dict[str, Any], str]]:
        """Yield the payload of each match with the id of the match."""
        async with aclosing(self._announcer.matches()) as matches:
            async for match in matches:
                await self._free.acquire()
                yield match.to_json(), match.id

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Note the matches whose events are stored. The others are handed over again when the trigger, which failed, is back."""
        stored = [item.broker_payload for item in batch if item.outcome.is_clean]
        if stored:
            await self._announcer.note(stored)
        for _ in batch:
            self._free.release()
