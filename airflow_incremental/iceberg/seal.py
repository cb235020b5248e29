"""Seal: all of a session's output as ONE snapshot on top of current ``main``, on the session's data branch.

Dropped are the live files of the replaced set; files that straddle it are rewritten keeping the rows outside. What is sealed can be
audited by id and published by one ref update. Sealing again after ``main`` moved reuses the same data files.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping

import attrs
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

from airflow_incremental.core.changes import FileChange
from airflow_incremental.core.errors import IncrementalError, TargetChanged, WatermarkLost
from airflow_incremental.core.plan import Owner, Plan
from airflow_incremental.core.quarantine import Quarantined
from airflow_incremental.core.ranges import MIN_TIME, EventRanges, TimeRange
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import LiveFile, build_snapshot, snapshot_index
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.commits import Change, commit
from airflow_incremental.iceberg.keys import KeySet
from airflow_incremental.iceberg.lineage import position_of
from airflow_incremental.iceberg.locks import Begin, check_base, check_owned, session_of_lock
from airflow_incremental.iceberg.replace import RowSet, Touched
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.scan import RowDeletesIndex, row_deletes
from airflow_incremental.iceberg.state import SEALED, words_of
from airflow_incremental.iceberg.writer import write

#: Ranges listed in a published snapshot's summary; more are merged, since the summary stays in the table's metadata for good.
SUMMARY_RANGES = 64
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@attrs.frozen(kw_only=True)
class Output:
    """What a session wrote and has not sealed yet: its data files and where they came from."""

    files: tuple[DataFile, ...] = attrs.field(repr=False)
    write_id: uuid.UUID
    fingerprint: str
    #: Schema and spec of the target the files were written under; sealing under another one is refused.
    schema_id: int
    spec_id: int
    #: What was put aside of what the session wrote; the files hold the rest.
    quarantined: Quarantined | None = None

    @property
    def rows(self) -> int:
        """Rows the files hold."""
        return sum(f.record_count for f in self.files)


@attrs.frozen(kw_only=True)
class Sealed:
    """A session's sealed snapshot, not published yet."""

    snapshot_id: int
    #: Head of ``main`` it stands on.
    parent: int
    output: Output
    #: Who sealed it, as it will be known by once it is published.
    owner: Owner


def find_sealed(table: Table, plan: Plan) -> Sealed | None:
    """Return the session's sealed snapshot if there is one on its data branch."""
    ref = table.metadata.refs.get(naming.data_ref(plan.process, plan.session))
    if ref is None:
        return None
    snapshot = snapshot_index(table)[ref.snapshot_id]
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    files = own_files(table, snapshot)
    return Sealed(
        snapshot_id=snapshot.snapshot_id,
        parent=snapshot.parent_snapshot_id or 0,
        owner=Owner.from_json(json.loads(summary[naming.OWNER])),
        output=Output(
            files=files,
            write_id=uuid.UUID(summary[naming.WRITE_ID]),
            fingerprint=summary[naming.FINGERPRINT],
            schema_id=snapshot.schema_id if snapshot.schema_id is not None else -1,
            spec_id=files[0].spec_id if files else table.metadata.default_spec_id,
            quarantined=quarantined_in(summary),
        ),
    )


def quarantined_in(summary: Mapping[str, str]) -> Quarantined | None:
    """Return what the summary of a sealed snapshot, published or not, says that its session put aside."""
    text = summary.get(naming.QUARANTINE)
    return None if text is None else Quarantined.loads(text)


def quarantined_by(table: Table, process: str) -> Quarantined | None:
    """Return what the open session of a process has put aside; its plan is not read."""
    session = session_of_lock(table, process)
    ref = None if session is None else table.metadata.refs.get(naming.data_ref(process, session))
    return None if ref is None else quarantined_in(words_of(snapshot_index(table)[ref.snapshot_id]))


def own_files(table: Table, snapshot: Snapshot) -> tuple[DataFile, ...]:
    """Return the data files that hold the session's own rows, as against those kept from rewritten files."""
    added: list[DataFile] = []
    kept: set[str] = set()
    kept_id = uuid.UUID((snapshot.summary.additional_properties if snapshot.summary else {})[naming.KEPT_ID])
    for manifest in snapshot.manifests(table.io):
        if manifest.added_snapshot_id != snapshot.snapshot_id or manifest.content != ManifestContent.DATA:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
            if entry.snapshot_id != snapshot.snapshot_id:
                continue
            if entry.status == ManifestEntryStatus.DELETED:
                kept.add(str(uuid.uuid5(kept_id, entry.data_file.file_path)))
            else:
                added.append(entry.data_file)
    return tuple(f for f in added if not (kept and kept.intersection(_UUID.findall(f.file_path.rsplit("/", 1)[-1]))))


