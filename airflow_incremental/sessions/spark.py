"""A load that runs on Spark: a new branch, a job for it, and what the application left there."""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING

from airflow_incremental.core.errors import PlanExpired, SessionSuperseded, TargetChanged, TransformError
from airflow_incremental.core.spark_job import DONE, EXPIRED, FAILED, RejoiningRunner
from airflow_incremental.iceberg.attempts import AttemptEnd, attempts, begin_attempt, end_of
from airflow_incremental.iceberg.commits import load_table, wait_for_table
from airflow_incremental.iceberg.locks import check_owned
from airflow_incremental.iceberg.scratch import collect
from airflow_incremental.iceberg.seal import Output, check_shape
from airflow_incremental.sessions.spark_document import job_document, job_sources

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from airflow_incremental.core.spark_job import SparkRunner
    from airflow_incremental.iceberg.attempts import Attempt
    from airflow_incremental.iceberg.keys import KeySet
    from airflow_incremental.sessions.process import Session

log = logging.getLogger(__name__)


def produce_with_spark(
    session: Session, runner: SparkRunner, target: Table, fingerprint: str, keys: KeySet | None
) -> Output:
    """Run the session's application, and return the data files it wrote on the branch of its attempt.

    Every call begins a new attempt: nothing of an earlier one is taken, and one that still runs writes to a branch of its own. The
    exception is an application that the runner finds again, on the latest attempt's branch: it is waited for, and taken.

    :param fingerprint: of the transform.
    :param keys: the keys that are computed, for a plan that replaces rows by key.
    :raises TransformError: the application failed, or did not say that it was done, or wrote what the plan does not allow.
    :raises PlanExpired: what the plan pinned is gone.
    :raises TargetChanged: the target's schema or partition spec changed meanwhile.
    :raises SessionSuperseded: the session does not hold the lock any more.
    """
    process, plan = session.process, session.plan
    if plan.mode == "stateful" and not plan.read:
        return _nothing(target, fingerprint)
    started = time.monotonic()
    attempt = _rejoined(runner, target, session) or _run(session, runner)
    before, target = target, wait_for_table(process.catalog, plan.target, role="target")
    check_owned(target, session.begin)
    end = end_of(target, attempt)
    if end is None or end.outcome != DONE:
        _check_failure(session, runner, attempt, None)
        raise _unfinished(target, attempt)
    # Spark may have written under either.
    check_shape(target, _nothing(before, fingerprint), plan)
    output = collect(target, process.spec, plan, branch=attempt.branch, fingerprint=fingerprint, keys=keys)
    wrote = end.report.get("rows")
    if isinstance(wrote, int) and wrote != output.rows:
        raise _not_alone(attempt, wrote, output)
    log.info(
        "Spark wrote %s rows in %s files (%.1f s)",
        f"{output.rows:,}",
        f"{len(output.files):,}",
        time.monotonic() - started,
    )
    return output


def _rejoined(runner: SparkRunner, target: Table, session: Session) -> Attempt | None:
    """Return the latest attempt if its application could be found again, and is done."""
    found = attempts(target, session.plan)
    if not found or not isinstance(runner, RejoiningRunner) or not runner.rejoin(found[-1].branch):
        return None
    end = end_of(load_table(session.process.catalog, session.plan.target, role="target"), found[-1])
    if end is None or end.outcome != DONE:
        return None
    log.info("took up attempt %s of session %s, which an earlier try has begun", found[-1].number, session.plan.session)
    return found[-1]


def _run(session: Session, runner: SparkRunner) -> Attempt:
    """Begin a new attempt and run its application to the end."""
    process, plan = session.process, session.plan
    attempt = begin_attempt(process.catalog, session.begin)
    target = load_table(process.catalog, plan.target, role="target")
    job = job_document(session, runner, target, attempt)
    for name, source in job["sources"].items():
        log.info("%s: %s", name, _described(source["rows"]))
    log.info("attempt %s of session %s: Spark writes to branch %s", attempt.number, plan.session, attempt.branch)
    try:
        runner.run(job)
    except TransformError as error:
        _check_failure(session, runner, attempt, error)
        raise
    return attempt


