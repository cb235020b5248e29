"""What undoing sessions means for the files of a target, and whether it may be done, for the rollback."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
from pyiceberg.manifest import DataFileContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from airflow_incremental.core.commands import list_command, rollback_command
from airflow_incremental.core.errors import RollbackRefused
from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import LiveFile, snapshot_index
from airflow_incremental.iceberg.history import expired_lineage, main_lineage
from airflow_incremental.iceberg.lineage import operation_of, starts_anew
from airflow_incremental.iceberg.locks import session_of_lock
from airflow_incremental.iceberg.manifests import ManifestReader
from airflow_incremental.iceberg.state import Record, is_reset, published_by, records, state_of, words_of

#: Sessions that an error names.
_NAMED = 5


@attrs.frozen(kw_only=True)
class Undoing:
    """The sessions that go, the state that comes back, and the files that make the difference."""

    table: Table
    process: str
    #: The session that is undone first in time.
    first: Record
    #: What is undone, newest first, ``first`` last; what was undone before is not among it.
    undone: tuple[Record, ...]
    #: The snapshot whose rows come back.
    before: Snapshot
    #: The record that speaks for the process again; None if there is none.
    back_to: Record | None
    #: Live files that go.
    dropped: tuple[LiveFile, ...] = attrs.field(repr=False)
    #: Files of ``before`` whose rows are written again: they are not live any more.
    restored: tuple[ManifestEntry, ...] = attrs.field(repr=False)
    #: Commits since that changed no rows.
    passed: tuple[Snapshot, ...]

    @property
    def published(self) -> Published | None:
        """The publish whose watermark holds again; None: no watermark."""
        return None if self.back_to is None or is_reset(self.back_to.snapshot) else published_by(self.back_to.snapshot)


def undoing_of(table: Table, process: str, session: str) -> Undoing | Record:
    """Find out what it takes to go back to before a session; or return its record, if it is undone already.

    :raises RollbackRefused: it cannot be done.
    """
    lineage = list(main_lineage(table))
    own = list(records(lineage, process))
    first = next((record for record in own if record.session == session), None)
    if first is None:
        raise _unknown(table, process, session, lineage)
    if first.undone_by is not None:
        return first
    at = lineage.index(first.snapshot)
    before = snapshot_index(table).get(first.snapshot.parent_snapshot_id or -1)
    if before is None:
        raise _gone(
            table,
            session,
            f"the snapshot before it ({first.snapshot.parent_snapshot_id or 'its id is lost, too'}) is expired",
        )
    since = lineage[: at + 1]
    passed = _check_others(table, process, first, since)
    dropped, restored = _difference(table, before, lineage[0])
    return Undoing(
        table=table,
        process=process,
        first=first,
        undone=tuple(r for r in own[: own.index(first) + 1] if r.undone_by is None),
        before=before,
        back_to=_back_to(table, process, first, lineage[at + 1 :]),
        dropped=dropped,
        restored=restored,
        passed=passed,
    )


def _back_to(table: Table, process: str, first: Record, lineage: Sequence[Snapshot]) -> Record | None:
    """Return what spoke for the process before a session."""
    found = next(records(lineage, process), None)
    if found is not None:
        return found
    base = words_of(first.snapshot).get(naming.BASE_SESSION)
    root = lineage[-1]
    if base and not starts_anew(root, root.manifests(table.io)):
        raise _gone(table, first.session, f"session {base}, which it went on from, is expired")
    return None


def _difference(
    table: Table, before: Snapshot, head: Snapshot
) -> tuple[tuple[LiveFile, ...], tuple[ManifestEntry, ...]]:
    """Return the data files of ``head`` that ``before`` does not have, and the reverse; shared manifests are not opened."""
    reader = ManifestReader(table.io)
    old, new = reader.lists([before, head])
    shared = {m.manifest_path for m in old} & {m.manifest_path for m in new}
    gone = _live(reader, (m for m in old if m.manifest_path not in shared))
    come = _live(reader, (m for m in new if m.manifest_path not in shared))
    # A manifest that was rewritten lists files that are in the other one as well, perhaps in one that is shared.
    kept = gone.keys() & come.keys()
    return (
        tuple(file for path, file in come.items() if path not in kept),
        tuple(file.entry for path, file in gone.items() if path not in kept),
    )


def _live(reader: ManifestReader, manifests: Iterable[ManifestFile]) -> dict[str, LiveFile]:
    found: dict[str, LiveFile] = {}
    for manifest in manifests:
        for entry in reader.entries([manifest], lambda e: e.status != ManifestEntryStatus.DELETED):
            if entry.data_file.content == DataFileContent.DATA:
                found[entry.data_file.file_path] = LiveFile(manifest, entry)
    return found


def _check_others(table: Table, process: str, first: Record, since: Sequence[Snapshot]) -> tuple[Snapshot, ...]:
    """Return commits of others since that changed no rows.

    :raises RollbackRefused: others changed some.
    """
    processes = {name for snapshot in since if (name := state_of(snapshot)) not in (None, process)}
    # Another process's sessions that were undone since changed nothing in the end, and neither did their rollback.
    undone: set[int] = set()
    for name in processes:
        own = list(records(since, name))
        undone.update(r.snapshot.snapshot_id for r in own if r.undone_by is not None)
        sessions = {r.session for r in own}
        undone.update(r.snapshot.snapshot_id for r in own if words_of(r.snapshot).get(naming.UNDONE) in sessions)
    reader, passed = ManifestReader(table.io), []
    for snapshot in since:
        if state_of(snapshot) == process:
            continue
        if snapshot.snapshot_id not in undone and _changes_rows(reader, snapshot):
            raise _others(table, process, first, since, snapshot)
        passed.append(snapshot)
    return tuple(passed)


def _changes_rows(reader: ManifestReader, snapshot: Snapshot) -> bool:
    if operation_of(snapshot) is Operation.REPLACE:
        return False
    (manifests,) = reader.lists([snapshot])
    own = (m for m in manifests if m.added_snapshot_id == snapshot.snapshot_id)
    mine = reader.entries(own, lambda e: e.snapshot_id == snapshot.snapshot_id)
    return any(entry.status != ManifestEntryStatus.EXISTING for entry in mine)


def _others(table: Table, process: str, first: Record, since: Sequence[Snapshot], by: Snapshot) -> RollbackRefused:
    target, session = ".".join(table.name()), first.session
    other = state_of(by)
    if other is not None:
        oldest = [r.session for r in records(since, other) if r.undone_by is None][-1]
        who = f"process {other!r} published session {words_of(by)[naming.SESSION]} (snapshot {by.snapshot_id})"
        hint = (
            f"first take process {other!r} back to before it wrote, with {rollback_command(target, other, oldest)}, then do this "
            "again; or leave the rows, and recompute what is wrong: clear the run of the session, or restate its ranges"
        )
    else:
        who = f"another writer committed snapshot {by.snapshot_id} ({operation_of(by).value})"
        hint = (
            "if that commit may go, set 'main' back to the snapshot before it with your engine (rollback_to_snapshot), then do "
            "this again; or leave the rows, and recompute what is wrong: clear the run of the session, or restate its ranges"
        )
    return RollbackRefused(
        f"{target} cannot go back to before session {session} of process {process!r}: {who} since, and that changed rows",
        expected="that only sessions of this process, and commits that change no rows, such as compaction, came after it",
        hint=hint,
    )


def _gone(table: Table, session: str, why: str, *, publish_kept: bool = True) -> RollbackRefused:
    # Without its publish a run that is cleared plans anew, and loads only what changed.
    again = (
        "clear the run of the session, or restate its ranges" if publish_kept else "restate the ranges of the session"
    )
    return RollbackRefused(
        f"{'.'.join(table.name())} cannot go back to before session {session}: {why}",
        expected="that the snapshots since, and the one before it, are kept",
        hint=f"recompute what is wrong instead: {again}. To be able to undo for longer, keep snapshots for longer",
    )


def _unknown(table: Table, process: str, session: str, lineage: Sequence[Snapshot]) -> RollbackRefused:
    target = ".".join(table.name())
    what = f"session {session} is no publish of process {process!r} on 'main' of {target}"
    other = next((state_of(s) for s in lineage if state_of(s) and words_of(s)[naming.SESSION] == session), None)
    if other is not None:
        return RollbackRefused(
            f"session {session} of {target} is one of process {other!r}, not of {process!r}",
            expected=f"a session of process {process!r}",
            hint=f"see {list_command(target, process)}; to undo this one, name its process",
        )
    if session == session_of_lock(table, process):
        return RollbackRefused(
            f"{what}: it is open, and has published nothing",
            hint="let its run end, or end it with 'airflow-incremental session abandon'",
        )
    if any(state_of(s) == process and words_of(s)[naming.SESSION] == session for s in expired_lineage(table)):
        return _gone(table, session, "its snapshot, or one since, is expired", publish_kept=False)
    known = [r.session for r in records(lineage, process) if r.undone_by is None][:_NAMED]
    return RollbackRefused(
        what,
        expected=f"one of its sessions; the last ones are {', '.join(known)}"
        if known
        else "a session that it has published",
        hint=f"see {list_command(target, process)}",
    )
