"""Everything whose home differs between Airflow 3.1 and later; no other module of this package cares which Airflow runs it.

The official common-compat provider, which the Iceberg provider depends on, knows where things are. Names are looked up when they
are first used: a DAG file needs few of them, and some of their homes take long to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from uuid import UUID

    from airflow.providers.common.compat.sdk import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowPlugin,
        AirflowSensorTimeout,
        AirflowSkipException,
        Asset,
        BaseHook,
        BaseOperator,
        BaseOperatorLink,
        BaseSensorOperator,
        Connection,
        DownstreamTasksSkipped,
        Param,
        SkipMixin,
        Stats,
        TaskDeferred,
        TaskGroup,
        XComArg,
        conf,
        get_current_context,
    )
    from airflow.providers.standard.operators.hitl import ApprovalOperator
    from airflow.providers.standard.triggers.hitl import HITLTrigger
    from airflow.sdk import PokeReturnValue
    from airflow.sdk.log import mask_secret
    from airflow.triggers.shared_stream import SharedStreamProducer

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowPlugin",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "ApprovalOperator",
    "Asset",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "Connection",
    "DownstreamTasksSkipped",
    "HITLTrigger",
    "Param",
    "PokeReturnValue",
    "SharedStreamProducer",
    "SkipMixin",
    "Stats",
    "TaskDeferred",
    "TaskGroup",
    "XComArg",
    "ask_person",
    "conf",
    "connection_is_missing",
    "get_current_context",
    "mask_secret",
    "state_stores",
    "wait_for_answer",
]

#: What the common-compat provider does not pass on, or not in all versions.
_HOMES = {
    "ApprovalOperator": "airflow.providers.standard.operators.hitl",
    "HITLTrigger": "airflow.providers.standard.triggers.hitl",
    "PokeReturnValue": "airflow.sdk",
    "SharedStreamProducer": "airflow.triggers.shared_stream",  # since Airflow 3.3
    "mask_secret": "airflow.sdk.log",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    home = import_module(_HOMES.get(name, "airflow.providers.common.compat.sdk"))
    value = getattr(home, name)
    globals()[name] = value
    return value


def connection_is_missing(conn_id: str) -> bool:
    """Say whether Airflow's API server knows for sure that there is no such connection.

    ``get_connection`` does not tell: to it, a server that does not answer for a moment is one that has no connection. Outside tasks
    and triggers it asks the database itself, so there is nothing to make sure of.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection

    supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None)
    if supervisor is None:
        return True
    try:
        answer = supervisor.send(GetConnection(conn_id=conn_id))
    except AirflowRuntimeError as error:
        answer = error.error
    return isinstance(answer, ErrorResponse) and answer.error == ErrorType.CONNECTION_NOT_FOUND


def ask_person(ti_id: UUID, question: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put a question to people, as Airflow's own operators do, and return what they are shown.

    That may be another one: Airflow keeps the first question of a task in a run, through retries and clears, and only takes an
    answer away that it has got already.

    :param ti_id: the running try, whose question it is.
    :param question: the fields ``options``, ``subject``, ``body``, ``defaults``, ``params`` and ``assigned_users``.
    """
    from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    shown = SUPERVISOR_COMMS.send(msg=CreateHITLDetailPayload(ti_id=ti_id, **question))
    return {"subject": getattr(shown, "subject", None), "body": getattr(shown, "body", None)}


def wait_for_answer(method_name: str, timeout: dt.timedelta | None) -> BaseException | None:
    """Return what a task raises to wait for an answer without a trigger; None before Airflow 3.3, which has no such thing."""
    try:
        from airflow.sdk.exceptions import TaskAwaitingInput
    except ImportError:
        return None
    return TaskAwaitingInput(method_name=method_name, timeout=timeout)


def state_stores(trigger: object) -> list[Any]:
    """Return the state stores of all assets that an event trigger is watched by; none before Airflow 3.3, which has no such thing.

    Airflow's own access, which knows no assets in a trigger, refuses to choose between several.
    """
    access = getattr(trigger, "asset_state_store", None)
    if access is None:
        return []
    return [*access._by_name.values(), *access._by_uri.values()]  # noqa: SLF001