def seal(
    catalog: Catalog,
    spec: ProcessSpec,
    begin: Begin,
    output: Output,
    *,
    keys: KeySet | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Sealed:
    """Put the output on current ``main`` as one snapshot on the data branch, and return it.

    :param keys: the keys whose rows are replaced, where the plan replaces rows by key.

    :raises SessionSuperseded: the session does not hold the lock any more.
    :raises TargetChanged: others changed rows, schema, spec or watermark that the session depends on.
    """
    plan = begin.plan
    data = naming.data_ref(plan.process, plan.session)
    rewritten: dict[str, tuple[DataFile, ...] | None] = {}
    # New in every call: a file a ref may already point at is never written again.
    kept_id = uuid.uuid4()
    made: Sealed | None = None

    def build(table: Table) -> Change | None:
        nonlocal made
        check_owned(table, begin)
        check_base(table, plan)
        check_shape(table, output, plan)
        check_conflicts(table, spec, plan, keys)
        head = snapshot_index(table)[table.metadata.refs[MAIN_BRANCH].snapshot_id]
        earlier = find_sealed(table, plan)
        if earlier is not None and (earlier.parent, earlier.output.write_id, earlier.owner) == (
            head.snapshot_id,
            output.write_id,
            plan.owner,
        ):
            return None
        dropped: list[LiveFile] = []
        kept: list[DataFile] = []
        deletes = row_deletes(table, head)
        replaced = _row_set(table, spec, plan, plan.replaced, keys)
        for item in replaced.live():
            rest = _outside(replaced, item, deletes=deletes, done=rewritten, kept_id=kept_id)
            if rest is None:
                continue
            dropped.append(item.live)
            kept.extend(rest)
        progress(
            f"sealing {len(output.files):,} new files; {len(dropped):,} files of main replaced, {len(kept):,} rewritten in part"
        )
        built = build_snapshot(
            table,
            parent=head,
            added=[*output.files, *kept],
            dropped=dropped,
            summary={**summary_of(plan, output), naming.KEPT_ID: str(kept_id)},
        )
        made = Sealed(snapshot_id=built.snapshot.snapshot_id, parent=head.snapshot_id, output=output, owner=plan.owner)
        updates: list[TableUpdate] = [
            AddSnapshotUpdate(snapshot=built.snapshot),
            SetSnapshotRefUpdate(ref_name=data, type=SnapshotRefType.BRANCH, snapshot_id=built.snapshot.snapshot_id),
        ]
        if earlier is not None:
            updates.append(RemoveSnapshotsUpdate(snapshot_ids=[earlier.snapshot_id]))
        return Change(
            updates=tuple(updates),
            requirements=(
                AssertRefSnapshotId(ref=naming.lock_ref(plan.process), snapshot_id=begin.snapshot_id),
                AssertRefSnapshotId(ref=data, snapshot_id=earlier.snapshot_id if earlier else None),
                AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head.snapshot_id),
            ),
            written=built.written,
        )

    table = commit(catalog, plan.target, build, what=f"the seal of session {plan.session}")
    ref = table.metadata.refs.get(data)
    if made is not None and ref is not None and ref.snapshot_id == made.snapshot_id:
        return made
    sealed = find_sealed(table, plan)
    if sealed is None:
        # Somebody ended the session between the commit and this look at it.
        check_owned(table, begin)
        msg = f"the data branch of session {plan.session} is gone"
        raise TargetChanged(msg, hint="retry the task")
    return sealed


def summary_of(plan: Plan, output: Output) -> dict[str, str]:
    """Return what a sealed snapshot says of its session; it becomes part of ``main`` with it."""
    return {
        naming.RECORD: SEALED,
        naming.PROCESS: plan.process,
        naming.SESSION: plan.session,
        naming.BASE_SESSION: plan.base_session or "",
        naming.KIND: plan.kind,
        naming.REASON: plan.reason,
        naming.MODE: plan.mode,
        naming.WATERMARK: plan.watermark.dumps(),
        naming.SOURCES: json.dumps({s.name: s.table for s in plan.sources}, separators=(",", ":"), sort_keys=True),
        naming.RANGES: json.dumps(plan.affected.coalesce(SUMMARY_RANGES).to_json(), separators=(",", ":")),
        naming.OWNER: json.dumps(plan.owner.to_json(), separators=(",", ":")),
        naming.ROWS: str(output.rows),
        naming.SOURCE_ROWS: str(plan.rows_added),
        naming.LATE_ROWS: str(plan.rows_late),
        naming.WRITE_ID: str(output.write_id),
        naming.FINGERPRINT: output.fingerprint,
        **({} if output.quarantined is None else {naming.QUARANTINE: output.quarantined.dumps()}),
    }


