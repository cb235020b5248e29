"""What a source says of its own completeness: what its loads published, when its snapshot was committed, or a table property."""

from __future__ import annotations

import datetime as dt

from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot

from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import ArgumentError, TableError, WatermarkLost
from airflow_incremental.core.ranges import EPOCH, UTC, parse_time
from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.lineage import SnapshotIndex, operation_of
from airflow_incremental.iceberg.state import (
    is_reset,
    other_processes,
    published,
    published_by,
    state_of,
    words_of,
)


def rule_of(table: Table, declared: CompleteThrough | None) -> CompleteThrough:
    """Return the rule of a source: the declared one, else ``published`` if processes load the table, else ``latest_event``."""
    if declared is not None:
        return declared
    return CompleteThrough.published() if other_processes(table, "") else CompleteThrough.latest_event()


def told_through(table: Table, branch: str, snapshot: Snapshot | None, rule: CompleteThrough) -> dt.datetime | None:
    """Return what a source says at a snapshot; None if it says nothing (yet), and for ``latest_event``, which its rows say.

    :param branch: the branch the snapshot is head of.
    :raises TableError: it says something that cannot be understood.
    """
    if rule.rule == "arrival":
        return None if snapshot is None else EPOCH + dt.timedelta(milliseconds=arrived_ms(table, snapshot))
    if rule.rule == "property":
        return _of_property(table, rule.name or "")
    if rule.rule == "published":
        return _of_processes(table, branch, snapshot)
    return None


def arrived_ms(table: Table, snapshot: Snapshot) -> int:
    """Return when the newest rows of a snapshot had arrived, in milliseconds since 1970: a compaction brings none.

    One by this package says it; behind one by another engine the history is looked at, as far as it is kept.
    """
    found = snapshot.timestamp_ms
    for ancestor in SnapshotIndex(table.metadata).ancestry(snapshot.snapshot_id):
        found = ancestor.timestamp_ms
        if operation_of(ancestor) is not Operation.REPLACE:
            break
        told = words_of(ancestor).get(naming.ARRIVED)
        if told is not None:
            return int(told)
    return found


def _of_property(table: Table, name: str) -> dt.datetime | None:
    text = table.metadata.properties.get(name)
    if text is None:
        return None
    try:
        if len(text) == len("2024-01-31"):
            return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), UTC)
        return parse_time(text, what=f"the property {name!r}")
    except (ValueError, ArgumentError) as error:
        raise TableError(
            f"the property {name!r} of table {'.'.join(table.name())} is {text!r}, by which it says how far it is complete",
            expected="an ISO 8601 time with zone such as 2024-01-31T06:00:00Z, or a date",
            hint="correct the property, or give the source another complete_through",
        ) from error


def _of_processes(table: Table, branch: str, snapshot: Snapshot | None) -> dt.datetime | None:
    """Return the least of what the processes of a table published up to a snapshot: one that has not is not complete at all."""
    waiting = set(other_processes(table, ""))
    if not waiting or snapshot is None:
        return None
    found: list[Published] = []
    for ancestor in SnapshotIndex(table.metadata).ancestry(snapshot.snapshot_id):
        process = state_of(ancestor)
        if process in waiting:
            if is_reset(ancestor):
                return None
            waiting.remove(process)
            found.append(published_by(ancestor))
        if not waiting:
            break
    for process in waiting:
        # Expired from the lineage that is kept; on main there is more to go by.
        try:
            last = published(table, process) if branch == MAIN_BRANCH else None
        except WatermarkLost:
            last = None
        if last is None:
            return None
        found.append(last)
    told = [p.watermark.complete_through for p in found]
    known = [t for t in told if t is not None]
    return min(known) if len(known) == len(told) else None
