"""The polls that all watchers of a table share, where Airflow has shared streams (since 3.3); imported by the triggerer only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from airflow_incremental.compat import SharedStreamProducer
from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.triggers.iceberg import Poll
from airflow_incremental.triggers.sharing import looks

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem


class LookProducer(SharedStreamProducer):
    """Looks at a table at intervals, and has places kept once Airflow has stored all events of a look.

    :param iceberg_conn_id: Airflow connection of the catalog.
    :param table: identifier of the table.
    :param poll_interval: seconds between two looks.
    """

    def __init__(self, iceberg_conn_id: str, table: str, poll_interval: float) -> None:
        self.iceberg_conn_id = iceberg_conn_id
        self.table = table
        self.poll_interval = poll_interval

    async def open_stream(self) -> AsyncIterator[tuple[Any, Any]]:
        """Yield a poll per interval, whether anything is new or not: who comes later, or starts anew, finds its own news."""
        async with aclosing(looks(self.iceberg_conn_id, self.table, self.poll_interval)) as seen:
            async for look in seen:
                poll = Poll(look)
                yield poll, poll

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Keep the places of polls whose events are all stored.

        :raises IncrementalError: an event of a poll was not stored in time. Later places must not be kept then, as they stand for
            it too: Airflow starts all watchers of the stream anew, from the places they kept.
        """
        for item in batch:
            if item.outcome.failed:
                raise IncrementalError(
                    "Airflow did not store an event of a watched table in time",
                    expected="events stored within [triggerer] shared_stream_ack_timeout",
                    hint="nothing is lost: the watchers start again from the places they kept, and tell it again",
                )
            await item.broker_payload.save()
