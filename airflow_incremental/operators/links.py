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
        stages = getattr(operator, "stage_task_ids", {})
        # The plan of a load that is mapped over its chunks is one task.
        mapped = "chunk" not in stages
        return f"{_page(ti_key, stages.get('plan', ti_key.task_id), mapped=mapped)}/rendered_templates"


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


def _page(ti_key: TaskInstanceKey, task_id: str, *, mapped: bool = True) -> str:
    """Return the address of a task of the same run, with the same map index if it is mapped, too."""
    base = (conf.get("api", "base_url", fallback=None) or "").rstrip("/")
    index = ti_key.map_index if mapped and ti_key.map_index is not None else -1
    suffix = f"/mapped/{index}" if index >= 0 else ""
    return f"{base}/dags/{quote(ti_key.dag_id)}/runs/{quote(ti_key.run_id)}/tasks/{quote(task_id)}{suffix}"
