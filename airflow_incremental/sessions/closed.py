"""What became of a session that is not open: published, or taken over or ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_incremental.core.errors import SessionSuperseded
from airflow_incremental.iceberg.state import publish_of_session
from airflow_incremental.sessions.process import Finished

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from airflow_incremental.iceberg.locks import Begin


def closed(target: Table, process: str, session_id: str, now: Begin | None) -> Finished:
    """Return the end of a session that was published.

    :param now: the session that holds the process's lock now, if one does.
    :raises SessionSuperseded: it was not; another session took over or it was ended.
    """
    done = publish_of_session(target, process, session_id)
    if done is not None:
        return Finished(outcome="already_published", reason=f"session {session_id} is published", published=done)
    by = f"by session {now.plan.session} of {now.plan.owner}" if now else "and ended"
    raise SessionSuperseded(
        f"session {session_id} of process {process!r} was taken over {by}",
        expected="to be open or published",
        hint="clear the run's plan task to plan anew, if this run is still wanted",
    )
