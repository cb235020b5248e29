"""What others wrote on a session's scratch branch, checked before it is sealed: dbt, plain pyiceberg, or a Spark application.

Only the net change against the fork counts, so a task may overwrite its own earlier try. Accepted are added data files whose rows
lie in the planned ranges and scope (or have one of the planned keys), and removed files that hold nothing else; ``append`` may
remove nothing.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pyarrow.compute as pc
from pyiceberg.manifest import DataFile, DataFileContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask

from airflow_incremental.core.errors import TargetChanged, TransformError
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.manifests import ManifestReader
from airflow_incremental.iceberg.replace import RowSet
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.seal import Output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from airflow_incremental.core.plan import Plan
    from airflow_incremental.core.spec import ProcessSpec
    from airflow_incremental.iceberg.keys import KeySet

#: Names the outputs of such writes; the id follows from the files, so that the same files are the same output.
_NAMESPACE = uuid.UUID("6d1b3f0e-7c56-4c1b-9d2a-2f1f6f2f8f11")
#: Fingerprint of what the author's own tasks wrote.
OWN_WRITES = "own-writes"


def collect(
    table: Table,
    spec: ProcessSpec,
    plan: Plan,
    *,
    branch: str | None = None,
    fingerprint: str = OWN_WRITES,
    keys: KeySet | None = None,
) -> Output:
    """Return what was written to a branch of the session since it was forked from ``main``.

    :param branch: default is the session's scratch branch, for writes of the author's own.
    :param fingerprint: of what wrote it.
    :param keys: the keys that are computed, for a plan that replaces rows by key.
    :raises TransformError: something else than the plan allows was written.
    :raises TargetChanged: the snapshot the branch was forked from is gone.
    """
    branch = naming.scratch_ref(plan.process, plan.session) if branch is None else branch
    ref = table.metadata.refs.get(branch)
    index = snapshot_index(table)
    if plan.main not in index:
        raise fork_expired(plan)
    if ref is None:
        raise TransformError(
            f"the scratch branch {branch!r} of {plan.target} is gone",
            expected="the branch to stay until the session is sealed",
            hint="do not drop or replace it in the tasks that write to it; clear the run to start over",
        )
    if ref.snapshot_id == plan.main:
        raise TransformError(
            f"nothing was committed to the scratch branch {branch!r} of {plan.target}",
            expected="the rows of the planned ranges, or at least one (empty) commit that says there are none",
            hint="write to the branch that the session names; if there truly is no row, append an empty table to it",
        )
    before, after = _differing(table, index[plan.main], index[ref.snapshot_id])
    added = [e for path, e in after.items() if path not in before]
    removed = [e for path, e in before.items() if path not in after]
    _check(table, spec, plan, keys, branch=branch, added=added, removed=removed)
    files = tuple(e.data_file for e in added)
    return Output(
        files=files,
        write_id=uuid.uuid5(_NAMESPACE, "\n".join([plan.session, *sorted(f.file_path for f in files)])),
        fingerprint=fingerprint,
        schema_id=_schema_id(table, index, added),
        spec_id=table.metadata.default_spec_id,
    )


def fork_expired(plan: Plan) -> TargetChanged:
    """Say that the snapshot of ``main`` is gone from which the branches of a session are forked."""
    return TargetChanged(
        f"snapshot {plan.main} of {plan.target}, on which session {plan.session} was planned, has been expired",
        expected="snapshots of the target that are kept longer than a session takes",
        hint="retry the task; it plans anew",
    )


def _schema_id(table: Table, index: dict[int, Snapshot], added: list[ManifestEntry]) -> int:
    """Return the schema that files were written under: where there are several, one that is not the table's."""
    current = table.metadata.current_schema_id
    makers = (index.get(e.snapshot_id or 0) for e in added)
    found = {s.schema_id for s in makers if s is not None and s.schema_id is not None}
    return next((i for i in found if i != current), current)


def _differing(
    table: Table, before: Snapshot, after: Snapshot
) -> tuple[dict[str, ManifestEntry], dict[str, ManifestEntry]]:
    """Return the live files of two snapshots by path, without those of manifests that both have."""
    reader = ManifestReader(table.io)
    old, new = reader.lists([before, after])
    shared = {m.manifest_path for m in old} & {m.manifest_path for m in new}

    def live(manifests: Iterable[ManifestFile]) -> dict[str, ManifestEntry]:
        entries = reader.entries(
            (m for m in manifests if m.manifest_path not in shared), lambda e: e.status != ManifestEntryStatus.DELETED
        )
        return {e.data_file.file_path: e for e in entries}

    return live(old), live(new)


