"""Audits of a session that Spark answers: the job that asks it, and its answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from airflow_incremental.audits.questions import unpacked
from airflow_incremental.core.audit import AuditIncomplete
from airflow_incremental.core.errors import TransformError
from airflow_incremental.core.spark_job import DONE, JOB_VERSION, SESSION_CONF
from airflow_incremental.iceberg.attempts import Attempt, end_of
from airflow_incremental.iceberg.audit_views import AuditViews, make_views
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.naming import audit_of_ref

if TYPE_CHECKING:
    from airflow_incremental.core.audit import Over
    from airflow_incremental.core.spark_job import SparkRunner
    from airflow_incremental.iceberg.seal import Sealed
    from airflow_incremental.sessions.process import Session

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class SparkAudits:
    """Asks Spark about a sealed session.

    :param runner: how its application is started.
    """

    runner: SparkRunner
    session: Session
    sealed: Sealed

    def ask(self, questions: Mapping[Over, Sequence[Mapping[str, Any]]]) -> Mapping[Over, Mapping[str, Any]]:
        """Run an application that answers the questions about each scope, and return its answers.

        :raises AuditIncomplete: it did not.
        :raises SessionSuperseded: the session does not hold the lock any more.
        """
        started, plan = time.monotonic(), self.session.plan
        views = make_views(self.session.process.catalog, self.session.begin, self.sealed, list(questions))
        many = sum(map(len, questions.values()))
        log.info("asking Spark %s questions about snapshot %s of %s", f"{many:,}", self.sealed.snapshot_id, plan.target)
        self._run(self._job(views, questions))
        report = self._report(views)
        log.info("Spark answered in %.1f s", time.monotonic() - started)
        return unpacked(report["answers"])  # type: ignore[no-any-return]

    def _job(self, views: AuditViews, questions: Mapping[Over, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        plan = self.session.plan
        scopes = [
            {"over": over, "snapshot": views.snapshots[over], "questions": list(asked)}
            for over, asked in questions.items()
        ]
        return {
            "version": JOB_VERSION,
            "what": "audit",
            "process": plan.process,
            "session": plan.session,
            "attempt": audit_of_ref(views.branch, plan.process, plan.session),
            "catalog": self.runner.catalog,
            "session_conf": dict(SESSION_CONF),
            "target": {"table": plan.target, "branch": views.branch, "base": views.head},
            "scopes": scopes,
        }

    def _run(self, job: Mapping[str, Any]) -> None:
        try:
            self.runner.run(job)
        except TransformError as error:
            raise AuditIncomplete(
                f"the audits of session {self.session.plan.session} could not be run in Spark: {error.found}",
                expected=error.expected or "an application that runs to its end",
                hint=error.hint or "retry the task; it audits the same snapshot again",
            ) from error

    def _report(self, views: AuditViews) -> Mapping[str, Any]:
        """Return what the application left on its branch.

        :raises AuditIncomplete: it left no answers there.
        """
        target = load_table(self.session.process.catalog, self.session.plan.target, role="target")
        attempt = Attempt(
            number=audit_of_ref(views.branch, self.session.plan.process, self.session.plan.session) or 0,
            branch=views.branch,
        )
        end = end_of(target, attempt)
        if end is not None and end.outcome == DONE and "answers" in end.report:
            return end.report
        said = "" if end is None else f", but that it {end.outcome}: {end.report.get('error', 'it does not say why')}"
        raise AuditIncomplete(
            f"the application that was to audit session {self.session.plan.session} left no answers on its branch "
            f"{views.branch!r}{said}",
            expected="an application that runs to its end before spark-submit returns",
            hint="if it may still run, let spark-submit wait for it (spark.yarn.submit.waitAppCompletion=true); then retry the "
            "task, which asks anew",
        )
