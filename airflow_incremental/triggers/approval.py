"""Wait, in the triggerer, for a person's answer, or until the session it is about has lost its lock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent
from asgiref.sync import sync_to_async

from airflow_incremental.compat import HITLTrigger
from airflow_incremental.operators.runtime import catalog_of
from airflow_incremental.triggers.threads import in_time

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

log = logging.getLogger(__name__)


class ApprovalTrigger(HITLTrigger):
    """Airflow's own trigger for answers, which also looks whether the session still holds its lock.

    It takes an answer that was given already, where the operator could only put the question anew. When the session was replaced
    or ended, the question is closed, so that nobody answers it for nothing. If Airflow has no question, ``{"error_type": "lost"}``
    tells the task to ask.

    :param iceberg_conn_id: Airflow connection of the target's catalog.
    :param target: identifier of the target.
    :param process: whose lock it is.
    :param session: the session that is to be approved.
    :param look_interval: seconds between two looks at the lock.
    :param kwargs: arguments of Airflow's trigger.
    """

    def __init__(
        self, *, iceberg_conn_id: str, target: str, process: str, session: str, look_interval: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.iceberg_conn_id = iceberg_conn_id
        self.target = target
        self.process = process
        self.session = session
        self.look_interval = look_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as the triggerer stores them."""
        _, arguments = super().serialize()
        names = ("iceberg_conn_id", "target", "process", "session", "look_interval")
        own = {name: getattr(self, name) for name in names}
        return (f"{type(self).__module__}.{type(self).__qualname__}", {**arguments, **own})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the answer, the deadline or the loss of the lock, whichever comes first."""
        try:
            await self._handle_response()  # type: ignore[no-untyped-call]
        except Exception:
            log.warning("Airflow has no question of this task; it is asked again", exc_info=True)
            yield TriggerEvent({"error": "the question is not there", "error_type": "lost"})  # type: ignore[no-untyped-call]
            return
        answered = asyncio.ensure_future(anext(aiter(super().run())))
        lost = asyncio.ensure_future(self._lock_is_lost())
        try:
            await asyncio.wait({answered, lost}, return_when=asyncio.FIRST_COMPLETED)
            # The answer of a person counts, even if the lock was lost in the same moment: the task finds that out.
            yield answered.result() if answered.done() else await self._close()
        finally:
            answered.cancel()
            lost.cancel()

    async def _lock_is_lost(self) -> None:
        catalog: Catalog | None = None
        while True:
            try:
                if catalog is None:
                    catalog = await in_time(self.iceberg_conn_id, catalog_of, self.iceberg_conn_id)
                if not await in_time(self.iceberg_conn_id, self._holds_lock, catalog):
                    return
            except Exception:
                log.warning("could not look at session %s; looking again later", self.session, exc_info=True)
            await asyncio.sleep(self.look_interval)

    def _holds_lock(self, catalog: Catalog) -> bool:
        from airflow_incremental.iceberg.commits import load_table
        from airflow_incremental.iceberg.locks import read_lock

        lock = read_lock(load_table(catalog, self.target, role="target"), self.process)
        return lock is not None and lock.plan.session == self.session

    async def _close(self) -> TriggerEvent:
        """Answer the question in nobody's name."""
        from airflow.sdk.execution_time.hitl import update_hitl_detail_response

        log.info("session %s does not hold the lock any more; closing the question", self.session)
        try:
            await sync_to_async(update_hitl_detail_response)(
                ti_id=self.ti_id, chosen_options=[self.options[-1]], params_input={}
            )
        except Exception:
            log.info("the question was answered in the same moment", exc_info=True)
        return TriggerEvent({"error": "the session does not hold the lock any more", "error_type": "superseded"})  # type: ignore[no-untyped-call]
