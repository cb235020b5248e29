"""Wait, in the triggerer, until a table is complete through an event time."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.core.ranges import format_time, parse_time
from airflow_incremental.triggers.sharing import Look, looks

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from airflow_incremental.iceberg.waiting import Told

log = logging.getLogger(__name__)


class WatermarkTrigger(BaseTrigger):
    """Fires when a table is complete through an event time, or when waiting cannot make it so.

    The event is ``{"result": {...}}``, or ``{"error": text}`` for what a person has to mend. A catalog that does not answer is
    asked again. All that wait for one table in a triggerer share one load of it per interval.

    :param iceberg_conn_id: Airflow connection of the catalog.
    :param table: identifier of the table.
    :param process: the process that counts; None: all that publish to the table.
    :param rule: plain form of the rule of a table that no process loads, or None.
    :param complete_through: event time (exclusive), ISO 8601 with zone.
    :param poll_interval: seconds between two looks.
    """

    def __init__(
        self,
        *,
        iceberg_conn_id: str,
        table: str,
        process: str | None,
        rule: Mapping[str, Any] | None,
        complete_through: str,
        poll_interval: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.iceberg_conn_id = iceberg_conn_id
        self.table = table
        self.process = process
        self.rule = rule
        self.complete_through = complete_through
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as the triggerer stores them."""
        names = ("iceberg_conn_id", "table", "process", "rule", "complete_through", "poll_interval")
        return (f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the table is complete."""
        async with aclosing(looks(self.iceberg_conn_id, self.table, self.poll_interval)) as seen:
            async for look in seen:
                if (event := await self._event(look)) is not None:
                    yield event
                    return

    async def _event(self, look: Look) -> TriggerEvent | None:
        """Return what a look leads to; None to go on waiting."""
        try:
            told = await look.ask(_told, self.process, CompleteThrough.parse(self.rule))
        except IncrementalError as error:
            return TriggerEvent({"error": str(error)})  # type: ignore[no-untyped-call]
        except Exception:
            log.warning("could not find out how far %s is complete; looking again later", self.table, exc_info=True)
            return None
        result = result_of(self.table, told, parse_time(self.complete_through))
        if result is None:
            log.info("waiting for %s: %s", self.complete_through, told)
            return None
        return TriggerEvent({"result": result})  # type: ignore[no-untyped-call]


def _told(table: Table | None, process: str | None, rule: CompleteThrough | None) -> Told:
    from airflow_incremental.iceberg.waiting import ask  # in the look's thread: it takes time

    return ask(table, process, rule)


def result_of(table: str, told: Told, wanted: dt.datetime) -> dict[str, Any] | None:
    """Return the sensor's result: what the table said when it was complete; None if it is not.

    :param wanted: event time (exclusive) it has to be complete through.
    """
    if told.through is None or told.through < wanted:
        return None
    return {
        "table": table,
        "process": told.process,
        "complete_through": format_time(told.through),
        "snapshot_id": told.snapshot_id,
    }
