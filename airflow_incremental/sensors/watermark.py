"""The sensor that waits until an Iceberg table is complete through an event time."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_incremental.compat import (
    AirflowFailException,
    BaseSensorOperator,
    PokeReturnValue,
    TaskDeferred,
)
from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import check_table, is_template
from airflow_incremental.core.ranges import format_time, parse_time, utc
from airflow_incremental.core.spec import check_process_name
from airflow_incremental.operators.arguments import is_open
from airflow_incremental.operators.assets import DEFAULT_CONN_ID
from airflow_incremental.operators.runtime import catalog_of, failing_for_good
from airflow_incremental.sensors.softly import failing_softly
from airflow_incremental.triggers.watermark import WatermarkTrigger, result_of

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class WatermarkSensor(BaseSensorOperator):
    """Wait until an Iceberg table is complete through an event time, as the loads that publish to it say. No store is needed.

    "Complete through T" means that all event times before T are there, as far as anybody can tell: what still comes is late, and is
    loaded too. The sensor looks at the table as it is, so it opens at once when the time was passed long ago, in any kind of run:
    scheduled, manual, of an asset, or of a backfill. That complete-through may fall again after it was passed is not its concern.

    A table that does not exist yet, and a process that has not published yet, are waited for, because a first load may still be
    to come; the log says what is missing, and ``timeout`` ends it. The task fails, without retry, where waiting is no help: no
    process publishes to the table and no rule is given; a watermark is lost; a property cannot be understood.

    The result is a dict of ``table``, ``process`` (the one that decided, the least far), ``complete_through`` (how far it was
    complete) and ``snapshot_id`` (the snapshot of ``main`` of which that was true; later ones may add to it).

    :param table: identifier, ``namespace.table``. Default: the name of the process, which is its target's identifier unless it was
        given another one.
    :param process: the process whose watermark counts. Default: all that publish to the table; each has to be complete.
    :param complete_through: event time (exclusive): an ISO 8601 time with zone, such as ``"{{ data_interval_end }}"`` makes, or a
        datetime with zone.
    :param rule: for a table that no process publishes to: ``CompleteThrough.property(name)``, or
        ``CompleteThrough.arrival(lateness=...)``: the commit time of its newest snapshot, less the lateness.
    :param iceberg_conn_id: Airflow connection of the catalog.
    :param deferrable: wait in the triggerer, where all that wait for one table share one look at it per ``poke_interval``. False
        waits in a worker as ``mode`` says (``"poke"`` or ``"reschedule"``).
    :param poke_interval: seconds (or a timedelta) between two looks; in the triggerer it is always the same
        (``exponential_backoff`` and ``max_wait`` are for workers).
    :param kwargs: of every sensor, among them ``timeout`` and ``soft_fail``.
    """

    template_fields: Sequence[str] = ("table", "process", "complete_through", "iceberg_conn_id")
    ui_color = "#d9ecf7"

    def __init__(
        self,
        *,
        complete_through: dt.datetime | str,
        table: str | None = None,
        process: str | None = None,
        rule: CompleteThrough | Mapping[str, Any] | str | None = None,
        iceberg_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if table is None and process is None:
            raise ArgumentError(
                "WatermarkSensor is given neither table nor process",
                expected="the table that is waited for, or the process that loads it",
                hint="give table='namespace.table'",
            )
        if deferrable and self.mode != "poke":
            raise ArgumentError(
                f"WatermarkSensor has mode={self.mode!r} and is deferrable, so the mode would mean nothing",
                expected="one way to wait",
                hint="leave mode out to wait in the triggerer, or add deferrable=False",
            )
        self.table = table if table is not None else process
        self.process = process
        self.complete_through = complete_through
        self.rule = _rule(rule, process)
        self.iceberg_conn_id = iceberg_conn_id
        self.deferrable = deferrable
        self._check()

    def _check(self) -> None:
        """Refuse what is known to be wrong: at parse time what is literal, in the task what was rendered."""
        if not is_open(self.table):
            check_table(self.table, what="the table of WatermarkSensor")
        if self.process is not None and not is_open(self.process):
            check_process_name(self.process)
        if not is_open(self.complete_through) and not is_template(self.complete_through):
            _moment(self.complete_through)

    def execute(self, context: Context) -> Any:
        """Look once, and wait if the table is not complete yet.

        :raises AirflowFailException: an argument is wrong, or the table does not tell how far it is complete.
        """
        if not self.deferrable:
            return super().execute(context)
        with failing_softly(self):
            found = self.poke(context)
        if found.is_done:
            return found.xcom_value
        raise TaskDeferred(
            trigger=WatermarkTrigger(
                iceberg_conn_id=self.iceberg_conn_id,
                table=str(self.table),
                process=self.process,
                rule=None if self.rule is None else self.rule.as_dict(),
                complete_through=format_time(_moment(self.complete_through)),
                poll_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            timeout=dt.timedelta(seconds=self.timeout),
        )

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002
        """Look at the table once."""
        from airflow_incremental.iceberg.waiting import ask, find_table

        with failing_for_good():
            self._check()
            wanted = _moment(self.complete_through)
            told = ask(find_table(catalog_of(self.iceberg_conn_id), str(self.table)), self.process, self.rule)
        log.info("waiting for %s to be complete through %s: %s", self.table, format_time(wanted), told)
        result = result_of(str(self.table), told, wanted)
        return PokeReturnValue(is_done=result is not None, xcom_value=result)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Take over what the triggerer found.

        :raises AirflowFailException: waiting is no help.
        """
        if "error" in event:
            raise AirflowFailException(event["error"])
        return dict(event["result"])


def _rule(given: CompleteThrough | Mapping[str, Any] | str | None, process: str | None) -> CompleteThrough | None:
    """Return the rule of a table that no process loads; None where processes say it."""
    rule = CompleteThrough.parse(given)
    if rule is None or rule.rule == "published":
        return None
    if rule.rule == "latest_event":
        raise ArgumentError(
            "WatermarkSensor has the rule 'latest_event', which would read the rows of the table at every look",
            expected="'property' or 'arrival'",
            hint="let an incremental load with complete_through=CompleteThrough.latest_event(...) publish it, and wait for that",
        )
    if process is not None:
        raise ArgumentError(
            f"WatermarkSensor has process={process!r} and the rule {rule.rule!r}",
            expected="a process, which publishes how far it is, or a rule for a table without one",
            hint="leave one of them out",
        )
    return rule


def _moment(value: Any) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return utc(value, what="complete_through")
    if not isinstance(value, str):
        raise ArgumentError(
            f"complete_through is {value!r}", expected="a datetime with zone, or an ISO 8601 time with zone"
        )
    return parse_time(value, what="complete_through")