def _check(
    table: Table,
    spec: ProcessSpec,
    plan: Plan,
    keys: KeySet | None,
    *,
    branch: str,
    added: list[ManifestEntry],
    removed: list[ManifestEntry],
) -> None:
    if any(e.data_file.content != DataFileContent.DATA for e in added):
        raise _refused(
            branch,
            "row-level delete files were written",
            "copy-on-write data files",
            "set write.*.mode to copy-on-write",
        )
    # Delete files of main go with the data files they belong to (Spark removes both); sealing looks at main's own.
    removed = [e for e in removed if e.data_file.content == DataFileContent.DATA]
    old_spec = [e for e in added if e.data_file.spec_id != table.metadata.default_spec_id]
    if old_spec:
        raise _refused(
            branch,
            f"{len(old_spec)} files were written under an old partition spec",
            f"the table's spec {table.metadata.default_spec_id}",
            "write under the current spec",
        )
    if removed and (plan.keys or (plan.reads_added_rows and not plan.replaced)):
        raise _refused(
            branch,
            f"{len(removed)} files of main were removed",
            f"added files only in mode {plan.mode!r}",
            "append instead",
        )
    ranges = plan.replaced.coalesce(4)
    for entry in removed:
        if _outside_rows(table, spec, plan, entry.data_file, within=plan.replaced):
            raise _refused(
                branch,
                f"{entry.data_file.file_path} was removed, which holds rows outside the planned ranges ({ranges})",
                "changes within the planned ranges and scope",
                "overwrite whole partitions of the plan's ranges, which the session's 'ranges' list",
            )
    # Added rows may have any event time: they land where they belong. So may rows of keys.
    within = EventRanges.everything() if plan.reads_added_rows or plan.keys else plan.read
    for entry in added:
        _check_keys(table, spec, keys, branch, entry.data_file)
        rows = _outside_rows(table, spec, plan, entry.data_file, within=within)
        if rows:
            where = "scope" if within.is_everything else f"planned ranges ({ranges}) or scope"
            raise _refused(
                branch,
                f"{rows:,} rows of {entry.data_file.file_path} lie outside the {where}",
                "rows within the planned ranges and scope",
                "filter the output by the session's 'ranges' and the process's scope",
            )


def _check_keys(table: Table, spec: ProcessSpec, keys: KeySet | None, branch: str, file: DataFile) -> None:
    """Refuse a file with rows without a whole key, or with another one than those that are computed."""
    if not spec.keys or (keys is None and not _may_lack(table, spec, file)):
        return
    schema = table.schema()
    told = Schema(*(f for f in schema.fields if f.name in spec.keys))
    for batch in row_batches(table, told, [FileScanTask(file)]):
        for column in spec.keys:
            nulls = batch.column(column).null_count
            if nulls:
                raise _refused(
                    branch,
                    f"the key {column!r} of {nulls:,} rows of {file.file_path} is null",
                    "a key in every row",
                    f"filter with {column} IS NOT NULL, or choose other keys",
                )
        outside = 0 if keys is None else batch.num_rows - (pc.sum(keys.mask(batch, spec.keys)).as_py() or 0)
        if outside:
            raise _refused(
                branch,
                f"the key ({', '.join(spec.keys)}) of {outside:,} rows of {file.file_path} is none of the changed ones",
                "rows of keys that the drivers' rows have: only those are replaced, others would be doubled",
                "carry the keys of the drivers through unchanged; keys that only a lookup has make no rows of their own",
            )


def _may_lack(table: Table, spec: ProcessSpec, file: DataFile) -> bool:
    """Say whether a row of a file may have no whole key, as far as its null counts tell."""
    counts = file.null_value_counts or {}
    fields = (table.schema().find_field(column) for column in spec.keys)
    return any(not f.required and counts.get(f.field_id) != 0 for f in fields)


def _outside_rows(table: Table, spec: ProcessSpec, plan: Plan, file: DataFile, *, within: EventRanges) -> int:
    """Count a file's rows outside ranges and the plan's scope, by its bounds or, where they cannot tell, by reading it."""
    allowed = RowSet.of(table, event_time=spec.target.event_time, ranges=within, scope=plan.scope)
    held = allowed.holds(file, file.spec_id)
    if held is not None:
        return 0 if held else file.record_count
    # A file may be larger than what a worker could hold of all its columns.
    batches = row_batches(table, allowed.told, [FileScanTask(file)])
    return sum(batch.num_rows - (pc.sum(allowed.mask(batch)).as_py() or 0) for batch in batches)


def _refused(branch: str, found: str, expected: str, hint: str) -> TransformError:
    return TransformError(
        f"what was written to branch {branch!r} cannot be published: {found}", expected=expected, hint=hint
    )
