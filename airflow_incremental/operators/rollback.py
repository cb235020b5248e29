"""Undo as a task: a target goes back to before a session of a process."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_incremental.compat import BaseOperator, BaseOperatorLink
from airflow_incremental.core.by_hand import Act, check_words
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template
from airflow_incremental.core.session_log import LoadKey
from airflow_incremental.operators.arguments import is_open
from airflow_incremental.operators.assets import DEFAULT_CONN_ID, DEFAULT_STORE_CONN_ID
from airflow_incremental.operators.links import SignalsLink
from airflow_incremental.operators.runtime import catalog_of, emitter_of, failing_for_good, owner_of
from airflow_incremental.operators.session_log import SessionLog

if TYPE_CHECKING:
    from airflow.sdk import Context


class RollbackOperator(BaseOperator):
    """Take a target back to before a session of a process, with its watermark, in one commit.

    The named session is undone, and so are those of the process that came after it. The next run of the load loads again what was
    undone, and loads that read the target follow it as a change. It is refused if others changed rows since, if a session of the
    process is open, or if the snapshots it takes are expired; each error says what to do. A retry finds it done.

    Give it ``outlets=[iceberg_asset(...)]`` to start what is scheduled on the target. The result says what was undone.

    :param target: identifier of the table, ``namespace.table``; templated, like all arguments that follow.
    :param session: the first session that is undone, such as ``{{ params.session }}``. The result and the asset events of a load
        name theirs, and ``airflow-incremental session list`` lists them.
    :param reason: why; kept with the table.
    :param by: who asked for it; default names the DAG and the run.
    :param process: the process; default is the one of the target's name, or the only one that writes it.
    :param iceberg_conn_id: Airflow connection of the catalog.
    :param incremental_conn_id: Airflow connection of the store, whose session log and signals are told; None tells nobody.
    :param preview_only: only say what would be undone, and touch nothing.
    :param retries: tries after the first, because a catalog may be down, or a session open, for a moment.
    :param retry_delay: time between tries.
    """

    template_fields: Sequence[str] = (
        "target",
        "session",
        "reason",
        "by",
        "process",
        "iceberg_conn_id",
        "incremental_conn_id",
    )
    ui_color = "#f7e3d9"
    operator_extra_links: Sequence[BaseOperatorLink] = (SignalsLink(),)

    def __init__(
        self,
        *,
        target: str,
        session: str,
        reason: str,
        by: str | None = None,
        process: str | None = None,
        iceberg_conn_id: str = DEFAULT_CONN_ID,
        incremental_conn_id: str | None = DEFAULT_STORE_CONN_ID,
        preview_only: bool = False,
        retries: int = 2,
        retry_delay: dt.timedelta | float = dt.timedelta(seconds=30),
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        self.target = target
        self.session = session
        self.reason = reason
        self.by = by
        self.process = process
        self.iceberg_conn_id = iceberg_conn_id
        self.incremental_conn_id = incremental_conn_id
        self.preview_only = preview_only
        for what, text in (
            ("target", target),
            ("session", session),
            ("reason", reason),
            ("by", by),
            ("process", process),
        ):
            if not is_open(text) and not (text is None and what in ("by", "process")):
                _check(text, what)

    def execute(self, context: Context) -> dict[str, Any]:
        """Do it, or find it done."""
        from airflow_incremental.sessions.undoing import preview, undo

        with failing_for_good():
            owner = owner_of(context, task_id=self.task_id)
            by = self.by or f"run {owner.run_id} of DAG {owner.dag_id}"
            act = Act(by=by, reason=self.reason, owner=owner)
            catalog = catalog_of(self.iceberg_conn_id)
            if self.preview_only:
                seen = preview(catalog, self.target, self.process, self.session)
                self.log.info("%s", seen.describe())
                return seen.to_json()
            done = undo(catalog, self.target, self.process, self.session, act=act)
            self.log.info("%s", done.describe())
            if done.record is not None:
                key = LoadKey(iceberg_conn_id=self.iceberg_conn_id, target=self.target, process=done.process)
                SessionLog(conn_id=self.incremental_conn_id, key=key, emitter=emitter_of(context)).acted(done.record)
            return done.to_json()


def _check(text: object, what: str) -> None:
    if what in ("by", "reason"):
        check_words(text, what=what)
    elif not isinstance(text, str) or not text.strip():
        raise ArgumentError(f"{what} is {text!r}", expected="text")
    elif what == "target" and "." not in text and not is_template(text):
        raise ArgumentError(f"target is {text!r}", expected="a table, as namespace.table")
