"""The asset event of a publish: emitted by the task that published, at least once, and by no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_incremental.operators.runtime import deployment

if TYPE_CHECKING:
    from airflow_incremental.compat import Asset, BaseOperator
    from airflow_incremental.core.watermark import Published

#: Task states after which nobody will announce a publish that was not announced.
_GAVE_UP = ("failed", "skipped", "upstream_failed", "removed")


def announce(operator: BaseOperator, context: Mapping[str, Any], asset: Asset, summary: Mapping[str, Any]) -> None:
    """Let the task's asset event carry the summary.

    The asset of a mapped task or of a templated target is not known when the DAG is parsed; its event reaches whoever else
    declares it.
    """
    if asset not in operator.outlets:
        operator.outlets = [*operator.outlets, asset]
    context["outlet_events"][asset].extra = dict(summary)


def keep_quiet(operator: BaseOperator, asset: Asset) -> None:
    """Emit no event for the asset although the task succeeds: nothing in the table has changed."""
    operator.outlets = [outlet for outlet in operator.outlets if outlet != asset]


def is_unannounced(context: Mapping[str, Any], last: Published | None, *, task_id: str) -> bool:
    """Say whether the last publish's task died between its commit and its event, with no try left.

    :param last: the last publish.
    :param task_id: task that announces the publishes of the process in its DAG.
    """
    if last is None or not last.owner or last.owner.get("deployment") != deployment() or not last.owner.get("run_id"):
        return False
    dag_id, run_id = last.owner["dag_id"], last.owner["run_id"]
    index = last.owner.get("map_index", -1)
    states = context["ti"].get_task_states(
        dag_id=dag_id, map_index=None if index < 0 else index, task_ids=[task_id], run_ids=[run_id]
    )
    return any(state in _GAVE_UP for state in states.get(run_id, {}).values())
