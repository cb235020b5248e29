"""Wait, in the triggerer, until a process's lock can be had."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_incremental.core.plan import Owner
from airflow_incremental.operators.runtime import catalog_of, run_is_over
from airflow_incremental.triggers.threads import in_time

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

log = logging.getLogger(__name__)


class SessionOverTrigger(BaseTrigger):
    """Fires when a session has given up its lock or waits for a person, or when the run that holds it is over.

    It only wakes the task, which looks again and may find that another run was faster. What cannot be found out for a moment (the
    catalog does not answer) is asked again at the next poll.

    :param iceberg_conn_id: Airflow connection of the target's catalog.
    :param target: identifier of the target.
    :param process: whose lock is waited for.
    :param session: the session that holds it.
    :param dag_id: DAG of the run that holds it.
    :param run_id: run that holds it; empty for a session outside Airflow.
    :param poll_interval: seconds between two looks.
    """

    def __init__(
        self,
        *,
        iceberg_conn_id: str,
        target: str,
        process: str,
        session: str,
        dag_id: str,
        run_id: str,
        poll_interval: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.iceberg_conn_id = iceberg_conn_id
        self.target = target
        self.process = process
        self.session = session
        self.dag_id = dag_id
        self.run_id = run_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as the triggerer stores them."""
        names = ("iceberg_conn_id", "target", "process", "session", "dag_id", "run_id", "poll_interval")
        return (f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the session or its run is over."""
        catalog: Catalog | None = None
        while True:
            try:
                if await self._run_is_over():
                    yield self._event("its run is over")
                    return
                if catalog is None:
                    catalog = await in_time(self.iceberg_conn_id, catalog_of, self.iceberg_conn_id)
                if why := await in_time(self.iceberg_conn_id, self._may_go_on, catalog):
                    yield self._event(why)
                    return
            except Exception:
                log.warning(
                    "could not look whether session %s is over; looking again later", self.session, exc_info=True
                )
            await asyncio.sleep(self.poll_interval)

    def _event(self, why: str) -> TriggerEvent:
        return TriggerEvent({"session": self.session, "why": why})  # type: ignore[no-untyped-call]

    async def _run_is_over(self) -> bool:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        holder = Owner(deployment="", dag_id=self.dag_id, run_id=self.run_id)
        return await sync_to_async(run_is_over)(RuntimeTaskInstance.get_dr_count, holder)

    def _may_go_on(self, catalog: Catalog) -> str | None:
        """Return why there is nothing to wait for any more, or None."""
        from airflow_incremental.iceberg.commits import load_table
        from airflow_incremental.iceberg.locks import read_lock

        lock = read_lock(load_table(catalog, self.target, role="target"), self.process)
        if lock is None or lock.plan.session != self.session:
            return "it gave up the lock"
        if lock.approval is not None and lock.approval.is_pending:
            return f"it {lock.approval}"  # which the task does not wait for
        return None
