"""``airflow-incremental session``: what the sessions of a target did, and ending one that is open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from airflow_incremental.cli.options import (
    ICEBERG_CONN,
    STORE_CONN,
    AsJson,
    By,
    IcebergConn,
    ProcessName,
    Reason,
    StoreConn,
    Target,
    act_of,
    working,
)
from airflow_incremental.cli.options import show as show_table
from airflow_incremental.core.session_log import LoadKey
from airflow_incremental.core.signals import Emitter

app = typer.Typer(help="The sessions of a target, as its snapshots and branches tell them.", no_args_is_help=True)

AuditTable = Annotated[str | None, typer.Option(help="Where results of audits are kept, if not in <target>__audits.")]
_RANGES = 3


@app.command("list")
def list_(
    target: Target,
    process: Annotated[str | None, typer.Argument(help="Only those of this process.")] = None,
    *,
    limit: Annotated[int, typer.Option(help="How many at most, newest first.", min=1)] = 20,
    audit_table: AuditTable = None,
    iceberg_conn_id: IcebergConn = ICEBERG_CONN,
    as_json: AsJson = False,
) -> None:
    """List sessions, newest first: published and undone ones as far as snapshots are kept, open ones, failed ones that are kept."""
    from airflow_incremental.operators.runtime import catalog_of
    from airflow_incremental.sessions.listing import list_sessions

    with working():
        rows = list_sessions(catalog_of(iceberg_conn_id), target, process, audit_table=audit_table)[:limit]
    columns = ["session", "process", "state", "kind", "at", "rows", "late_rows", "ranges", "by", "why"]
    if not as_json:
        rows = [row | {"ranges": _short(row["ranges"]), "why": row["undone_by"] or row["why"]} for row in rows]
    show_table(rows, columns=columns, as_json=as_json, empty="there is no session")


@app.command()
def show(
    target: Target,
    session: Annotated[str, typer.Argument(help="Id of the session, see 'session list'.")],
    *,
    process: Annotated[str | None, typer.Option(help="Only one of this process.")] = None,
    audit_table: AuditTable = None,
    iceberg_conn_id: IcebergConn = ICEBERG_CONN,
    as_json: AsJson = False,
) -> None:
    """Show one session: what it read and wrote, its plan if it is open, its audits, who ran it, and why."""
    from airflow_incremental.operators.runtime import catalog_of
    from airflow_incremental.sessions.listing import show_session

    with working():
        found = show_session(catalog_of(iceberg_conn_id), target, process, session, audit_table=audit_table)
    if as_json:
        typer.echo(json.dumps(found, indent=2, default=str))
        return
    for line in _lines(found):
        typer.echo(line)
    if found["audits"]:
        columns = ("audit", "severity", "passed", "offending", "checked", "message")
        show_table(found["audits"], columns=columns, as_json=False, empty="")


@app.command()
def abandon(
    target: Target,
    process: ProcessName = None,
    *,
    reason: Reason,
    by: By = None,
    iceberg_conn_id: IcebergConn = ICEBERG_CONN,
    as_json: AsJson = False,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """End the open session of a process, whoever holds it. What it wrote is not published; the next run takes the same changes.

    A task that still works on it notices before it commits. Nothing that was published changes.
    """
    from airflow_incremental.iceberg.by_hand import find_process
    from airflow_incremental.iceberg.commits import load_table
    from airflow_incremental.operators.runtime import catalog_of
    from airflow_incremental.operators.session_log import SessionLog
    from airflow_incremental.sessions.entries import ended_by_hand
    from airflow_incremental.sessions.steps import abandon as end

    act = act_of(by, reason)
    with working():
        catalog = catalog_of(iceberg_conn_id)
        table = load_table(catalog, target, role="target")
        name = find_process(table, process)
        ended = end(catalog, target, name, reason=f"{act.by}: {act.reason}")
        if ended is not None:
            key = LoadKey(iceberg_conn_id=iceberg_conn_id, target=target, process=name)
            entry = ended_by_hand(table, name, ended, by=act.by, reason=act.reason)
            SessionLog(conn_id=conn_id, key=key, emitter=Emitter(source="cli")).ended(entry)
    if as_json:
        said = {"target": target, "process": name, "abandoned": ended, "by": act.by, "reason": act.reason}
        typer.echo(json.dumps(said, indent=2))
    elif ended is None:
        typer.echo(f"process {name!r} has no open session on {target}; nothing was done")
    else:
        typer.echo(f"session {ended} of process {name!r} on {target} was ended by {act.by}: {act.reason}")


def _lines(found: Mapping[str, Any]) -> list[str]:
    lines = [f"session {found['session']} of process {found['process']!r}: {found['state']}" + _at(found)]
    labels = {
        "undone_by": "undone",
        "why": "why",
        "by": "by",
        "kind": "kind",
        "mode": "mode",
        "snapshot_id": "snapshot",
        "base_session": "went on from session",
        "rows": "rows",
        "late_rows": "late rows",
        "quarantined_rows": "rows put aside",
        "chunks": "chunks",
        "chunks_done": "chunks or steps kept so far",
        "approval": "approval",
        "verdict": "audits",
    }
    lines += [f"{label}: {found[name]}" for name, label in labels.items() if found.get(name) not in (None, "")]
    if found["ranges"]:
        lines.append(f"ranges: {_short(found['ranges'])}")
    before = found["previous_watermark"] or {}
    for name, position in ((found["watermark"] or {}).get("positions") or {}).items():
        table = found["sources"].get(name)
        lines.append(
            f"read {name}{f' = {table}' if table else ''}: from {_snapshot(before.get(name))} to {_snapshot(position)}"
        )
    return [*lines, *([found["about"]] if found.get("about") else [])]


def _at(found: Mapping[str, Any]) -> str:
    return f", {found['at']}" if found["at"] else ""


def _snapshot(position: Mapping[str, Any] | None) -> str:
    if position is None or position["snapshot"] is None:
        return "the start"
    return f"snapshot {position['snapshot']} ({position['committed']})"


def _short(ranges: list[str]) -> str:
    more = f" and {len(ranges) - _RANGES} more" if len(ranges) > _RANGES else ""
    return ", ".join(ranges[:_RANGES]) + more
