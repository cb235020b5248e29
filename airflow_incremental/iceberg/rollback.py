"""Rollback: a target goes back to before a session of a process, with its watermark, in one commit.

The commit is a new snapshot on top of ``main`` whose rows are those from before the session, and whose watermark is the one from
before it: a publish like any other, so the next run goes on from there and loads again what was undone. ``main`` itself does not
move back. If it did, whoever has consumed the undone snapshots would stand on snapshots that are no ancestors of the head any more
and that the next expiry takes: modes that replace would have to compare file sets while they still can, ``append`` would have lost
its watermark, and what other processes published since would be lost with them. On top of ``main`` the undoing is a change like any
other: downstream in ``overwrite``, ``stateful`` and ``merge`` follows it by lineage; downstream in ``append`` sees added rows leave
again, about which its ``on_rewrite`` decides; whoever had not consumed what was undone sees both sides, which cancel out.

Files that the undone sessions had replaced come back under new names, their rows written again, without those that row-level
deletes hid. The old names would do for readers, but some engines, when they expire the snapshot that removed a file, delete it
without looking whether a later one lists it again. So what a rollback costs follows what the undone sessions replaced; where they
only added, it writes no data at all.

Asserted: table uuid, ``main``, the absence of the process's lock, schema and spec. Nobody else's rows go: if others changed rows
since, it is refused. A kill before the commit leaves files for the sweep; after it, doing it again finds it done.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import AssertCurrentSchemaId, AssertDefaultSpecId

from airflow_incremental.core.by_hand import Act
from airflow_incremental.core.errors import RollbackRefused
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.by_hand import build_record, check_no_session, committed, record_change
from airflow_incremental.iceberg.commits import Change, commit
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.scan import row_deletes
from airflow_incremental.iceberg.state import Record, words_of
from airflow_incremental.iceberg.undoing import Undoing, undoing_of
from airflow_incremental.iceberg.writer import write

KIND = "rollback"


@attrs.frozen(kw_only=True)
class RolledBack:
    """A rollback that was committed: its snapshot, and what it undid; None if an earlier call did it."""

    snapshot: Snapshot
    undoing: Undoing | None


def roll_back(
    catalog: Catalog,
    target: str,
    process: str,
    session: str,
    *,
    rollback: str,
    act: Act,
    progress: Callable[[str], None] = lambda _: None,
) -> RolledBack:
    """Take a target back to before a session of a process, once.

    :param session: the first session that is undone; those of the process that came after it are undone with it.
    :param rollback: id of this act, as sessions have one.
    :raises SessionBusy: a session of the process is open.
    :raises RollbackRefused: it cannot be done; says why, and what to do.
    """
    writing = _Writing(progress=progress)
    undoing: Undoing | None = None

    def build(table: Table) -> Change | None:
        nonlocal undoing
        found = undoing_of(table, process, session)
        if isinstance(found, Record):
            return None
        undoing = found
        check_no_session(table, process, what="a rollback")
        back = undoing.published
        added = writing.restore(undoing)
        head = snapshot_index(table)[table.metadata.refs[MAIN_BRANCH].snapshot_id]
        built = build_record(
            table,
            parent=head,
            process=process,
            session=rollback,
            kind=KIND,
            watermark=None if back is None else back.watermark,
            act=act,
            sources=sources_of(undoing.first),
            ranges=ranges_of(undoing),
            about={
                naming.UNDONE: session,
                naming.BACK_TO: "" if undoing.back_to is None else undoing.back_to.session,
            },
            added=added,
            dropped=undoing.dropped,
        )
        change = record_change(table, process, built, None if back is None else back.watermark, session=rollback)
        shape = (
            AssertCurrentSchemaId(current_schema_id=table.metadata.current_schema_id),
            AssertDefaultSpecId(default_spec_id=table.metadata.default_spec_id),
        )
        return attrs.evolve(change, requirements=(*change.requirements, *shape))

    table = commit(catalog, target, build, what=f"the rollback of process {process!r} to before session {session}")
    done = undoing_of(table, process, session)
    if isinstance(done, Record) and done.undone_by is not None:
        ours = words_of(done.undone_by)[naming.SESSION] == rollback
        return RolledBack(snapshot=done.undone_by, undoing=undoing if ours else None)
    return RolledBack(snapshot=committed(table, process, rollback), undoing=undoing)


def ranges_of(undoing: Undoing) -> EventRanges:
    """Return the event times in which the undone sessions wrote."""
    listed = (words_of(r.snapshot).get(naming.RANGES, "[]") for r in undoing.undone)
    return EventRanges.union_of(EventRanges.from_json(json.loads(text)) for text in listed)


def sources_of(record: Record) -> dict[str, str]:
    """Return source name -> table, as a record says; empty if an older version made it."""
    found: dict[str, str] = json.loads(words_of(record.snapshot).get(naming.SOURCES, "{}"))
    return found


@attrs.define
class _Writing:
    """Writes the rows of replaced files again; each once, however often ``main`` moves meanwhile."""

    progress: Callable[[str], None]
    #: By path, schema and spec.
    _done: dict[tuple[str, int, int], tuple[DataFile, ...]] = attrs.field(factory=dict)
    _id: uuid.UUID = attrs.field(factory=uuid.uuid4)

    def restore(self, undoing: Undoing) -> list[DataFile]:
        table, files = undoing.table, undoing.restored
        if not files:
            return []
        shape = (table.metadata.current_schema_id, table.metadata.default_spec_id)
        deletes = row_deletes(table, undoing.before)
        found: list[DataFile] = []
        for n, entry in enumerate(files, start=1):
            key = (entry.data_file.file_path, *shape)
            if key not in self._done:
                self.progress(f"writing the rows of replaced file {n:,} of {len(files):,} again")
                task = deletes.task(entry.data_file, entry.sequence_number or 0)
                try:
                    batches = row_batches(table, table.schema(), [task])
                    written = write(table, batches, write_id=uuid.uuid5(self._id, repr(key)), check=None)
                except FileNotFoundError as error:
                    raise RollbackRefused(
                        f"{'.'.join(table.name())} cannot go back to before session {undoing.first.session}: {error}",
                        expected="the files that it replaced to be there",
                        hint="recompute what is wrong instead: clear the run of the session, or restate its ranges",
                    ) from error
                self._done[key] = written.files
            found += self._done[key]
        return found
