"""What is new on a branch since a place that was told of: commits that changed data, and only they."""

from __future__ import annotations

import attrs
from pyiceberg.table import Table

from airflow_incremental.core.errors import WatermarkLost
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import Reach, SnapshotIndex, head_of, position_of, walk


@attrs.frozen(kw_only=True)
class News:
    """Changes of data between two snapshots.

    :param from_snapshot_id: the last snapshot told of before; None: nothing was, or the table was empty then.
    :param to_snapshot_id: head of the branch; None: the branch has no snapshot any more.
    :param operations: kinds of the snapshots between the two, sorted: ``append``, ``overwrite``, ``delete``, ``replace``.
    :param rows_added: rows in the files that came, compaction left out; a rewritten file counts with all its rows. None: not known.
    :param history_cut: the history between the two is not whole, so the other values may not tell everything.
    """

    from_snapshot_id: int | None
    to_snapshot_id: int | None
    operations: tuple[str, ...] = ()
    rows_added: int | None = None
    history_cut: bool = False


def news_since(table: Table, branch: str, place: SourcePosition | None) -> tuple[SourcePosition, News | None]:
    """Return the place of a branch's head, and what changed in its data since an earlier place; None if nothing did.

    Compaction and commits without a file are no news. Neither is a branch that was set back to an ancestor: what was told of is
    gone, but nothing came. What is committed after that is compared with what was told of.

    :param place: what was told of before; None: not known, so that whatever is there is news.
    :raises TableError: there is no such branch, or the table's format version cannot be followed.
    """
    head = head_of(table, branch)
    here = position_of(table, head)
    before = None if place is None else place.snapshot_id
    if head is None and before is None:
        return here, None
    cut = News(from_snapshot_id=before, to_snapshot_id=here.snapshot_id, history_cut=True)
    if place is None:
        return here, cut
    try:
        # As ``overwrite`` needs it: whatever came or went. Without an event time no file is read.
        found = detect(table, place, here.snapshot_id, event_time=None, mode="overwrite")
    except WatermarkLost:
        found = None
    # Only a head that does not descend from what was told of can be its ancestor.
    if (found is None or found.derivation == "diff") and _is_set_back(table, place, here):
        return here, None
    if found is None:
        return here, cut
    if not found:
        return here, None
    return here, News(
        from_snapshot_id=before,
        to_snapshot_id=here.snapshot_id,
        operations=tuple(sorted(set(found.operations.values()))),
        rows_added=found.rows_added,
        history_cut=found.derivation != "lineage",
    )


def _is_set_back(table: Table, place: SourcePosition, here: SourcePosition) -> bool:
    """Say whether the head is an ancestor of what was told of."""
    if place.table_uuid != here.table_uuid or place.snapshot_id is None or here.snapshot_id is None:
        return False
    index = SnapshotIndex(table.metadata)
    if index.get(place.snapshot_id) is None:
        return False
    return walk(index, after=here.snapshot_id, head=place.snapshot_id).reach is Reach.REACHED
