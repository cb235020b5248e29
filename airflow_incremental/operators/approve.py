"""The task of a load that asks a person before the publish: Airflow's own approval, bound to a session."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_incremental.compat import ApprovalOperator
from airflow_incremental.core.approval import ApprovalDefault, ApprovalPolicy, OnReject, check_timeout, users
from airflow_incremental.core.literals import AuditTable, one_of
from airflow_incremental.operators.arguments import WhenPending
from airflow_incremental.operators.load import OF_LOADS, IncrementalLoadOperator
from airflow_incremental.operators.runtime import failing_for_good

if TYPE_CHECKING:
    from airflow.sdk import Context


class SessionApprovalOperator(ApprovalOperator):
    """Asks whether a sealed session may be published, where there is something to ask; made by the task group.

    What it asks is computed when it runs, from the session's plan and audit report. The answer travels to ``publish`` with the
    session and the rows it is about.

    :param approval: when to ask.
    :param on_reject: what a rejection leads to.
    :param default: what is answered for a person who does not answer in time.
    :param response_timeout: how long to wait; None for good.
    :param assigned_users: who may answer; None for everybody who may in Airflow.
    :param when_pending: with ``replace`` the wait ends, and the question is closed, when another run takes the session over.
    :param iceberg_conn_id: connection of the target's catalog.
    :param audit_table: where results of audits are kept, and so is what was decided; None for the default.
    :param group_name: name under which the stages of the group share a session.
    :param stage_task_ids: stage -> task id.
    :param poll_interval: seconds between two looks whether the session was replaced.
    :param execution_timeout: of the task itself; waiting for an answer does not count.
    :param retries: tries after the first, one at least: Airflow takes an answer that comes within seconds for a failure.
    """

    template_fields: Sequence[str] = ("subject", "body", "iceberg_conn_id", "audit_table")

    def __init__(
        self,
        *,
        approval: ApprovalPolicy,
        on_reject: OnReject,
        default: ApprovalDefault,
        when_pending: WhenPending,
        iceberg_conn_id: str,
        audit_table: AuditTable,
        group_name: str,
        stage_task_ids: Mapping[str, str],
        poll_interval: float,
        response_timeout: dt.timedelta | None = None,
        execution_timeout: dt.timedelta | None = None,
        retries: int = 2,
        retry_delay: dt.timedelta | float = dt.timedelta(seconds=30),
        **kwargs: Any,
    ) -> None:
        answer = {"deny": self.REJECT, "approve": self.APPROVE}[default]
        super().__init__(
            subject="",
            defaults=None if response_timeout is None else answer,
            response_timeout=response_timeout,
            retries=max(retries, 1),
            retry_delay=retry_delay,
            **kwargs,
        )
        # Airflow would take it for the time to wait for an answer.
        self.execution_timeout = execution_timeout
        self.approval = approval
        self.on_reject = on_reject
        self.default = default
        self.when_pending = when_pending
        self.iceberg_conn_id = iceberg_conn_id
        self.audit_table = audit_table
        self.group_name = group_name
        self.stage_task_ids = dict(stage_task_ids)
        self.poll_interval = poll_interval

    def execute(self, context: Context) -> Any:
        """Ask, and wait; or say that nobody has to be asked. See :mod:`airflow_incremental.operators.approving`."""
        from airflow_incremental.operators.approving import ask

        with failing_for_good():
            return ask(self, context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Do what was answered.

        :param event: the answer, as Airflow's operators get it.
        """
        from airflow_incremental.operators.approving import answered, ask

        with failing_for_good():
            if event.get("error_type") == "lost":
                return ask(self, context, anew=True)
            return answered(self, context, event)

    def read_answer(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Check an answer as Airflow's operator does, without what that makes of a rejection."""
        found: dict[str, Any] = super(ApprovalOperator, self).execute_complete(context=context, event=event)
        self.hitl_summary_extra["approved"] = found["chosen_options"] == [self.APPROVE]
        return found


def make_approve(
    publish: IncrementalLoadOperator,
    approval: ApprovalPolicy,
    *,
    timeout: dt.timedelta | None,
    default: ApprovalDefault,
    approvers: Sequence[str | Mapping[str, str]] | None,
    arguments: Mapping[str, Any],
) -> SessionApprovalOperator:
    """Make the task that asks, for the group of a ``publish``.

    :param arguments: of the task, as the author gave them for all stages and for this one.
    :raises ArgumentError: a policy, a time or a list of users is wrong.
    """
    check_timeout(timeout)
    one_of(default, ApprovalDefault, what="approval_default")
    return SessionApprovalOperator(
        task_id="approve",
        approval=approval,
        on_reject=publish.approval_on_reject,
        default=default,
        when_pending=publish.when_pending,
        iceberg_conn_id=publish.iceberg_conn_id,
        audit_table=publish.audit_table,
        group_name=publish.group_name,
        stage_task_ids=publish.stage_task_ids,
        poll_interval=publish.poll_interval,
        response_timeout=timeout,
        assigned_users=users(approvers),
        **{name: value for name, value in arguments.items() if name not in OF_LOADS},
    )
