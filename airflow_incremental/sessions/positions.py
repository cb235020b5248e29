"""Positions in sources, as people name them, and what a process that goes on from one finds there."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from airflow_incremental.core.errors import ArgumentError, IncrementalError
from airflow_incremental.core.ranges import format_time, parse_time
from airflow_incremental.core.watermark import SourcePosition, Watermark
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.lineage import SnapshotIndex, head_of, position_of, snapshot_at
from airflow_incremental.iceberg.pins import pin
from airflow_incremental.iceberg.state import words_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

log = logging.getLogger(__name__)

#: Before the first row of a source, and after the last one there is now.
START, CURRENT = "start", "current"


def read_position(table: Table, branch: str, text: str, *, what: str) -> SourcePosition:
    """Return the position of a source that a person names, as ``initial`` of a load names it.

    :param text: id of a snapshot; a time with zone, which is the last snapshot at or before it; ``current`` or ``start``.
    :param what: the source, for errors.
    :raises ArgumentError: it names none.
    :raises TableError: there is no such branch, or its history is not kept so far back.
    """
    head = head_of(table, branch)
    if text == CURRENT:
        return position_of(table, head)
    if text == START:
        return position_of(table, None)
    if not text.isdecimal():
        return position_of(table, snapshot_at(table, branch, parse_time(text, what=f"the position of {what}")))
    for snapshot in SnapshotIndex(table.metadata).ancestry(None if head is None else head.snapshot_id):
        if snapshot.snapshot_id == int(text):
            return position_of(table, snapshot)
    raise ArgumentError(
        f"snapshot {text} is not on branch {branch!r} of {what} ({'.'.join(table.name())})",
        expected="a snapshot that the branch descends from and that is still kept",
        hint="name another snapshot, a time with zone, 'current' or 'start'",
    )


@attrs.frozen(kw_only=True)
class Way:
    """What lies between two positions of a source."""

    #: Snapshots that were consumed and are read again, oldest last.
    again: tuple[int, ...]
    #: Snapshots that were not consumed and are passed over.
    skipped: tuple[int, ...]


def way_between(table: Table, branch: str, old: SourcePosition, new: SourcePosition) -> Way:
    """Compare a position with one on a branch: what is read again, and what is passed over.

    Where the old one's snapshot is gone, sequence numbers tell what it had consumed.
    """
    index, head = SnapshotIndex(table.metadata), head_of(table, branch)
    lineage = list(index.ancestry(None if head is None else head.snapshot_id))
    consumed = {s.snapshot_id for s in index.ancestry(old.snapshot_id)}
    if old.table_uuid == str(table.metadata.table_uuid) and old.snapshot_id is not None and not consumed:
        sequence = old.sequence_number or 0
        consumed = {s.snapshot_id for s in lineage if (s.sequence_number or 0) <= sequence}
    taken = {s.snapshot_id for s in index.ancestry(new.snapshot_id)}
    ids = [s.snapshot_id for s in lineage]
    return Way(
        again=tuple(i for i in ids if i in consumed and i not in taken),
        skipped=tuple(i for i in ids if i in taken and i not in consumed),
    )


def position_notes(catalog: Catalog, watermark: Watermark, tables: Mapping[str, str]) -> tuple[str, ...]:
    """Say of which sources the position is expired, or may be: the next run of the load cannot simply go on from there."""
    notes = []
    for name, position in watermark.positions.items():
        if name not in tables or position.snapshot_id is None:
            continue
        try:
            found = load_table(catalog, tables[name], role="source")
        except IncrementalError as error:
            notes.append(f"source {name!r} cannot be looked at: {error.found}")
            continue
        if str(found.metadata.table_uuid) != position.table_uuid:
            notes.append(
                f"source {name!r} ({tables[name]}) is another table now; on_lost_watermark decides what the next run does"
            )
        elif SnapshotIndex(found.metadata).get(position.snapshot_id) is None:
            notes.append(
                f"snapshot {position.snapshot_id} of source {name!r} ({tables[name]}), from which the next run would go on, is "
                "expired: on_lost_watermark decides what it does; the default is to fail and say so"
            )
    return tuple(notes)


def move_pins(catalog: Catalog, process: str, record: Snapshot) -> None:
    """Let the tags that a process has on its sources follow a record of it; where none is, none is made."""
    words = words_of(record)
    if naming.WATERMARK not in words:
        return
    watermark, tables = (
        Watermark.from_json(json.loads(words[naming.WATERMARK])),
        json.loads(words.get(naming.SOURCES, "{}")),
    )
    for name, position in watermark.positions.items():
        if name not in tables:
            continue
        try:
            if naming.pin_tag(process, name) in load_table(catalog, tables[name], role="source").metadata.refs:
                pin(catalog, tables[name], process=process, source=name, position=position)
        except (IncrementalError, ValueError, OSError) as error:
            log.warning("the pin on source %r (%s) stays where it is: %s", name, tables[name], error)


def position_text(position: SourcePosition) -> str:
    """Return a position as people read it."""
    if position.snapshot_id is None:
        return "the start"
    at = "" if position.committed_at is None else f" of {format_time(position.committed_at)}"
    return f"snapshot {position.snapshot_id}{at}"


def standing(table: Table | None, position: SourcePosition) -> dict[str, Any]:
    """Say how a position stands to the head of ``main`` of its table now: ``behind`` (snapshots), and ``state``.

    ``state`` is ``head``, ``behind``, ``off_branch`` (on another branch, or the source was rolled back), ``expired``, ``replaced``
    (another table has the name) or ``unknown``.
    """
    if table is None:
        return {"state": "unknown", "behind": None}
    if str(table.metadata.table_uuid) != position.table_uuid:
        return {"state": "replaced", "behind": None}
    index, head = SnapshotIndex(table.metadata), table.metadata.current_snapshot_id
    behind = 0
    for snapshot in index.ancestry(head):
        if snapshot.snapshot_id == position.snapshot_id:
            return {"state": "behind" if behind else "head", "behind": behind}
        behind += 1
    if position.snapshot_id is None:
        return {"state": "behind" if behind else "head", "behind": behind}
    return {"state": "expired" if index.get(position.snapshot_id) is None else "off_branch", "behind": None}
