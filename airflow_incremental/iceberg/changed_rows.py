"""The rows that came and went between two snapshots of a source, bound to exact files.

The two sides may have rows in common, where a file was rewritten for the sake of a few; what is in both did not change. Taken with
how often each row occurs, rows that came less rows that went are the later snapshot less the earlier one.
"""

from __future__ import annotations

from pyiceberg.table import FileScanTask, Table

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.plan import SourcePlan
from airflow_incremental.core.reads import INTERNAL_PREFIX, ChangedRows
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg.lineage import SnapshotIndex
from airflow_incremental.iceberg.reads import schema_at, source_read
from airflow_incremental.iceberg.scan import added_tasks, live_tasks


def read_changed(table: Table, source: SourcePlan, changes: ChangeSet, *, event_time: str | None) -> ChangedRows:
    """Return the rows of a source that came and went, under the schema of the pinned snapshot.

    :param changes: from the plan's base to its pinned snapshot.
    :raises PlanExpired: the pinned snapshot or a file is gone.
    """
    schema = schema_at(table, source.pinned.snapshot_id)
    added, removed = changed_tasks(table, source.base, source.pinned, changes)
    return ChangedRows(
        added=source_read(table, f"{INTERNAL_PREFIX}{source.name}_added", schema, added, event_time=event_time),
        removed=source_read(table, f"{INTERNAL_PREFIX}{source.name}_removed", schema, removed, event_time=event_time),
    )


def changed_tasks(
    table: Table, before: SourcePosition | None, after: SourcePosition, changes: ChangeSet
) -> tuple[list[FileScanTask], list[FileScanTask]]:
    """Return the files whose rows came and those whose rows went, each with its row-level deletes of the time."""
    index = SnapshotIndex(table.metadata)
    base = index.get(None if before is None else before.snapshot_id)
    head = index.get(after.snapshot_id)
    if base is None or head is None or not (changes.removed or changes.deletes):
        # Nothing is known to have gone: a first run, new files, or those newer than a position that is lost.
        return added_tasks(table, changes.added, changes.masks, keep=None, drop=None), []
    old = {t.file.file_path: t for t in live_tasks(table, base, column=None, keep=None)}
    if not changes.deletes and all(c.path in old for c in changes.removed):
        return (
            added_tasks(table, changes.added, changes.masks, keep=None, drop=None),
            [old[c.path] for c in changes.removed],
        )
    # Row-level deletes, or files that came by compaction within the window and went again: the two snapshots themselves tell.
    new = {t.file.file_path: t for t in live_tasks(table, head, column=None, keep=None)}
    return _unlike(new, old), _unlike(old, new)


def _unlike(these: dict[str, FileScanTask], those: dict[str, FileScanTask]) -> list[FileScanTask]:
    """Return the files that are not among the others, or have other rows deleted there."""
    return [t for path, t in these.items() if path not in those or _hidden(t) != _hidden(those[path])]


def _hidden(task: FileScanTask) -> frozenset[str]:
    return frozenset(f.file_path for f in task.delete_files)
