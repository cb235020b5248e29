"""Everything whose home differs between Airflow 3.1 and later; no other module of this package cares which Airflow runs it.

The official common-compat provider, which the Iceberg provider depends on, knows where things are. Names are looked up when they
are first used: a DAG file needs few of them, and some of their homes take long to import.
"""

from __future__ import annotations

from importlib import import_module
from math import prod
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
    "find_dag",
    "get_current_context",
    "instances",
    "is_deferral_timeout",
    "mask_secret",
    "state_stores",
    "template_context",
    "upstream_of",
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


def find_dag(dag_id: str) -> tuple[Any, Mapping[str, str]]:
    """Return a DAG of this Airflow's bundles, as its file says now (None if there is none), and files that cannot be imported.

    Only the file that the DAG was last seen in is read, if Airflow knows it.
    """
    import sys
    from pathlib import Path

    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.models.dag import DagModel

    try:
        home: Any = import_module("airflow.dag_processing.dagbag")
    except ImportError:  # before Airflow 3.2
        home = import_module("airflow.models.dagbag")
    known = DagModel.get_dagmodel(dag_id)
    errors: dict[str, str] = {}
    for bundle in DagBundlesManager().get_all_dag_bundles():  # type: ignore[no-untyped-call]
        if known is not None and known.bundle_name not in (None, bundle.name):
            continue
        bundle.initialize()
        if str(bundle.path) not in sys.path:
            sys.path.append(str(bundle.path))
        file = None if known is None or not known.relative_fileloc else Path(bundle.path) / known.relative_fileloc
        bag = home.DagBag(dag_folder=file or bundle.path, bundle_path=bundle.path)
        errors |= bag.import_errors
        if dag_id in bag.dags:
            return bag.dags[dag_id], errors
    return None, errors


def template_context(task: Any, params: Mapping[str, Any]) -> Any:
    """Return what templates can refer to without a run: ``params``, ``var``, ``conn``, ``macros``, ``dag`` and ``task``."""
    from airflow.sdk.execution_time.context import ConnectionAccessor, MacrosAccessor, VariableAccessor

    return {
        "dag": task.dag,
        "task": task,
        "params": {**task.dag.params.dump(), **task.params.dump(), **params},
        "var": {"json": VariableAccessor(deserialize_json=True), "value": VariableAccessor(deserialize_json=False)},
        "conn": ConnectionAccessor(),
        "macros": MacrosAccessor(),
    }


def instances(task: Any) -> list[tuple[Any, Mapping[str, Any]]] | None:
    """Return a task of a DAG file as it runs, with what its templates can refer to besides: once, or once per map index.

    :returns: copies, whose fields may be rendered; None if what the task or its group is mapped over is known only in a run.
    """
    from types import SimpleNamespace

    from airflow.sdk.definitions.mappedoperator import MappedOperator

    mapped, group = isinstance(task, MappedOperator), task.get_closest_mapped_task_group()
    if not mapped and group is None:
        return [(task.prepare_for_execution(), {})]
    over = task.expand_input if mapped else group._expand_input  # noqa: SLF001  (groups have no other way)
    if hasattr(over.value, "resolve"):
        return None
    crossed = isinstance(over.value, dict)
    if any(hasattr(values, "resolve") for values in (over.value.values() if crossed else over.value)):
        return None
    count = prod(len(values) for values in over.value.values()) if crossed else len(over.value)
    found: list[tuple[Any, Mapping[str, Any]]] = []
    for index in range(count):
        context = {"ti": SimpleNamespace(map_index=index)}
        instance = task.unmap(over.resolve(context)[0]) if mapped else task.prepare_for_execution()
        found.append((instance, context))
    return found


def upstream_of(argument: Any) -> list[str]:
    """Return the ids of the tasks of whose results an argument is made."""
    from airflow.sdk.definitions.xcom_arg import XComArg

    return sorted({found.task_id for found, _ in XComArg.iter_xcom_references(argument)})


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


def is_deferral_timeout(error: BaseException | None) -> bool:
    """Say whether an error is that Airflow has ended a deferral whose trigger did not fire in time."""
    try:
        from airflow.sdk.exceptions import TaskDeferralTimeout
    except ImportError:  # before Airflow 3.2
        from airflow.exceptions import TaskDeferralTimeout  # type: ignore[no-redef]
    return isinstance(error, TaskDeferralTimeout)


def state_stores(trigger: object) -> list[Any]:
    """Return the state stores of all assets that an event trigger is watched by; none before Airflow 3.3, which has no such thing.

    Airflow's own access, which knows no assets in a trigger, refuses to choose between several.
    """
    access = getattr(trigger, "asset_state_store", None)
    if access is None:
        return []
    return [*access._by_name.values(), *access._by_uri.values()]  # noqa: SLF001
