"""Loads of one DAG keep out of one another's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.operators.arguments import check_disjoint

if TYPE_CHECKING:
    from airflow_incremental.operators.load import IncrementalLoadOperator


def check_alone(load: IncrementalLoadOperator) -> None:
    """Raise if another load of the same DAG has the same process, or replaces the same rows.

    Of one process, each would take the other's watermark for its own. A load of another DAG that replaces the same rows is found on
    the target, by the plan.

    :raises ArgumentError: one has the same process.
    :raises ScopeOverlap: one replaces the same rows.
    """
    from airflow_incremental.operators.load import IncrementalLoadOperator

    if not load.has_dag() or not isinstance(load.process, str):  # type: ignore[no-untyped-call]
        return
    for task in load.dag.tasks:
        if not isinstance(task, IncrementalLoadOperator) or task is load:
            continue
        if task.stage != "all" and task.group_name == load.group_name:
            continue
        both = f"{task.group_name!r} and {load.group_name!r} of DAG {load.dag.dag_id!r}"
        if task.process == load.process:
            raise ArgumentError(
                f"{both} are both the process {load.process!r}",
                expected="one load per process in a DAG",
                hint="give one of them another process; if both write one target, give each a scope",
            )
        if task.declared is not None and load.declared is not None and task.iceberg_conn_id == load.iceberg_conn_id:
            check_disjoint(task.declared, load.declared, who=both)
