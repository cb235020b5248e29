"""What refs and snapshots belong to a session, and how to take them away without touching anybody else's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import RemoveSnapshotRefUpdate, RemoveSnapshotsUpdate, TableUpdate

from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.state import words_of


def session_refs(table: Table, process: str, session: str) -> list[str]:
    """Return the lock, data and scratch refs of a session that exist now; the lock only if it is this session's."""
    data = naming.data_ref(process, session)
    found = [r for r in table.metadata.refs if r == data or r.startswith(f"{data}_")]
    lock = table.metadata.refs.get(naming.lock_ref(process))
    if lock is not None:
        begin = snapshot_index(table).get(lock.snapshot_id)
        if begin is not None and begin.summary is not None and begin.summary.get(naming.SESSION) == session:
            found.append(naming.lock_ref(process))
    return found


def stray_refs(table: Table, process: str) -> list[str]:
    """Return branches that an application of a closed session of a process made again, because it woke up after it was given up.

    Or a worker of a chunk, in the moment in which its session ended: that asserts the lock, which such a worker leaves as it is.
    Nobody reads them; the process's next session drops them. Snapshots they point at are expired like any others.
    """
    index, lock = snapshot_index(table), table.metadata.refs.get(naming.lock_ref(process))
    begin = None if lock is None else index.get(lock.snapshot_id)
    own = None if begin is None else words_of(begin).get(naming.SESSION)
    left = [
        name
        for name, ref in table.metadata.refs.items()
        if _is_record_of(index.get(ref.snapshot_id), process)
        and words_of(index[ref.snapshot_id])[naming.SESSION] != own
    ]
    return left + [
        name
        for name, ref in table.metadata.refs.items()
        if (naming.attempt_of_ref(name, process) or naming.audit_of_ref(name, process))
        and not (own and name.startswith(f"{naming.data_ref(process, own)}_"))
        # What bears a record of ours is a branch of another process, with an odd name.
        and (ref.snapshot_id not in index or naming.RECORD not in words_of(index[ref.snapshot_id]))
    ]


def _is_record_of(snapshot: Snapshot | None, process: str) -> bool:
    """Say whether a snapshot is the record of finished parts of a session of a process."""
    words = {} if snapshot is None else words_of(snapshot)
    return (words.get(naming.RECORD), words.get(naming.PROCESS)) == (naming.PARTS_DONE, process)


def removal(
    table: Table, refs: Iterable[str], *, keep: int | None = None, fork: int | None = None
) -> tuple[TableUpdate, ...]:
    """Return the updates that remove refs together with the session's snapshots that only they hold.

    A begin record and a sealed snapshot stand on whatever ``main`` was when they were made, and that is not the session's, even if
    ``main`` was rolled back since and nothing else leads to it.

    :param fork: head of ``main`` the scratch branches grew from; it and what led to it are not the session's either.
    :param keep: a snapshot that another update of the same commit gives a new ref, so it and its ancestors stay.
    """
    refs = [r for r in refs if r in table.metadata.refs]
    index = snapshot_index(table)
    held = {ref.snapshot_id for name, ref in table.metadata.refs.items() if name not in set(refs)}
    held.update(s for s in (keep, fork) if s is not None)
    stay: set[int] = set()
    for head in held:
        stay.update(_ancestry(index, head, until=stay))
    go: set[int] = set()
    for name in refs:
        head = table.metadata.refs[name].snapshot_id
        grown = _ancestry(index, head, until=stay | go)
        go.update(grown[:1] if grown and naming.RECORD in words_of(index[head]) else grown)
    updates: list[TableUpdate] = [RemoveSnapshotRefUpdate(ref_name=name) for name in refs]
    if go:
        updates.append(RemoveSnapshotsUpdate(snapshot_ids=sorted(go)))
    return tuple(updates)


def _ancestry(index: Mapping[int, Snapshot], head: int | None, *, until: AbstractSet[int]) -> list[int]:
    """Return a snapshot and its ancestors that are kept, up to the first that is in ``until``."""
    found: list[int] = []
    while head is not None and head in index and head not in until:
        found.append(head)
        head = index[head].parent_snapshot_id
    return found
