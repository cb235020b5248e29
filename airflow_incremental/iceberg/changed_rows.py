"""The rows that came and went between two snapshots of a source, bound to exact files.

The two sides may have rows in common, where a file was rewritten for the sake of a few; what is in both did not change. Taken with
how often each row occurs, rows that came less rows that went are the later snapshot less the earlier one.
"""

from __future__ import annotations

import attrs
from pyiceberg.table import FileScanTask, Table

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.plan import SourcePlan
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.iceberg.lineage import SnapshotIndex
from airflow_incremental.iceberg.reads import schema_at, source_read
from airflow_incremental.iceberg.scan import added_tasks, live_tasks


@attrs.frozen(kw_only=True)
class ChangedRows:
    """Both sides of a change, under the schema of the pinned snapshot."""

    added: SourceRead
    removed: SourceRead


def read_changed(table: Table, source: SourcePlan, changes: ChangeSet, *, event_time: str | None) -> ChangedRows:
    """Return the rows of a source that came (``<name>_added``) and went (``<name>_removed``).

    :param changes: from the plan's base to its pinned snapshot.
    :raises PlanExpired: the pinned snapshot or a file is gone.
    """
    schema = schema_at(table, source.pinned.snapshot_id)
    added, removed = _tasks(table, source, changes)
    return ChangedRows(
        added=source_read(table, f"{source.name}_added", schema, added, event_time=event_time),
        removed=source_read(table, f"{source.name}_removed", schema, removed, event_time=event_time),
    )


def _tasks(table: Table, source: SourcePlan, changes: ChangeSet) -> tuple[list[FileScanTask], list[FileScanTask]]:
    index = SnapshotIndex(table.metadata)
    base = index.get(None if source.base is None else source.base.snapshot_id)
    head = index.get(source.pinned.snapshot_id)
    if base is None or head is None or not (changes.removed or changes.deletes):
        # Nothing is known to have gone: a first run, new files, or those newer than a position that is lost.
        return added_tasks(table, changes.added, changes.masks, keep=None, drop=None), []
    before = {t.file.file_path: t for t in live_tasks(table, base, column=None, keep=None)}
    if not changes.deletes and all(c.path in before for c in changes.removed):
        return (
            added_tasks(table, changes.added, changes.masks, keep=None, drop=None),
            [before[c.path] for c in changes.removed],
        )
    # Row-level deletes, or files that came by compaction within the window and went again: the two snapshots themselves tell.
    after = {t.file.file_path: t for t in live_tasks(table, head, column=None, keep=None)}
    return _unlike(after, before), _unlike(before, after)


def _unlike(these: dict[str, FileScanTask], those: dict[str, FileScanTask]) -> list[FileScanTask]:
    """Return the files that are not among the others, or have other rows deleted there."""
    return [t for path, t in these.items() if path not in those or _hidden(t) != _hidden(those[path])]


def _hidden(task: FileScanTask) -> frozenset[str]:
    return frozenset(f.file_path for f in task.delete_files)
