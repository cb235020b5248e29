"""The operator of a mapped load: one chunk of it, beside others."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_incremental.compat import BaseOperator, BaseOperatorLink
from airflow_incremental.operators.links import SessionPlanLink
from airflow_incremental.operators.load import OF_LOADS, IncrementalLoadOperator
from airflow_incremental.operators.runtime import failing_for_good

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import MappedOperator


#: Tries of a task, as those of the load's other tasks.
_RETRIES = {
    name: inspect.signature(IncrementalLoadOperator.__init__).parameters[name].default
    for name in ("retries", "retry_delay")
}


class ChunkLoadOperator(BaseOperator):
    """Compute one chunk of a load, and keep it until all are sealed; made by the task group, with ``parallel_chunks``.

    What it computes and how is said by the group's task ``seal``, so that Airflow does not store all of that for every chunk.

    :param chunk: event times of the chunk, for people; which one it is says the map index.
    :param seal_task_id: task that seals the load.
    :param stage_task_ids: stage -> task id, of the group.
    """

    template_fields: Sequence[str] = ("plan_summary",)
    ui_color = "#d9ecf7"
    overwrite_rtif_after_execution = True
    operator_extra_links: Sequence[BaseOperatorLink] = (SessionPlanLink(),)
    _load: IncrementalLoadOperator | None = None

    def __init__(self, *, chunk: str, seal_task_id: str, stage_task_ids: dict[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chunk = chunk
        self.seal_task_id = seal_task_id
        self.stage_task_ids = stage_task_ids
        #: What the chunk did, for the task's page; written when the task runs.
        self.plan_summary = ""

    def execute(self, context: Context) -> Any:
        """Compute the chunk; see :mod:`airflow_incremental.operators.stages`."""
        from airflow_incremental.operators.stages import run_stage

        # Its own, because the fields are rendered for this task.
        found: Any = self.dag.get_task(self.seal_task_id)
        self._load = load = copy.copy(found)
        load.render_template_fields(context)
        with failing_for_good():
            try:
                return run_stage(load, context, stage="chunk")
            finally:
                self.plan_summary = load.plan_summary

    def on_kill(self) -> None:
        """Stop the engine when the task is killed or timed out; a retry does the chunk again."""
        if self._load is not None:
            self._load.on_kill()


def make_chunks(
    plan: IncrementalLoadOperator, seal: IncrementalLoadOperator, parallel_chunks: int, arguments: Mapping[str, Any]
) -> MappedOperator:
    """Make the task that is mapped over the chunks of a group's plan.

    :param parallel_chunks: how many of its instances run at a time, in a run.
    :param arguments: of the task, as the author gave them for all stages and for this one; with DAG and group.
    """
    # Airflow gives a mapped task what the DAG and its groups have as defaults, but none of the operator's own.
    defaults = {**arguments["dag"].default_args, **arguments["task_group"].default_args}
    own = {name: _RETRIES[name] for name in _RETRIES if name not in defaults}
    given: dict[str, Any] = {
        **own,
        "map_index_template": "{{ task.chunk }}",
        "max_active_tis_per_dagrun": parallel_chunks,
        **{name: value for name, value in arguments.items() if name not in OF_LOADS},
    }
    return ChunkLoadOperator.partial(
        task_id="load", seal_task_id=seal.task_id, stage_task_ids=seal.stage_task_ids, **given
    ).expand(chunk=plan.output)
