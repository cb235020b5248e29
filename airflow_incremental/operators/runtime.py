"""From a running task to what a session needs: who runs it, on which catalog, and whether another run is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_incremental.compat import AirflowFailException, conf
from airflow_incremental.core.errors import CatalogError, IncrementalError
from airflow_incremental.core.plan import Owner
from airflow_incremental.core.signals import Emitter

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

#: States of a run that may still do something. A run that Airflow does not know any more is over.
ALIVE = ("queued", "running")


@contextmanager
def failing_for_good() -> Iterator[None]:
    """Tell Airflow when a retry cannot get past an error of this package."""
    try:
        yield
    except IncrementalError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error


def deployment() -> str:
    """Return the identity of this Airflow deployment: the option ``[incremental] deployment``, else the address of its API.

    Sessions of another deployment are never taken over, because nobody here can tell whether their runs are alive. Two deployments
    that load the same tables must therefore differ in it.
    """
    named = conf.get("incremental", "deployment", fallback=None)
    if named:
        return str(named)
    return str(conf.get("api", "base_url", fallback=None) or "http://localhost:8080").rstrip("/")


def owner_of(context: Mapping[str, Any], *, task_id: str) -> Owner:
    """Return who runs a session.

    :param context: the task's context.
    :param task_id: the task, or the group whose stages share one session.
    """
    ti, run = context["ti"], context["dag_run"]
    return Owner(
        deployment=deployment(),
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        clear_number=getattr(run, "clear_number", None) or 0,
    )


def emitter_of(context: Mapping[str, Any], *, source: str = "task") -> Emitter:
    """Return the running task, as the store names it.

    :param context: the task's context.
    """
    ti = context["ti"]
    return Emitter(
        source=source,
        deployment=deployment(),
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=int(ti.try_number),
    )


def run_is_over(count_runs: Callable[..., int], owner: Owner) -> bool:
    """Say whether the run that holds a lock has ended or is gone, as far as this deployment knows.

    :param count_runs: ``RuntimeTaskInstance.get_dr_count``, which works in tasks and in triggers.
    :param owner: holder of the lock; one without a run is not Airflow's and never counts as over.
    """
    return bool(owner.run_id) and count_runs(dag_id=owner.dag_id, run_ids=[owner.run_id], states=list(ALIVE)) == 0


def catalog_of(iceberg_conn_id: str) -> Catalog:
    """Return the catalog of an Airflow connection, through the official Iceberg provider.

    :raises CatalogError: there is no such connection, or no catalog behind it.
    """
    from airflow.providers.apache.iceberg.hooks.iceberg import IcebergHook

    hook = IcebergHook(iceberg_conn_id)
    try:
        kind = hook.get_connection(iceberg_conn_id).conn_type
    except Exception as error:
        raise CatalogError(
            f"the Airflow connection {iceberg_conn_id!r} cannot be read: {error}",
            expected=f"a connection of type {hook.conn_type!r}",
            hint="create it (Admin > Connections, or the variable AIRFLOW_CONN_"
            f"{iceberg_conn_id.upper()}), or correct iceberg_conn_id",
        ) from error
    try:
        return hook.catalog
    except Exception as error:
        raise CatalogError(
            f"the Airflow connection {iceberg_conn_id!r} (type {kind!r}) leads to no catalog: {type(error).__name__}: {error}",
            expected=f"a connection of type {hook.conn_type!r} whose host is the URI of a REST catalog, or whose extra holds "
            "pyiceberg's properties of another catalog",
            hint="correct the connection, or see that the catalog is up",
        ) from error
