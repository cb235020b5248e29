"""What each snapshot of a window did to the files of a table, from as few manifests as tell it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import attrs
from pyiceberg.manifest import DataFileContent, ManifestContent, ManifestEntry, ManifestEntryStatus
from pyiceberg.table.snapshots import Operation, Snapshot

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.netting import RowDeletes, Step
from airflow_incremental.iceberg.bounds import referenced_file
from airflow_incremental.iceberg.lineage import operation_of
from airflow_incremental.iceberg.manifests import ManifestReader


class Found(NamedTuple):
    """A manifest entry and the snapshot that did to the file what it stands for."""

    entry: ManifestEntry
    snapshot_id: int


@attrs.frozen(kw_only=True)
class Window:
    """The steps of a window, oldest first, and the row-level delete files it brought."""

    steps: tuple[Step[Found], ...]
    masks: tuple[Found, ...]
    #: Files that were added after the window's start by no snapshot of it: by one that is gone.
    strays: dict[str, Found]


@attrs.define
class _Building:
    added: dict[str, Found] = attrs.field(factory=dict)
    removed: dict[str, Found] = attrs.field(factory=dict)
    deletes: list[RowDeletes[Found]] = attrs.field(factory=list)
    #: Delete files that went, to be judged when the step is known.
    undeleted: list[Found] = attrs.field(factory=list)


def read_window(reader: ManifestReader, snapshots: Sequence[Snapshot], *, base_sequence: int) -> Window:
    """Read what the snapshots of a lineage did.

    The list of the newest snapshot names every manifest with files that are live; the lists of snapshots that are not
    appends name those with the files they removed. Of these, only manifests added within the window are opened. In
    lineages without sequence numbers (format version 1) the lists of appends are read too when files were removed,
    since nothing else tells whether those had been added within the window.

    :param snapshots: newest first, at least one, without gaps.
    :param base_sequence: sequence number of the snapshot before the window; files newer than it were added after it.
    """
    steps = {s.snapshot_id: _Building() for s in reversed(snapshots)}
    operations = {s.snapshot_id: operation_of(s) for s in snapshots}
    listed = [snapshots[0], *(s for s in snapshots[1:] if operations[s.snapshot_id] is not Operation.APPEND)]
    lists = dict(zip((s.snapshot_id for s in listed), reader.lists(listed), strict=True))
    head = {m.manifest_path: m for m in lists[snapshots[0].snapshot_id] if m.added_snapshot_id in steps}
    others = {m.manifest_path: m for i, found in lists.items() for m in found if m.added_snapshot_id == i}
    masks: dict[str, Found] = {}
    for entry in each_once(reader.entries(head.values(), lambda e: e.snapshot_id in steps)):
        _file(entry, steps, masks)
    for entry in reader.entries((m for p, m in others.items() if p not in head), lambda e: e.snapshot_id in steps):
        _file(entry, steps, masks)
    strays = _births(reader, snapshots, steps, base_sequence=base_sequence)
    for snapshot_id, step in steps.items():
        if step.undeleted and operations[snapshot_id] is not Operation.APPEND:
            oldest = min(
                (m.min_sequence_number or 0 for m in lists[snapshot_id] if m.content == ManifestContent.DATA), default=0
            )
            step.deletes.extend(RowDeletes(f) for f in step.undeleted if not dangling(f.entry, step.removed, oldest))
    return Window(
        steps=tuple(
            Step(
                snapshot_id=snapshot_id,
                replaces=operations[snapshot_id] is Operation.REPLACE,
                added=step.added,
                removed=step.removed,
                deletes=tuple(step.deletes),
            )
            for snapshot_id, step in steps.items()
        ),
        masks=tuple(masks.values()),
        strays=strays,
    )


def _file(entry: ManifestEntry, steps: dict[int, _Building], masks: dict[str, Found]) -> None:
    """File an entry under the snapshot that made it."""
    file, snapshot_id = entry.data_file, entry.snapshot_id
    if snapshot_id is None:
        return
    step, found = steps[snapshot_id], Found(entry, snapshot_id)
    gone = entry.status == ManifestEntryStatus.DELETED
    if file.content == DataFileContent.DATA:
        (step.removed if gone else step.added)[file.file_path] = found
    elif gone:
        step.undeleted.append(found)
    elif file.file_path not in masks:
        masks[file.file_path] = found
        step.deletes.append(row_deletes(found))


def _births(
    reader: ManifestReader, snapshots: Sequence[Snapshot], steps: dict[int, _Building], *, base_sequence: int
) -> dict[str, Found]:
    """Complete the steps with files that were added and removed within the window; return those no snapshot of it added."""
    known = {path for step in steps.values() for path in step.added}
    open_ends = [f for step in steps.values() for path, f in step.removed.items() if path not in known]
    if not open_ends:
        return {}
    if any(not sequence_of(f.entry) for f in open_ends):
        known |= _listed_births(reader, snapshots, steps)
    by_sequence = {s.sequence_number: s.snapshot_id for s in snapshots if s.sequence_number}
    strays: dict[str, Found] = {}
    for found in open_ends:
        path, sequence = found.entry.data_file.file_path, sequence_of(found.entry)
        if path in known or sequence <= base_sequence:
            continue
        birth = by_sequence.get(sequence)
        if birth is None:
            strays[path] = found
        else:
            steps[birth].added[path] = Found(found.entry, birth)
    return strays


def _listed_births(reader: ManifestReader, snapshots: Sequence[Snapshot], steps: dict[int, _Building]) -> set[str]:
    """Add what appends without sequence numbers added, from their own lists, and return the paths."""
    appends = [s for s in snapshots[1:] if not s.sequence_number and operation_of(s) is Operation.APPEND]
    own = {
        m.manifest_path: m
        for s, manifests in zip(appends, reader.lists(appends), strict=True)
        for m in manifests
        if m.added_snapshot_id == s.snapshot_id
    }
    found: set[str] = set()
    for entry in reader.entries(own.values(), lambda e: e.snapshot_id in steps):
        path = entry.data_file.file_path
        if entry.snapshot_id is not None and entry.status != ManifestEntryStatus.DELETED:
            steps[entry.snapshot_id].added.setdefault(path, Found(entry, entry.snapshot_id))
            found.add(path)
    return found


def sequence_of(entry: ManifestEntry) -> int:
    """Return the sequence number of the snapshot that added a file; 0 in format version 1.

    Early writers of version 2 kept only the data's own sequence number, which is the same for rows that were never moved.
    """
    return entry.file_sequence_number or entry.sequence_number or 0


def each_once(entries: Iterable[ManifestEntry]) -> Iterator[ManifestEntry]:
    """Pass on the entries of one snapshot's manifests, in which a file must not be live twice.

    :raises TableError: one is. Its rows count twice in the table, and there is no telling which of the two goes when one does.
    """
    live: set[str] = set()
    for entry in entries:
        if entry.status != ManifestEntryStatus.DELETED:
            path = entry.data_file.file_path
            if path in live:
                raise TableError(
                    f"{path} is listed twice in one snapshot, as if it had been appended by two commits",
                    expected="each data file once",
                    hint="delete the file from the table by its path and append it again, once",
                )
            live.add(path)
        yield entry


def row_deletes(found: Found) -> RowDeletes[Found]:
    """Return a new file of row-level deletes with the data file it is known to refer to."""
    data = referenced_file(found.entry.data_file)
    return RowDeletes(found, None if data is None else frozenset((data,)))


def dangling(entry: ManifestEntry, removed: Mapping[str, Found], oldest: int) -> bool:
    """Say whether a delete file went because no file is left that it could touch: writers tidy them up in any commit.

    :param removed: data files that went with it.
    :param oldest: least sequence number of the data files that are left.
    """
    return (entry.sequence_number or 0) < oldest or referenced_file(entry.data_file) in removed
