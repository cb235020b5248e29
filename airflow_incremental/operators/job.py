"""A stage's view of its task: the process it works for, what earlier stages said, and how it tells Airflow what happened."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from airflow_incremental.compat import AirflowSkipException, DownstreamTasksSkipped
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.session_log import LoadKey, published_facts
from airflow_incremental.operators import metrics, reports
from airflow_incremental.operators.announce import announce, is_unannounced, keep_quiet
from airflow_incremental.operators.assets import iceberg_asset
from airflow_incremental.operators.binding import bind
from airflow_incremental.operators.handover import STATE, key_of, state_of
from airflow_incremental.operators.restate import request_of
from airflow_incremental.operators.runtime import emitter_of, owner_of, run_is_over
from airflow_incremental.operators.session_log import SessionLog

if TYPE_CHECKING:
    from airflow_incremental.operators.load import IncrementalLoadOperator
    from airflow_incremental.sessions.process import Finished, Process, Session

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Job:
    """One stage of one load, in a running task."""

    operator: IncrementalLoadOperator
    context: Mapping[str, Any]
    process: Process
    session_log: SessionLog

    @classmethod
    def of(cls, operator: IncrementalLoadOperator, context: Mapping[str, Any]) -> Job:
        """Build the process from the operator's rendered fields.

        :raises ArgumentError: a template was rendered to something wrong.
        """
        ti = context["ti"]
        process = bind(
            operator,
            owner=owner_of(context, task_id=operator.group_name),
            run_is_over=lambda owner: run_is_over(ti.get_dr_count, owner),
            make_runner=lambda transform, catalog: operator.make_runner(transform, catalog, context),
            restate=request_of(context),
        )
        key = LoadKey(
            iceberg_conn_id=operator.iceberg_conn_id, target=process.spec.target.table, process=process.spec.process
        )
        session_log = SessionLog(conn_id=operator.incremental_conn_id, key=key, emitter=emitter_of(context))
        process = attrs.evolve(process, on_progress=session_log.progressed)
        return cls(operator=operator, context=context, process=process, session_log=session_log)

    @property
    def dag_id(self) -> str:
        """The running task's DAG."""
        return str(self.context["ti"].dag_id)

    @property
    def is_retry(self) -> bool:
        """Whether this stage was tried before in this run, so that an earlier try may be alive somewhere, cut off or asleep."""
        return int(self.context["ti"].try_number) > 1

    def show(self, text: str) -> None:
        """Add text to the rendered field that people look at."""
        self.operator.plan_summary = f"{self.operator.plan_summary}\n{text}".strip()

    # What the stages of a group tell each other.

    def state_of(self, stage: str) -> dict[str, Any]:
        """Return what an earlier stage of this run said.

        :raises AirflowSkipException: it was skipped, so there is nothing for this stage either.
        :raises ArgumentError: it said nothing, for example because somebody marked it as successful.
        """
        return state_of(self.context["ti"], self.operator.stage_task_ids, stage)

    def push_session(self, state: Mapping[str, Any]) -> None:
        """Push the values of the session that tasks of this DAG refer to, each under its own key.

        The plan is a task with multiple outputs, so that a reference to a value that is None is resolved to None. Airflow would
        push every one of them, each in a call of its own.
        """
        self.operator.multiple_outputs = False
        for key in sorted(self.operator.session_keys):
            self.context["ti"].xcom_push(key=key, value=state[key])

    @property
    def map_index(self) -> int:
        """The running task's map index, -1 if it is not mapped."""
        index = self.context["ti"].map_index
        return -1 if index is None else int(index)

    def hand_over(self, state: dict[str, Any], *, chunks: list[str]) -> dict[str, Any] | list[str]:
        """Return what the plan's task returns: its state, or what the load is mapped over, after pushing the state.

        :param chunks: of the plan, as people read them.
        """
        key = key_of(self.operator.stage_task_ids, "plan")
        if key != STATE:
            return state
        self.operator.multiple_outputs = False
        self.context["ti"].xcom_push(key=key, value=state)
        return chunks

    def skip_to_publish(self, state: Mapping[str, Any]) -> NoReturn:
        """End this task, and skip every task between it and the group's last.

        :param state: this task's return value, which Airflow does not push by itself when the skipping ends the task.
        :raises DownstreamTasksSkipped: always.
        """
        ti = self.context["ti"]
        ti.xcom_push(key=key_of(self.operator.stage_task_ids, self.operator.stage), value=dict(state))
        tasks = self._between()
        self.operator.skip(ti, tasks)
        # In a mapped group Airflow's mixin leaves the skipping to the scheduler, which does not see it in all versions.
        raise DownstreamTasksSkipped(tasks=[(task.task_id, ti.map_index) for task in tasks])  # type: ignore[no-untyped-call]

    def _between(self) -> list[Any]:
        last = self.operator.dag.get_task(self.operator.stage_task_ids["publish"])
        before = last.get_flat_relative_ids(upstream=True)
        after = self.operator.get_flat_relatives(upstream=False)
        return sorted((task for task in after if task.task_id in before), key=lambda task: task.task_id)

    def tell_plan(self, session: Session) -> None:
        """Tell the store of a session that is open, and of publishes before it that nobody announced."""
        self.session_log.planned(session.plan)
        self.session_log.announce_missed(self.process.catalog, session.plan.base_session, can_wait=True)

    # How a load ends.

    def ending(self, finished: Finished) -> dict[str, Any]:
        """Return how the load ended, for ``close``."""
        spec = self.process.spec
        summary = reports.summarise(finished, process=spec.process, target=spec.target.table)
        return {
            "finished": summary,
            "announce": summary["published"] or self._missed(finished),
            # Also of publishes that this run only found: the tasks that made them may have died before they could say so.
            "announced_through": finished.plan.base_session
            if finished.outcome == "published" and finished.plan is not None
            else summary["session"],
        }

    def finish(self, finished: Finished) -> dict[str, Any]:
        """End the load in this very task."""
        state = self.ending(finished)
        if finished.published is not None and finished.outcome == "published":
            self.session_log.published(finished.published, verdict=finished.verdict)
        elif finished.published is not None and finished.did_publish:
            self.session_log.found_published(self.process.catalog, finished.published)
        if finished.outcome == "published":
            began = finished.plan.created_at if finished.plan is not None else None
            seconds = None if began is None else (dt.datetime.now(UTC) - began).total_seconds()
            metrics.session_published(state["finished"], dag_id=self.dag_id, seconds=seconds)
        return self.close(state)

    def close(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Say how the load ended: to people, to metrics and, if the table changed, to whoever waits for its asset.

        :raises AirflowSkipException: there was nothing to do and the author wants the task skipped then.
        :raises StoreError: the signal could not be emitted; a retry does it.
        """
        summary: dict[str, Any] = state["finished"]
        text = reports.describe(summary)
        self.show(text)
        log.info("%s", text)
        metrics.lag(summary, dag_id=self.dag_id)
        if summary["session"] is not None:
            self.session_log.announce_missed(self.process.catalog, state["announced_through"])
            self.session_log.announce(published_facts(summary))
        asset = iceberg_asset(summary["target"], self.operator.iceberg_conn_id)
        if state["announce"]:
            announce(self.operator, self.context, asset, summary)
        elif self.operator.on_no_change == "skip":
            raise AirflowSkipException(summary["reason"])
        else:
            keep_quiet(self.operator, asset)
        return summary

    def _missed(self, finished: Finished) -> bool:
        """Say whether the last publish was this load's, and nobody heard of it because its task died."""
        last, owner = finished.published, self.process.owner
        if last is None or (last.owner.get("dag_id"), last.owner.get("task_id")) != (owner.dag_id, owner.task_id):
            return False
        task_id = self.operator.stage_task_ids.get("publish", self.operator.task_id)
        return is_unannounced(self.context, last, task_id=task_id)
