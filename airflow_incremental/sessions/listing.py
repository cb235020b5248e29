"""The sessions of a target as people look at them: what was published, undone, failed or is open, from the table alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_incremental.core.errors import ArgumentError, IncrementalError
from airflow_incremental.core.literals import default_audit_table
from airflow_incremental.core.ranges import MAX_TIME, format_time, parse_time
from airflow_incremental.core.session_log import SessionEntry
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.audit_table import find_audit_table, results_of
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.by_hand import find_process, known_processes
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.locks import read_lock, session_of_lock
from airflow_incremental.iceberg.progress import done_parts
from airflow_incremental.iceberg.state import records, words_of
from airflow_incremental.sessions.entries import by_hand, read_log

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

_OPEN = "open"


def list_sessions(
    catalog: Catalog, target: str, process: str | None, *, audit_table: str | None = None
) -> list[dict[str, Any]]:
    """Return the sessions of a process, or of all of the target, newest first.

    Each has ``session``, ``process``, ``state`` (published, undone, open, failed), ``kind``, ``mode``, ``at``, ``rows``,
    ``late_rows``, ``ranges``, ``snapshot_id``, ``verdict``, ``by`` (its run, or a person), ``why`` and ``undone_by``.

    :param process: None is all that write to the target.
    :param audit_table: where results of audits are kept, if not in the target's own table of them.
    """
    table = load_table(catalog, target, role="target")
    names = known_processes(table) if process is None else [find_process(table, process)]
    found = read_log(catalog, table, audit_table=audit_table or default_audit_table(target))
    undone = {r.session: r.undone_by for n in names for r in records(main_lineage(table), n) if r.undone_by is not None}
    people = {
        r.session: words_of(r.snapshot)[naming.BY]
        for n in names
        for r in records(main_lineage(table), n)
        if naming.BY in words_of(r.snapshot)
    }
    rows = []
    for name, entry in found.sessions:
        if name not in names:
            continue
        by = undone.get(entry.session)
        row, person = _row(name, entry), people.get(entry.session)
        if person is not None:
            row["by"] = person
        if by is not None:
            row |= {"state": "undone", "undone_by": by_hand(words_of(by))}
        rows.append(row)
    rows += _unreadable(table, names, {row["session"] for row in rows})
    # By time, since ids of one second are in no order; one without a time is open.
    return sorted(rows, key=lambda row: MAX_TIME if row["at"] is None else parse_time(row["at"]), reverse=True)


def show_session(
    catalog: Catalog, target: str, process: str | None, session: str, *, audit_table: str | None = None
) -> dict[str, Any]:
    """Return all that a target tells of one session: besides what the list says, its plan, watermark and results of audits.

    A plan is kept as long as the session is open; of a published one its snapshot says what it read and wrote.

    :param process: None is any that writes to the target.
    :raises ArgumentError: there is no such session.
    """
    rows = list_sessions(catalog, target, process, audit_table=audit_table)
    found = next((row for row in rows if row["session"] == session), None)
    if found is None:
        last = ", ".join(row["session"] for row in rows[:5])
        raise ArgumentError(
            f"{target} tells of no session {session!r}" + ("" if process is None else f" of process {process!r}"),
            expected=f"one of its sessions; the last ones are {last}" if last else "a session on it",
            hint="what is older than the snapshots that are kept, the session log has (docs/store.md)",
        )
    table = load_table(catalog, target, role="target")
    if found["state"] == _OPEN:
        lock = _lock(table, found["process"])
        found["plan"] = None if lock is None else lock.plan.to_json()
        found["approval"] = None if lock is None or lock.approval is None else str(lock.approval)
        found["about"] = None if lock is None else lock.plan.describe()
        found["chunks_done"] = None if lock is None else len(done_parts(table, lock.plan, None))
    words = {} if found["snapshot_id"] is None else words_of(snapshot_index(table)[found["snapshot_id"]])
    found["sources"] = json.loads(words.get(naming.SOURCES, "{}"))
    found["base_session"] = words.get(naming.BASE_SESSION) or None
    results = find_audit_table(catalog, audit_table or default_audit_table(target))
    kept = [] if results is None else [r for r in results_of(results, [session]) if r["target"] == target]
    keys = ("audit", "severity", "passed", "offending", "checked", "quarantined", "message")
    found["audits"] = [{k: r[k] for k in keys} | {"audited_at": format_time(r["audited_at"])} for r in kept]
    return found


def _row(process: str, entry: SessionEntry) -> dict[str, Any]:
    at = entry.published_at or entry.loaded_at or entry.planned_at
    owner = entry.owner
    return {
        "session": entry.session,
        "process": process,
        "state": _OPEN if entry.state == "planned" else entry.state,
        "kind": entry.kind,
        "mode": entry.mode,
        "at": None if at is None else format_time(at),
        "rows": entry.rows,
        "late_rows": entry.late_rows,
        "quarantined_rows": entry.quarantined_rows,
        "chunks": entry.chunks,
        "ranges": list(entry.ranges or ()),
        "snapshot_id": entry.snapshot_id,
        "verdict": entry.verdict,
        "by": f"run {owner.run_id} of DAG {owner.dag_id}, task {owner.task_id}" if owner.run_id else "outside Airflow",
        "why": entry.reason,
        "undone_by": None,
        "watermark": None if entry.watermark is None else dict(entry.watermark),
        "previous_watermark": None if entry.previous_watermark is None else dict(entry.previous_watermark),
    }


def _unreadable(table: Table, names: Iterable[str], known: set[str]) -> list[dict[str, Any]]:
    """Return open sessions whose plan another version of this package stored."""
    found = []
    for name in names:
        session = session_of_lock(table, name)
        if session is not None and session not in known:
            empty = dict.fromkeys(
                ("kind", "mode", "at", "rows", "late_rows", "quarantined_rows", "chunks", "snapshot_id", "verdict")
            )
            found.append(
                {"session": session, "process": name, "state": _OPEN}
                | empty
                | {"ranges": [], "by": None, "why": "its plan was stored by another version of this package"}
                | {"undone_by": None, "watermark": None, "previous_watermark": None}
            )
    return found


def _lock(table: Table, process: str) -> Any:
    try:
        return read_lock(table, process)
    except IncrementalError:
        return None
