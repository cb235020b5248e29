"""When another run holds the process's lock: wait without a worker, skip, or fail, as the author chose."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_incremental.compat import AirflowFailException, AirflowSkipException
from airflow_incremental.core.errors import ApprovalPending, SessionBusy
from airflow_incremental.triggers.lock import SessionOverTrigger

if TYPE_CHECKING:
    from airflow_incremental.operators.job import Job

log = logging.getLogger(__name__)


def give_way(job: Job, error: SessionBusy) -> None:
    """Do what ``when_busy`` says; return if the lock can be had by now, so that planning can be tried again at once.

    :param error: says who has the lock.
    :raises TaskDeferred: to wait.
    """
    operator, process = job.operator, job.process
    if isinstance(error, ApprovalPending):
        # A person may take days, and each of the runs that come in the meantime would wait as well.
        raise AirflowSkipException(str(error))
    if operator.when_busy == "skip":
        raise AirflowSkipException(str(error))
    if operator.when_busy == "fail":
        raise AirflowFailException(str(error)) from error
    from airflow_incremental.iceberg.commits import load_table
    from airflow_incremental.iceberg.locks import read_lock

    name, target = process.spec.process, process.spec.target.table
    lock = read_lock(load_table(process.catalog, target, role="target"), name)
    if lock is None or process.run_is_over(lock.plan.owner):
        log.info("the lock of process %r can be had now; planning again", name)
        return
    log.info("waiting until session %s of %s is over", lock.plan.session, lock.plan.owner)
    operator.defer(
        trigger=SessionOverTrigger(
            iceberg_conn_id=operator.iceberg_conn_id,
            target=target,
            process=name,
            session=lock.plan.session,
            dag_id=lock.plan.owner.dag_id,
            run_id=lock.plan.owner.run_id,
            poll_interval=operator.poll_interval,
        ),
        method_name="execute_after_wait",
        timeout=operator.execution_timeout,
    )