def check_shape(table: Table, output: Output, plan: Plan) -> None:
    """Raise TargetChanged if the target's schema or partition spec is not the one the files were written under."""
    now = (table.metadata.current_schema_id, table.metadata.default_spec_id)
    if now != (output.schema_id, output.spec_id):
        raise TargetChanged(
            f"the target {plan.target} changed to schema {now[0]} and partition spec {now[1]} while session {plan.session} "
            f"wrote under schema {output.schema_id} and spec {output.spec_id}",
            expected="the schema and spec the data files were written under",
            hint="retry the task; it writes under the new ones",
        )


def check_conflicts(table: Table, spec: ProcessSpec, plan: Plan, keys: KeySet | None = None) -> None:
    """Raise TargetChanged if others changed rows that the session replaces, or reads as state, since it was planned.

    Compaction is no change.
    """
    head = table.metadata.refs[MAIN_BRANCH].snapshot_id
    if head == plan.main or not (plan.replaced or plan.keys):
        return
    index = snapshot_index(table)
    base = index.get(plan.main)
    if base is None:
        raise _untold(plan, f"snapshot {plan.main}, where the plan was made, has been expired")
    try:
        changes = detect(
            table,
            position_of(table, base),
            head,
            event_time=spec.target.event_time,
            mode="overwrite",
            on_lost_watermark="fail",
        )
    except WatermarkLost as error:
        raise _untold(plan, error.found) from error
    watched, span = plan.replaced, plan.replaced.span()
    if spec.state is not None and span is not None:
        watched = EventRanges((TimeRange(MIN_TIME, span.end),))
    rows = _row_set(table, spec, plan, watched, keys)
    touching = [
        c for c in changes.files if rows.holds(c.handle, c.spec_id) is not False and (not keys or _has_keys(rows, c))
    ]
    if touching:
        what = "keys" if plan.keys else "ranges"
        raise TargetChanged(
            f"others changed {len(touching)} files of {plan.target} in the {what} session {plan.session} "
            f"{'replaces' if spec.state is None else 'replaces or reads as state'} "
            f"({', '.join(plan.keys) or watched.coalesce(4)}), in snapshots {sorted({c.snapshot_id for c in touching})}",
            expected=f"that only this process writes its {what} between plan and publish",
            hint=f"retry the task; it plans anew on what is there now. If two writers share {what}, give each its own scope",
        )


def _row_set(table: Table, spec: ProcessSpec, plan: Plan, ranges: EventRanges, keys: KeySet | None) -> RowSet:
    if plan.keys and keys is None:
        raise IncrementalError(
            f"session {plan.session} replaces rows by key, and was given none", hint="report this as a bug"
        )
    ranges = EventRanges.everything() if plan.keys else ranges
    return RowSet.of(table, event_time=spec.target.event_time, ranges=ranges, scope=plan.scope, keys=keys)


def _has_keys(rows: RowSet, change: FileChange) -> bool:
    """Say whether a file that others added or removed holds rows of the keys; unlike ranges, keys lie in most files' bounds."""
    return change.kind == "deletes" or rows.occurs(FileScanTask(change.handle))


def _untold(plan: Plan, why: str) -> TargetChanged:
    return TargetChanged(
        f"what happened on 'main' of {plan.target} since session {plan.session} was planned cannot be told ({why})",
        hint="retry the task; it plans anew",
    )


def _outside(
    replaced: RowSet,
    item: Touched,
    *,
    deletes: RowDeletesIndex,
    done: dict[str, tuple[DataFile, ...] | None],
    kept_id: uuid.UUID,
) -> tuple[DataFile, ...] | None:
    """Return files with the rows of a live file that lie outside the replaced set; None if it holds none inside and stays.

    A file wholly inside gives an empty tuple. Row-level deletes of the old file are applied on the way.
    """
    if item.whole:
        return ()
    path, table = item.live.file.file_path, replaced.table
    if path in done:
        return done[path]
    task = deletes.task(item.live.file, item.live.entry.sequence_number or 0)
    if replaced.keys is not None and not replaced.occurs(task):
        done[path] = None
        return None
    inner = 0

    def rest() -> Iterator[pa.RecordBatch]:
        nonlocal inner
        for batch in batches:
            mask = replaced.mask(batch)
            found = pc.sum(mask).as_py() or 0
            inner += found
            if found < batch.num_rows:
                yield batch.filter(pc.invert(mask))

    batches = row_batches(table, table.schema(), [task])
    reader = pa.RecordBatchReader.from_batches(batches.schema, rest())
    written = write(table, reader, write_id=uuid.uuid5(kept_id, path), check=None)
    done[path] = written.files if inner else None
    return done[path]
