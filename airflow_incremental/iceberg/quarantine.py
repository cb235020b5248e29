"""Quarantine tables: the rows a session put aside, staged on a branch first, then released to ``main`` once.

A staged branch exists exactly as long as its rows are not released: the release adds the same data files to ``main`` and
removes the branch in one compare-and-set, so that no order of crashes and retries can do it twice or half.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io.pyarrow import schema_to_pyarrow
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

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.quarantine import PROCESS_COLUMN, REASONS_COLUMN, SESSION_COLUMN, TIME_COLUMN
from airflow_incremental.core.ranges import UTC
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import build_snapshot, snapshot_index
from airflow_incremental.iceberg.commits import Change, commit, discard
from airflow_incremental.iceberg.quarantine_schema import read_schema
from airflow_incremental.iceberg.refs import removal
from airflow_incremental.iceberg.split import Places, rows_at
from airflow_incremental.iceberg.state import words_of
from airflow_incremental.iceberg.writer import write


@attrs.frozen(kw_only=True)
class Staged:
    """Rows of a session on a branch of a quarantine table, not released yet."""

    ref: str
    snapshot_id: int
    session: str
    #: ``naming.AT_PUBLISH`` or ``naming.AT_END``.
    release: str
    #: Sealed snapshot of the target they were taken from.
    of: str


def write_rows(
    table: Table, target: Table, plan: Plan, places: Places, reasons: Callable[[pa.Table], Sequence[Sequence[str]]]
) -> tuple[DataFile, ...]:
    """Write rows of a session's files as data files of a quarantine table, which nothing refers to yet.

    :param table: the quarantine table.
    :param target: the table the files belong to.
    :param places: the rows.
    :param reasons: says of each of some places why its row is put aside.
    """
    schema = read_schema(table.schema(), target.schema())
    arrow = schema_to_pyarrow(table.schema(), include_field_ids=False)
    now = dt.datetime.now(UTC)

    def batches() -> Iterator[pa.RecordBatch]:
        for rows, said in rows_at(target, schema, places):
            marks = {
                PROCESS_COLUMN: [plan.process] * rows.num_rows,
                SESSION_COLUMN: [plan.session] * rows.num_rows,
                TIME_COLUMN: [now] * rows.num_rows,
                REASONS_COLUMN: reasons(said),
            }
            columns = [
                pa.array(marks[f.name], f.type) if f.name in marks else rows.column(at) for at, f in enumerate(arrow)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=arrow)

    reader = pa.RecordBatchReader.from_batches(arrow, batches())
    return write(table, reader, write_id=uuid.uuid4(), check=None).files


def stage(
    catalog: Catalog,
    table: str,
    plan: Plan,
    files: Sequence[DataFile],
    *,
    ref: str,
    release: str,
    of: int,
) -> Staged:
    """Put files on a branch of a quarantine table, in place of what may be there, and return it.

    :param ref: the branch.
    :param release: when the rows go to ``main``: at the publish of their session (``naming.AT_PUBLISH``), or once it has ended
        without one (``naming.AT_END``).
    :param of: the sealed snapshot they were taken from.
    """
    made: set[int] = set()

    def build(now: Table) -> Change | None:
        old = now.metadata.refs.get(ref)
        if old is not None and old.snapshot_id in made:
            return None
        built = build_snapshot(
            now,
            parent=snapshot_index(now)[now.metadata.refs[MAIN_BRANCH].snapshot_id],
            added=files,
            summary={
                naming.RECORD: naming.STAGED,
                naming.PROCESS: plan.process,
                naming.SESSION: plan.session,
                naming.RELEASE: release,
                naming.STAGED_OF: str(of),
            },
            # The branch shows these rows alone.
            empty=True,
        )
        made.add(built.snapshot.snapshot_id)
        updates: list[TableUpdate] = [
            AddSnapshotUpdate(snapshot=built.snapshot),
            SetSnapshotRefUpdate(ref_name=ref, type=SnapshotRefType.BRANCH, snapshot_id=built.snapshot.snapshot_id),
        ]
        if old is not None:
            updates.append(RemoveSnapshotsUpdate(snapshot_ids=[old.snapshot_id]))
        return Change(
            updates=tuple(updates),
            requirements=(AssertRefSnapshotId(ref=ref, snapshot_id=old.snapshot_id if old else None),),
            written=built.written,
        )

    after = commit(catalog, table, build, what=f"the quarantined rows of session {plan.session}")
    return _staged(ref, snapshot_index(after)[after.metadata.refs[ref].snapshot_id])


def staged_of(catalog: Catalog, table: str, process: str) -> tuple[Staged, ...]:
    """Return what is staged of a process on a table, which need not exist nor be a quarantine table."""
    try:
        now = catalog.load_table(table)
    except NoSuchTableError:
        return ()
    index = snapshot_index(now)
    found = []
    for name, ref in now.metadata.refs.items():
        snapshot = index.get(ref.snapshot_id)
        words: Mapping[str, str] = words_of(snapshot) if snapshot is not None else {}
        if snapshot is not None and words.get(naming.RECORD) == naming.STAGED and words[naming.PROCESS] == process:
            found.append(_staged(name, snapshot))
    return tuple(found)


def staged_files(table: Table, snapshot_id: int) -> tuple[DataFile, ...]:
    """Return the files that are staged in a snapshot."""
    snapshot = snapshot_index(table)[snapshot_id]
    return tuple(
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    )


def release(catalog: Catalog, table: str, process: str, staged: Staged) -> int:
    """Add the staged rows to ``main`` and remove their branch, in one commit; do nothing if somebody has.

    :returns: rows that this call released.
    :raises TableError: the table is partitioned in another way than when the rows were written.
    """
    rows = 0
    gone: tuple[str, ...] = ()

    def build(now: Table) -> Change | None:
        nonlocal rows, gone
        rows = 0
        if not _still(now, staged):
            return None
        files = staged_files(now, staged.snapshot_id)
        if any(f.spec_id != now.metadata.default_spec_id for f in files):
            raise TableError(
                f"the quarantine table {table} was given another partition spec while rows of session {staged.session} waited on "
                f"its branch {staged.ref!r}",
                expected="the spec they were written under until they are on main",
                hint="set the former partition spec for one run, which releases them, then the new one",
            )
        rows = sum(f.record_count for f in files)
        main = now.metadata.refs[MAIN_BRANCH].snapshot_id
        index = snapshot_index(now)
        gone = _metadata_of(now, index[staged.snapshot_id])
        built = build_snapshot(
            now,
            parent=index[main],
            added=files,
            summary={
                naming.RECORD: naming.RELEASED,
                naming.PROCESS: process,
                naming.SESSION: staged.session,
                naming.ROWS: str(rows),
            },
        )
        return Change(
            updates=(
                AddSnapshotUpdate(snapshot=built.snapshot),
                SetSnapshotRefUpdate(
                    ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH, snapshot_id=built.snapshot.snapshot_id
                ),
                *removal(now, [staged.ref]),
            ),
            requirements=(
                AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=main),
                AssertRefSnapshotId(ref=staged.ref, snapshot_id=staged.snapshot_id),
            ),
            written=built.written,
        )

    after = commit(catalog, table, build, what=f"the release of the quarantined rows of session {staged.session}")
    discard(after.io, gone)
    return rows


def drop(catalog: Catalog, table: str, staged: Staged) -> None:
    """Remove a staged branch; its data files are left to the sweep. Do nothing if it is gone or another one."""
    gone: tuple[str, ...] = ()

    def build(now: Table) -> Change | None:
        nonlocal gone
        if not _still(now, staged):
            return None
        gone = _metadata_of(now, snapshot_index(now)[staged.snapshot_id])
        return Change(
            updates=removal(now, [staged.ref]),
            requirements=(AssertRefSnapshotId(ref=staged.ref, snapshot_id=staged.snapshot_id),),
        )

    after = commit(catalog, table, build, what=f"the end of the staged rows of session {staged.session}")
    discard(after.io, gone)


def _still(table: Table, staged: Staged) -> bool:
    ref = table.metadata.refs.get(staged.ref)
    return ref is not None and ref.snapshot_id == staged.snapshot_id


def _metadata_of(table: Table, snapshot: Snapshot) -> tuple[str, ...]:
    return (snapshot.manifest_list, *(m.manifest_path for m in snapshot.manifests(table.io)))


def _staged(ref: str, snapshot: Snapshot) -> Staged:
    words = words_of(snapshot)
    return Staged(
        ref=ref,
        snapshot_id=snapshot.snapshot_id,
        session=words[naming.SESSION],
        release=words[naming.RELEASE],
        of=words[naming.STAGED_OF],
    )
