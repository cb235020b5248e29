"""Links on a task instance's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import attrs

from airflow_incremental.compat import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


@attrs.define
class SessionPlanLink(BaseOperatorLink):
    """To the rendered fields of the task that planned the session, where ``plan_summary`` says what it reads and writes."""

    name: ClassVar[str] = "Session plan"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the page below the configured ``[api] base_url``.

        :param operator: the task; a stage of a group points to the group's plan.
        :param ti_key: the task instance whose page shows the link.
        """
        task_id = getattr(operator, "stage_task_ids", {}).get("plan", ti_key.task_id)
        return f"{_page(ti_key, task_id)}/rendered_templates"


@attrs.define
class SignalsLink(BaseOperatorLink):
    """To the result of a task that emits, waits for or claims signals: the signals themselves."""

    name: ClassVar[str] = "Signals"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 (the name is Airflow's)
        """Return the address of the page below the configured ``[api] base_url``.

        :param operator: the task.
        :param ti_key: the task instance whose page shows the link.
        """
        return f"{_page(ti_key, ti_key.task_id)}/xcom"


def _page(ti_key: TaskInstanceKey, task_id: str) -> str:
    """Return the address of a task of the same run, with the same map index."""
    base = (conf.get("api", "base_url", fallback=None) or "").rstrip("/")
    mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index is not None and ti_key.map_index >= 0 else ""
    return f"{base}/dags/{quote(ti_key.dag_id)}/runs/{quote(ti_key.run_id)}/tasks/{quote(task_id)}{mapped}"
