"""The table in which results of audits are kept: its columns, its creation, and one append per run of a session's audits.

It grows by a file for each run, for years, so its metadata must not: the snapshots before the last few go in the same commit, their
files stay, and manifests are merged as they come together.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertRefSnapshotId,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)
from pyiceberg.types import BooleanType, LongType, NestedField, StringType, TimestamptzType

from airflow_incremental.core.errors import TableError
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import build_snapshot
from airflow_incremental.iceberg.commits import Change, commit, discard, load_table
from airflow_incremental.iceberg.datafiles import DataFileWriter
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.locks import BOOTSTRAP, bootstrap
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.scan import live_tasks
from airflow_incremental.iceberg.state import words_of
from airflow_incremental.iceberg.targets import check_format

#: Snapshots that are kept: enough to read the table as it was a while ago, and for a retry to find what it wrote.
KEEP_SNAPSHOTS = 50
#: Manifests of fewer files than this are merged once there are so many of them.
SMALL_MANIFEST, MANY_MANIFESTS = 1000, 20
#: How far the clocks of two workers may be apart.
_SKEW = dt.timedelta(hours=1)
_STRING, _LONG = StringType(), LongType()


def _column(field_id: int, name: str, kind: Any, doc: str, *, required: bool = False) -> NestedField:
    return NestedField(field_id, name, kind, required=required, doc=doc)


#: One row per result. Columns are only ever added, and then may be null.
COLUMNS = Schema(
    _column(1, "audited_at", TimestamptzType(), "when the audits had run", required=True),
    _column(2, "process", _STRING, "the load", required=True),
    _column(3, "session", _STRING, "the session whose rows were audited", required=True),
    _column(4, "snapshot_id", _LONG, "the sealed snapshot that was audited", required=True),
    _column(5, "target", _STRING, "the table the snapshot is of", required=True),
    _column(6, "audit_run", _STRING, "the same in all results of one run of the session's audits", required=True),
    _column(7, "audit", _STRING, "name of the audit or expectation", required=True),
    _column(8, "kind", _STRING, "what kind of audit or expectation it is"),
    _column(9, "extent", _STRING, "what it looked at: rows, partitions, table"),
    _column(10, "path", _STRING, "how it was found: duckdb, spark, gx, statistics, python"),
    _column(11, "severity", _STRING, "what failing does: block, warn, ask, quarantine"),
    _column(12, "passed", BooleanType(), "whether it passed", required=True),
    _column(13, "offending", _LONG, "rows that are not as they should be"),
    _column(14, "checked", _LONG, "rows it looked at"),
    _column(15, "quarantined", _LONG, "offending rows that were put aside"),
    _column(16, "observed", _STRING, "what was measured, as JSON"),
    _column(17, "message", _STRING, "the finding in words"),
    _column(18, "result", _STRING, "all there is to the finding, as JSON; of an expectation its standard result"),
    _column(19, "session_rows", _LONG, "rows the session wrote, without those put aside"),
    _column(20, "verdict", _STRING, "of all audits together: passed, warned, asks, failed"),
    _column(21, "dag_id", _STRING, "the DAG that ran the audits"),
    _column(22, "run_id", _STRING, "the run of it"),
    _column(23, "task_id", _STRING, "the task, or the group of its stages"),
)
_PROPERTIES = {
    "format-version": "2",
    naming.AUDIT_TABLE: "1",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    # Sessions are looked up by their bounds, and bounds of the long texts would only fill manifests.
    "write.metadata.metrics.default": "counts",
    "write.metadata.metrics.column.audited_at": "full",
    "write.metadata.metrics.column.process": "full",
    "write.metadata.metrics.column.session": "full",
    "write.metadata.metrics.column.audit": "truncate(16)",
}


def find_audit_table(catalog: Catalog, identifier: str) -> Table | None:
    """Load the table, or return None if there is none.

    :raises TableError: it is another table than one in which results are kept.
    """
    try:
        table = catalog.load_table(identifier)
    except NoSuchTableError:
        return None
    known = {f.name: f.field_type for f in table.schema().fields}
    other = [f.name for f in COLUMNS.fields if known.get(f.name, f.field_type) != f.field_type]
    missing = [f.name for f in COLUMNS.fields if f.required and f.name not in known]
    if naming.AUDIT_TABLE not in table.metadata.properties or other or missing:
        wrong = f"its columns {', '.join(other)} are of other types" if other else f"it lacks {', '.join(missing)}"
        raise TableError(
            f"results of audits are to be kept in {identifier!r}, which is no table made for them: "
            + (wrong if other or missing else f"it has no property {naming.AUDIT_TABLE!r}"),
            expected="a table that a load made for its results, or none of that name",
            hint="name another with audit_table=..., or rename the one that is in the way",
        )
    return check_format(table)


def append_results(
    catalog: Catalog, identifier: str, rows: Sequence[Mapping[str, Any]], *, since: dt.datetime
) -> Table:
    """Add the results of one run of a session's audits, once: what is there already is not added again.

    :param rows: one per result, by column; all of one session and one ``audit_run``.
    :param since: when the session began; nothing of it is older.
    """
    _ensure(catalog, identifier)
    mark, session = rows[0]["audit_run"], rows[0]["session"]
    gone: list[Snapshot] = []

    def build(table: Table) -> Change | None:
        gone.clear()
        if _has(table, mark, session, since):
            return None
        head, *_ = lineage = list(main_lineage(table))
        writer = DataFileWriter(table.metadata, table.io, uuid.uuid4())
        files = writer.write(_rows_table(table, rows))
        built = build_snapshot(
            table,
            parent=head,
            added=files,
            summary={naming.RECORD: naming.RESULTS, naming.AUDIT_RUN: mark, naming.SESSION: session},
            merged=_to_merge(table, head),
        )
        held = {ref.snapshot_id for ref in table.metadata.refs.values()} - {head.snapshot_id}
        gone.extend(s for s in lineage[KEEP_SNAPSHOTS - 1 :] if s.snapshot_id not in held)
        new = built.snapshot.snapshot_id
        updates: list[TableUpdate] = [
            AddSnapshotUpdate(snapshot=built.snapshot),
            SetSnapshotRefUpdate(ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH, snapshot_id=new),
        ]
        if gone:
            updates.append(RemoveSnapshotsUpdate(snapshot_ids=[s.snapshot_id for s in gone]))
        return Change(
            updates=tuple(updates),
            requirements=(
                AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head.snapshot_id),
                AssertCurrentSchemaId(current_schema_id=table.metadata.current_schema_id),
                AssertDefaultSpecId(default_spec_id=table.metadata.default_spec_id),
            ),
            written=(*built.written, *(f.file_path for f in files)),
        )

    table = commit(catalog, identifier, build, what=f"the results of the audits of session {session}")
    _discard_metadata(table, gone)
    return table


def results_of(table: Table, sessions: Sequence[str]) -> list[dict[str, Any]]:
    """Return the kept results of some sessions, oldest first; only files that may hold one are opened."""
    head = next(main_lineage(table), None)
    if head is None or not sessions:
        return []
    schema = table.schema()
    key = schema.find_field("session").field_id
    wanted = sorted(name.encode() for name in sessions)
    tasks = []
    for task in live_tasks(table, head, column=None, keep=None):
        low, high = ((bounds or {}).get(key) for bounds in (task.file.lower_bounds, task.file.upper_bounds))
        if low is None or high is None or any(low <= name <= high for name in wanted):
            tasks.append(task)
    found = row_batches(table, schema, tasks).read_all().to_pylist() if tasks else []
    return sorted((row for row in found if row["session"] in sessions), key=lambda row: row["audited_at"])


def verdicts_of(table: Table) -> dict[str, str]:
    """Return session -> verdict of the last run of its audits, of all sessions whose results are kept."""
    head = next(main_lineage(table), None)
    if head is None:
        return {}
    schema = table.schema().select("session", "audited_at", "verdict")
    rows = row_batches(table, schema, list(live_tasks(table, head, column=None, keep=None))).read_all().to_pylist()
    return {row["session"]: row["verdict"] for row in sorted(rows, key=lambda row: row["audited_at"]) if row["verdict"]}


def _ensure(catalog: Catalog, identifier: str) -> None:
    """Create the table, or add the columns that the version which made it did not know; somebody else may do the same."""
    table = find_audit_table(catalog, identifier)
    if table is None:
        catalog.create_namespace_if_not_exists(tuple(identifier.split(".")[:-1]))
        with suppress(TableAlreadyExistsError):
            catalog.create_table(identifier, schema=COLUMNS, properties=_PROPERTIES)
        table = find_audit_table(catalog, identifier) or load_table(catalog, identifier)
    if MAIN_BRANCH not in table.metadata.refs:
        bootstrap(catalog, identifier)
    if not _missing(table):
        return

    def build(table: Table) -> Change | None:
        missing = _missing(table)
        if not missing:
            return None
        update = table.transaction().update_schema()
        for column in missing:
            update.add_column(column.name, column.field_type, doc=column.doc)
        updates, requirements = update._commit()  # noqa: SLF001  (the transaction's own commit drops requirements)
        return Change(updates=updates, requirements=requirements)

    commit(catalog, identifier, build, what="new columns for results of audits")


def _missing(table: Table) -> list[NestedField]:
    known = {f.name for f in table.schema().fields}
    return [f for f in COLUMNS.fields if f.name not in known]


def _rows_table(table: Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the rows with the columns of the table, whatever others it has by now."""
    schema = table.schema().as_arrow()
    return pa.table({name: pa.array([row.get(name) for row in rows], schema.field(name).type) for name in schema.names})


