"""Parts of a session's work that are computed, kept on branches of its own: a retry does the rest, and several workers share it.

Such a branch points at one snapshot that lists the files of the parts, and nothing else. It goes with the session. A worker that
does all parts, one after the other, replaces its branch as more are done; one that does a single chunk has a branch for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

from airflow_incremental.core.errors import SessionSuperseded, TargetChanged
from airflow_incremental.core.plan import Plan
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import build_snapshot, snapshot_index
from airflow_incremental.iceberg.commits import Change, commit
from airflow_incremental.iceberg.locks import Begin, check_owned, check_same_table, read_lock, superseded
from airflow_incremental.iceberg.parallel import in_parallel
from airflow_incremental.iceberg.state import words_of


@attrs.frozen(kw_only=True)
class Done:
    """Parts of a session's work that are computed.

    :param parts: their numbers, from 0, in order.
    :param fingerprint: of the transform that computed them.
    :param schema_id: of the target's schema that the files were written under.
    :param spec_id: the same of the partition spec.
    """

    parts: tuple[int, ...] = ()
    files: tuple[DataFile, ...] = attrs.field(default=(), repr=False)
    fingerprint: str
    schema_id: int
    spec_id: int

    def plus(self, part: int, files: Iterable[DataFile]) -> Done:
        """Return these and one more."""
        return attrs.evolve(self, parts=(*self.parts, part), files=(*self.files, *files))


#: Chunks of one size end at about the same time, one of them gets through at a time, and who gives up computes its chunk again.
_PATIENCE = 8
#: Slot of the worker that does all parts; that of a single chunk is the chunk's number and one.
ALL_PARTS = 0


def find_done(table: Table, plan: Plan, fingerprint: str) -> dict[int, Done]:
    """Return what was computed with this transform, and under the table's schema and partition spec, each part once.

    :returns: slot -> what that worker has done; see :data:`ALL_PARTS`.
    """
    records = list(_records(table, plan, fingerprint))
    held = in_parallel(lambda record: _files(table, record[1]), records)
    return {
        slot: Done(
            parts=parts,
            files=files,
            fingerprint=fingerprint,
            schema_id=table.metadata.current_schema_id,
            spec_id=table.metadata.default_spec_id,
        )
        for (slot, _, parts), files in zip(records, held, strict=True)
    }


def done_parts(table: Table, plan: Plan, fingerprint: str | None) -> set[int]:
    """Return the numbers of the parts that :func:`find_done` finds, without a look at their files.

    :param fingerprint: of the transform; None for any.
    """
    return {part for _, _, parts in _records(table, plan, fingerprint) for part in parts}


def _records(table: Table, plan: Plan, fingerprint: str | None) -> Iterator[tuple[int, Snapshot, tuple[int, ...]]]:
    """Yield slot, record and parts of what is kept and still of use, by slot."""
    slots = ((naming.slot_of_ref(name, plan.process, plan.session), name) for name in table.metadata.refs)
    index = snapshot_index(table)
    taken: set[int] = set()
    for slot, name in sorted((slot, name) for slot, name in slots if slot is not None):
        snapshot = index[table.metadata.refs[name].snapshot_id]
        words = words_of(snapshot)
        # On a branch that the author's own tasks write to there is no record.
        if words.get(naming.RECORD) != naming.PARTS_DONE or fingerprint not in (None, words[naming.FINGERPRINT]):
            continue
        parts = _numbers_of(words[naming.PARTS])
        # What was computed twice is taken once: files of several parts cannot be told apart.
        if (snapshot.schema_id, int(words[naming.SPEC])) == _shape(table) and taken.isdisjoint(parts):
            taken.update(parts)
            yield slot, snapshot, parts


def _shape(table: Table) -> tuple[int, int]:
    return table.metadata.current_schema_id, table.metadata.default_spec_id


def chunk_record(table: Table, plan: Plan, chunk: int) -> int | None:
    """Return the snapshot in which a worker has kept a chunk, whatever transform computed it, or None."""
    ref = table.metadata.refs.get(naming.scratch_ref(plan.process, plan.session, chunk + 1))
    return None if ref is None else ref.snapshot_id


def keep_done(catalog: Catalog, begin: Begin, done: Done) -> None:
    """Keep what a worker that does all parts has done so far, in one commit.

    :raises SessionSuperseded: the session does not hold the lock any more.
    """
    plan = begin.plan
    made: set[int] = set()

    def build(table: Table) -> Change | None:
        check_owned(table, begin)
        ref = table.metadata.refs.get(naming.scratch_ref(plan.process, plan.session))
        if ref is not None and ref.snapshot_id in made:
            return None
        # Of files under an older schema there is nothing to keep: sealing them is refused.
        return (
            _change(table, plan, done, slot=ALL_PARTS, made=made)
            if _shape(table) == (done.schema_id, done.spec_id)
            else None
        )

    commit(catalog, plan.target, build, what=f"the finished parts of session {plan.session}")


def keep_chunk(catalog: Catalog, plan: Plan, done: Done, *, seen: int | None) -> Table:
    """Keep one chunk, in one commit, and return the table.

    Workers of other chunks commit beside this one, and the lock may be renewed meanwhile: it has to be this session's. Two tries of
    one chunk do not replace one another's work unless they have seen it.

    :param seen: the chunk's record when this worker began.
    :raises SessionSuperseded: the session is over, or another try with another transform was faster.
    :raises TargetChanged: the target's schema or partition spec is not the one the files were written under.
    """
    (chunk,) = done.parts
    made: set[int] = set()

    def build(table: Table) -> Change | None:
        check_same_table(table, plan)
        lock = read_lock(table, plan.process)
        if lock is None or lock.plan.session != plan.session:
            raise superseded(plan, table)
        record = chunk_record(table, plan, chunk)
        if record is not None and record in made:
            return None
        if record != seen:
            if chunk in done_parts(table, plan, done.fingerprint):
                return None
            raise SessionSuperseded(
                f"another try of chunk {chunk} of session {plan.session} was faster, with another transform",
                expected="one transform for all tries",
                hint="retry the task; it takes what is right for the transform as it is then",
            )
        if _shape(table) != (done.schema_id, done.spec_id):
            raise TargetChanged(
                f"the schema or partition spec of {plan.target} changed while chunk {chunk} of session {plan.session} was computed",
                hint="retry the task; it writes under the new one",
            )
        return _change(table, plan, done, slot=chunk + 1, made=made)

    what = f"chunk {chunk} of session {plan.session}"
    return commit(catalog, plan.target, build, what=what, patience=_PATIENCE)


def _change(table: Table, plan: Plan, done: Done, *, slot: int, made: set[int]) -> Change:
    scratch, lock = naming.scratch_ref(plan.process, plan.session, slot), naming.lock_ref(plan.process)
    refs = table.metadata.refs
    ref = refs.get(scratch)
    built = build_snapshot(
        table,
        parent=snapshot_index(table)[refs[MAIN_BRANCH].snapshot_id],
        added=done.files,
        summary={
            naming.RECORD: naming.PARTS_DONE,
            naming.PROCESS: plan.process,
            naming.SESSION: plan.session,
            naming.PARTS: _numbers_as_text(done.parts),
            naming.FINGERPRINT: done.fingerprint,
            naming.SPEC: str(done.spec_id),
        },
        empty=True,
    )
    made.add(built.snapshot.snapshot_id)
    updates: list[TableUpdate] = [
        AddSnapshotUpdate(snapshot=built.snapshot),
        SetSnapshotRefUpdate(ref_name=scratch, type=SnapshotRefType.BRANCH, snapshot_id=built.snapshot.snapshot_id),
    ]
    # A branch that the author's own tasks were to write to still points at a snapshot of main.
    if ref is not None and words_of(snapshot_index(table)[ref.snapshot_id]).get(naming.RECORD) == naming.PARTS_DONE:
        updates.append(RemoveSnapshotsUpdate(snapshot_ids=[ref.snapshot_id]))
    return Change(
        updates=tuple(updates),
        requirements=(
            AssertRefSnapshotId(ref=lock, snapshot_id=refs[lock].snapshot_id),
            AssertRefSnapshotId(ref=scratch, snapshot_id=None if ref is None else ref.snapshot_id),
        ),
        written=built.written,
    )


def _files(table: Table, snapshot: Snapshot) -> tuple[DataFile, ...]:
    return tuple(
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    )


def _numbers_as_text(numbers: tuple[int, ...]) -> str:
    """Return numbers as ranges, first to last: ``0-16,18-18``."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" for first, last in ranges)


def _numbers_of(text: str) -> tuple[int, ...]:
    pairs = (part.split("-") for part in text.split(","))
    return tuple(number for first, last in pairs for number in range(int(first), int(last) + 1))