def _nothing(target: Table, fingerprint: str) -> Output:
    return Output(
        files=(),
        write_id=uuid.uuid4(),
        fingerprint=fingerprint,
        schema_id=target.metadata.current_schema_id,
        spec_id=target.metadata.default_spec_id,
    )


def _check_failure(session: Session, runner: SparkRunner, attempt: Attempt, error: TransformError | None) -> None:
    """Raise what is behind an application that did not end well, if it is more than how it ended tells.

    :param error: of the runner; None if it noticed nothing.
    :raises SessionSuperseded: its branch was taken away with the session.
    :raises PlanExpired: what it had to read is gone.
    :raises TransformError: with the application's own error first.
    """
    process, plan = session.process, session.plan
    try:
        # The catalog may be what the application failed for.
        target = wait_for_table(process.catalog, plan.target, role="target")
        check_owned(target, session.begin)
        job_sources(process, plan, runner)
        end = end_of(target, attempt)
    except (PlanExpired, SessionSuperseded, TargetChanged):
        raise
    except Exception as other:  # noqa: BLE001  (a catalog that does not answer, say: the error there is already counts)
        log.warning("what is behind the failure of attempt %s could not be looked up: %s", attempt.number, other)
        return
    if end is not None and end.report.get("code") == EXPIRED:
        raise PlanExpired(
            str(end.report.get("error")),
            expected="the files of the planned snapshots to exist until the session is over",
            hint="retry the task; it plans anew. If it happens again, let the source keep expired files longer",
        ) from error
    if end is not None and end.outcome == FAILED:
        raise _failed(end, attempt, error) from error


def _failed(end: AttemptEnd, attempt: Attempt, error: TransformError | None) -> TransformError:
    """Return the error of an application that says what went wrong."""
    told = str(end.report.get("error") or "the Spark application failed and did not say why")
    if error is not None and told in error.found:
        return error
    where = str(end.report.get("where") or "")
    found = TransformError(
        told + (f" (while it did its {where})" if where else ""),
        expected=f"the rows of the plan on branch {attempt.branch!r}",
        hint=str(end.report.get("hint") or "see the application's log"),
    )
    # It may have failed for a reason that passes, such as an executor that was lost.
    found.retryable = True
    return found


def _unfinished(target: Table, attempt: Attempt) -> TransformError:
    kept = "" if attempt.branch in target.metadata.refs else ", which is gone"
    found = TransformError(
        f"the Spark application of attempt {attempt.number} ended without a word on branch {attempt.branch!r}{kept}: it did not "
        "finish, or still runs",
        expected="a last commit on the branch that says it is done",
        hint="see the application's log, and retry the task: it begins a new attempt. If the task did not wait for the application "
        "(spark.yarn.submit.waitAppCompletion=false, or a deploy mode that returns at once), let it",
    )
    found.retryable = True
    return found


def _not_alone(attempt: Attempt, wrote: int, output: Output) -> TransformError:
    """Return the error of a branch that holds other rows than the application says that it wrote.

    Spark cannot make a commit depend on a branch's head, so a driver that a cluster started twice may get its rows in just before
    the first one says that it is done.
    """
    found = TransformError(
        f"branch {attempt.branch!r} holds {output.rows:,} new rows, and the application of attempt {attempt.number} says that it "
        f"wrote {wrote:,}: somebody else wrote there as well",
        expected="the rows of one application",
        hint="retry the task: it begins a new attempt. Let the cluster start a driver once (spark.yarn.maxAppAttempts=1), and "
        "write to the branch with job.write(...) alone",
    )
    found.retryable = True
    return found


def _described(reads: list[dict[str, object]]) -> str:
    """Return in words how the rows of a source are read."""
    runs = sum(1 for r in reads if "start" in r)
    whole = sum(1 for r in reads if "start" not in r and r["files"] is None)
    rest = [r["files"] for r in reads if "start" not in r and r["files"] is not None]
    files = sum(len(f) for f in rest if isinstance(f, list))
    told = [
        f"{runs:,} incremental reads" if runs else "",
        "a pinned snapshot" if whole else "",
        f"{files:,} files by name" if files else "",
    ]
    return " and ".join(t for t in told if t) or "nothing to read"