def _has(table: Table, mark: str, session: str, since: dt.datetime) -> bool:
    """Say whether the results of a run are kept: by the snapshots that are kept, else by the rows themselves."""
    for snapshot in main_lineage(table):
        words = words_of(snapshot)
        if words.get(naming.AUDIT_RUN) == mark:
            return True
        before = snapshot.timestamp_ms < (since - _SKEW).timestamp() * 1000
        if before or words.get(naming.RECORD) == BOOTSTRAP:
            return False
    return any(row["audit_run"] == mark for row in results_of(table, [session]))


def _to_merge(table: Table, head: Snapshot) -> list[ManifestFile]:
    """Return the manifests to merge with the new one: the small ones, once there are many."""
    small = [
        m
        for m in head.manifests(table.io)
        if m.content == ManifestContent.DATA
        and m.partition_spec_id == table.metadata.default_spec_id
        and (m.added_files_count or 0) + (m.existing_files_count or 0) < SMALL_MANIFEST
    ]
    return small if len(small) >= MANY_MANIFESTS else []


def _discard_metadata(table: Table, gone: Sequence[Snapshot]) -> None:
    """Delete the manifest lists of snapshots that were dropped, and the manifests that only those had."""
    if not gone:
        return
    *_, oldest = main_lineage(table)
    paths: set[str] = set()
    # Somebody's tag may hold a snapshot in between, which has some of the same manifests.
    if set(table.metadata.refs) == {MAIN_BRANCH}:
        paths = {m.manifest_path for s in gone for m in s.manifests(table.io)}
        paths -= {m.manifest_path for m in oldest.manifests(table.io)}
    discard(table.io, (*(s.manifest_list for s in gone), *sorted(paths)))
