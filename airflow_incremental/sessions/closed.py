"""What became of a session that is not open: published, or taken over or ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_incremental.core.errors import SessionSuperseded
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.state import publish_of_session, records, words_of
from airflow_incremental.sessions.entries import by_hand
from airflow_incremental.sessions.process import Finished

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from airflow_incremental.iceberg.locks import Begin


def closed(target: Table, process: str, session_id: str, now: Begin | None) -> Finished:
    """Return the end of a session that was published.

    :param now: the session that holds the process's lock now, if one does.
    :raises SessionSuperseded: it was not; another session took over or it was ended.
    """
    record = next((r for r in records(main_lineage(target), process) if r.session == session_id), None)
    if record is not None and record.undone_by is not None:
        raise SessionSuperseded(
            f"session {session_id} of process {process!r} was published, and undone since: {by_hand(words_of(record.undone_by))}",
            expected="to be open or published",
            hint="the next run loads again what was undone; clear the run's plan task to do it in this one",
        )
    done = publish_of_session(target, process, session_id)
    if done is not None:
        return Finished(outcome="already_published", reason=f"session {session_id} is published", published=done)
    by = f"by session {now.plan.session} of {now.plan.owner}" if now else "and ended"
    raise SessionSuperseded(
        f"session {session_id} of process {process!r} was taken over {by}",
        expected="to be open or published",
        hint="clear the run's plan task to plan anew, if this run is still wanted",
    )
