"""Emitting signals: by a task of its own, or from inside a task."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_incremental.compat import BaseOperator, BaseOperatorLink, get_current_context
from airflow_incremental.core.signal_literals import check_emission, plain_values
from airflow_incremental.core.signals import Emitter
from airflow_incremental.operators.arguments import is_open
from airflow_incremental.operators.assets import DEFAULT_STORE_CONN_ID
from airflow_incremental.operators.links import SignalsLink
from airflow_incremental.operators.runtime import emitter_of, failing_for_good

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def emit_signal(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    payload: Any = None,
    *,
    request_id: str | None = None,
    incremental_conn_id: str = DEFAULT_STORE_CONN_ID,
) -> dict[str, Any]:
    """Say that a thing is true; for use inside tasks, such as those made by ``@task``, and in programs outside Airflow.

    It is there for others when this returns, whatever becomes of the task afterwards. Saying it again, as a retry does, changes
    nothing.

    :param name: of the signal, such as the identifier of a table.
    :param parameters: name -> string, integer, date or timestamp with zone, 16 at most. A parameter has one kind for good.
    :param payload: free JSON of 64 KiB at most, which is not searched.
    :param request_id: what makes it one fact. Default: the name and the parameters, so that another payload is no new fact.
    :param incremental_conn_id: Airflow connection of the store.
    :return: the signal; its ``new`` is False if it had been emitted before.
    :raises ArgumentError: an argument is wrong.
    :raises StoreError: the store does not answer; worth a retry.
    """
    try:
        emitter = emitter_of(get_current_context())
    except RuntimeError:  # no task is running here
        emitter = Emitter(source="function")
    return _emit((name, parameters, payload), request_id, emitter, incremental_conn_id)


class EmitSignalOperator(BaseOperator):
    """Say that a thing is true: emit a signal with parameters, which steps wait for and runs start from.

    The result is the signal; its ``new`` is False if it had been emitted before, which changes nothing.

    :param name: of the signal, such as the identifier of a table; templated, like all arguments that follow.
    :param parameters: name -> string, integer, date or timestamp with zone, 16 at most. What a template renders is text; mark it by
        ``as_timestamp``, ``as_date`` or ``as_integer`` to make it one of these. (The argument ``params`` is Airflow's own.)
    :param payload: free JSON of 64 KiB at most, which is not searched.
    :param request_id: what makes it one fact. Default: the name and the parameters, so that another payload is no new fact.
    :param incremental_conn_id: Airflow connection of the store; without it, a SQLite file in the Airflow home.
    :param retries: tries after the first, because a store may be down for a moment.
    :param retry_delay: time between tries.
    """

    template_fields: Sequence[str] = ("name", "parameters", "payload", "request_id", "incremental_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json", "payload": "json"}
    ui_color = "#e6f7d9"
    operator_extra_links: Sequence[BaseOperatorLink] = (SignalsLink(),)

    def __init__(
        self,
        *,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        payload: Any = None,
        request_id: str | None = None,
        incremental_conn_id: str = DEFAULT_STORE_CONN_ID,
        retries: int = 2,
        retry_delay: dt.timedelta | float = dt.timedelta(seconds=30),
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        self.name = name
        self.parameters = plain_values(parameters, what="parameters")
        self.payload = payload
        self.request_id = request_id
        self.incremental_conn_id = incremental_conn_id
        # What another task says is not known yet; the rest is.
        known = [None if is_open(value) else value for value in (self.parameters, payload, request_id)]
        check_emission("open" if is_open(name) else name, *known)

    def execute(self, context: Context) -> dict[str, Any]:
        """Emit it."""
        with failing_for_good():
            fact = (self.name, self.parameters, self.payload)
            return _emit(fact, self.request_id, emitter_of(context), self.incremental_conn_id)


def _emit(
    fact: tuple[str, Any, Any], request_id: str | None, emitter: Emitter, incremental_conn_id: str
) -> dict[str, Any]:
    from airflow_incremental.hooks.store import IncrementalStoreHook
    from airflow_incremental.store.emitting import Emission, emit

    emission = Emission.read(*fact, request_id=request_id, emitter=emitter)
    emitted = emit(IncrementalStoreHook(incremental_conn_id).store(), emission)
    signal = emitted.signal
    what = f"signal {signal.name!r} number {signal.seq}"
    if emitted.new:
        log.info("emitted %s", what)
    else:
        log.info("%s had been emitted already, at %s; nothing to do", what, signal.created_at.isoformat())
    return {**signal.to_json(), "new": emitted.new}
