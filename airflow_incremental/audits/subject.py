"""What audits look at: one sealed snapshot, and what the session wrote in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import pyarrow as pa

from airflow_incremental.core.audit import AuditIncomplete, AuditResult, Over
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.core.statistics import PastPublish, Statistics

#: Name of the relation that audits read.
ROWS = "rows"


def _nothing_known(over: Over) -> Statistics:
    raise AuditIncomplete(
        f"there are no manifests that would tell of the {over}",
        expected="rows of a table",
        hint="use audits that read the rows",
    )


@attrs.frozen(kw_only=True)
class Subject:
    """One sealed snapshot as audits see it.

    :param snapshot_id: the sealed snapshot; the one that may be published on the report.
    :param read: what an audit looks at, under the name ``rows``. Exactly the rows of that snapshot; may be called more than
        once.
    :param schema: the columns of what ``read`` gives, without a look at any file.
    :param statistics: what manifests say of the same rows; no data file is opened.
    :param publishes: the last publishes of the process, newest first, as many as are asked for and known.
    :param kept: the kept results of one name in given sessions, one each where there is one.
    :param process: whose session wrote it.
    :param session: the session's id.
    :param target: identifier of the target.
    """

    snapshot_id: int
    read: Callable[[Over], SourceRead]
    schema: Callable[[Over], pa.Schema] = attrs.field(
        default=attrs.Factory(lambda self: lambda over: self.read(over).schema, takes_self=True)
    )
    statistics: Callable[[Over], Statistics] = attrs.field(default=_nothing_known)
    publishes: Callable[[int], Sequence[PastPublish]] = attrs.field(default=lambda _last: ())
    kept: Callable[[Sequence[str], str], Sequence[AuditResult]] = attrs.field(default=lambda _sessions, _name: ())
    process: str = ""
    session: str = ""
    target: str = ""
