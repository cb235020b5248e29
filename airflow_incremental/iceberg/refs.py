"""What refs and snapshots belong to a session, and how to take them away without touching anybody else's."""

from __future__ import annotations

from collections.abc import Iterable

from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import RemoveSnapshotRefUpdate, RemoveSnapshotsUpdate, TableUpdate

from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index


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


def removal(table: Table, refs: Iterable[str], *, keep: int | None = None) -> tuple[TableUpdate, ...]:
    """Return the updates that remove refs together with the snapshots only they hold.

    :param keep: a snapshot that another update of the same commit gives a new ref, so it and its ancestors stay.
    """
    refs = [r for r in refs if r in table.metadata.refs]
    index = snapshot_index(table)

    def ancestry(snapshot_id: int | None) -> Iterable[int]:
        while snapshot_id is not None and snapshot_id in index:
            yield snapshot_id
            snapshot_id = index[snapshot_id].parent_snapshot_id

    ours = set(refs)
    held = {table.metadata.refs[MAIN_BRANCH].snapshot_id} if MAIN_BRANCH in table.metadata.refs else set()
    held |= {ref.snapshot_id for name, ref in table.metadata.refs.items() if name not in ours}
    if keep is not None:
        held.add(keep)
    stay: set[int] = set()
    for head in held:
        for snapshot_id in ancestry(head):
            if snapshot_id in stay:
                break
            stay.add(snapshot_id)
    go: list[int] = []
    for name in refs:
        for snapshot_id in ancestry(table.metadata.refs[name].snapshot_id):
            if snapshot_id in stay or snapshot_id in go:
                break
            go.append(snapshot_id)
    updates: list[TableUpdate] = [RemoveSnapshotRefUpdate(ref_name=name) for name in refs]
    if go:
        updates.append(RemoveSnapshotsUpdate(snapshot_ids=go))
    return tuple(updates)
