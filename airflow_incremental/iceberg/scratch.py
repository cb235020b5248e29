"""The author's own writes: what dbt, Spark or plain pyiceberg put on a session's scratch branch, checked before it is sealed.

Only the net change against the fork counts, so a task may overwrite its own earlier try. Accepted are added data files whose rows
lie in the planned ranges and scope, and removed files that hold nothing else; ``append`` may remove nothing.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pyarrow.compute as pc
from pyiceberg.manifest import DataFile, DataFileContent, ManifestEntry
from pyiceberg.table import FileScanTask

from airflow_incremental.core.errors import TransformError
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.replace import RowSet
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.seal import Output

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from airflow_incremental.core.plan import Plan
    from airflow_incremental.core.spec import ProcessSpec

#: Names the outputs of own writes; the id follows from the files, so that the same files are the same output.
_NAMESPACE = uuid.UUID("6d1b3f0e-7c56-4c1b-9d2a-2f1f6f2f8f11")


def collect(table: Table, spec: ProcessSpec, plan: Plan) -> Output:
    """Return what was written to the session's scratch branch since it was forked from ``main``.

    :raises TransformError: something else than the plan allows was written.
    """
    branch = naming.scratch_ref(plan.process, plan.session)
    ref = table.metadata.refs.get(branch)
    index = snapshot_index(table)
    if ref is None or plan.main not in index:
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
    before, after = _live(table, index[plan.main]), _live(table, index[ref.snapshot_id])
    added = [e for path, e in after.items() if path not in before]
    removed = [e for path, e in before.items() if path not in after]
    _check(table, spec, plan, branch=branch, added=added, removed=removed)
    files = tuple(e.data_file for e in added)
    return Output(
        files=files,
        write_id=uuid.uuid5(_NAMESPACE, "\n".join([plan.session, *sorted(f.file_path for f in files)])),
        fingerprint="own-writes",
        schema_id=index[ref.snapshot_id].schema_id if added else table.metadata.current_schema_id,  # type: ignore[arg-type]
        spec_id=table.metadata.default_spec_id,
    )


def _live(table: Table, snapshot: Snapshot) -> dict[str, ManifestEntry]:
    return {
        entry.data_file.file_path: entry
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    }


def _check(
    table: Table,
    spec: ProcessSpec,
    plan: Plan,
    *,
    branch: str,
    added: list[ManifestEntry],
    removed: list[ManifestEntry],
) -> None:
    if any(e.data_file.content != DataFileContent.DATA for e in (*added, *removed)):
        raise _refused(
            branch,
            "row-level delete files were written",
            "copy-on-write data files",
            "set write.*.mode to copy-on-write",
        )
    old_spec = [e for e in added if e.data_file.spec_id != table.metadata.default_spec_id]
    if old_spec:
        raise _refused(
            branch,
            f"{len(old_spec)} files were written under an old partition spec",
            f"the table's spec {table.metadata.default_spec_id}",
            "write under the current spec",
        )
    if plan.reads_added_rows and not plan.replaced and removed:
        raise _refused(
            branch,
            f"{len(removed)} files of main were removed",
            "added files only in mode 'append'",
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
    # Added rows may have any event time: they land where they belong.
    within = EventRanges.everything() if plan.reads_added_rows else plan.replaced
    for entry in added:
        rows = _outside_rows(table, spec, plan, entry.data_file, within=within)
        if rows:
            where = "scope" if plan.reads_added_rows else f"planned ranges ({ranges}) or scope"
            raise _refused(
                branch,
                f"{rows:,} rows of {entry.data_file.file_path} lie outside the {where}",
                "rows within the planned ranges and scope",
                "filter the output by the session's 'ranges' and the process's scope",
            )


def _outside_rows(table: Table, spec: ProcessSpec, plan: Plan, file: DataFile, *, within: EventRanges) -> int:
    """Count a file's rows outside ranges and the plan's scope, by its bounds or, where they cannot tell, by reading it."""
    allowed = RowSet.of(table, event_time=spec.target.event_time, ranges=within, scope=plan.scope)
    held = allowed.holds(file, file.spec_id)
    if held is not None:
        return 0 if held else file.record_count
    batches = row_batches(table, table.schema(), [FileScanTask(file)])
    return sum(batch.num_rows - (pc.sum(allowed.mask(batch)).as_py() or 0) for batch in batches)


def _refused(branch: str, found: str, expected: str, hint: str) -> TransformError:
    return TransformError(
        f"what was written to branch {branch!r} cannot be published: {found}", expected=expected, hint=hint
    )
