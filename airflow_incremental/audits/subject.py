"""What audits look at: one sealed snapshot, and what the session wrote in it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from airflow_incremental.core.audit import Over
from airflow_incremental.core.reads import SourceRead

#: Name of the relation that audits read.
ROWS = "rows"


@attrs.frozen(kw_only=True)
class Subject:
    """One sealed snapshot as audits see it.

    :param snapshot_id: the sealed snapshot; the one that may be published on the report.
    :param read: what an audit looks at, under the name ``rows``. Exactly the rows of that snapshot; may be called more than
        once.
    :param process: whose session wrote it.
    :param session: the session's id.
    :param target: identifier of the target.
    """

    snapshot_id: int
    read: Callable[[Over], SourceRead]
    process: str = ""
    session: str = ""
    target: str = ""
