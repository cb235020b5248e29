"""``airflow-incremental watermark``: how far a process is, and changing that by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airflow_incremental.cli.options import (
    ICEBERG_CONN,
    STORE_CONN,
    AsJson,
    By,
    DryRun,
    IcebergConn,
    ProcessName,
    Reason,
    StoreConn,
    Target,
    act_of,
    tell_store,
    working,
)
from airflow_incremental.cli.options import show as show_table
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import parse_time
from airflow_incremental.core.session_log import LoadKey

if TYPE_CHECKING:
    from airflow_incremental.sessions.watermarks import Changed

app = typer.Typer(help="How far a process is: show it, set it, take it away.", no_args_is_help=True)


@app.command()
def show(
    target: Target,
    process: ProcessName = None,
    *,
    iceberg_conn_id: IcebergConn = ICEBERG_CONN,
    as_json: AsJson = False,
) -> None:
    """Show up to where a process has consumed its sources, and how that stands to the sources now."""
    from airflow_incremental.operators.runtime import catalog_of
    from airflow_incremental.sessions.watermarks import show as look

    with working():
        found = look(catalog_of(iceberg_conn_id), target, process)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for line in _lines(found):
        typer.echo(line)
    columns = ("source", "table", "snapshot", "committed", "state", "behind")
    if found["sources"]:
        show_table(found["sources"], columns=columns, as_json=False, empty="")


@app.command("set")
def set_(
    target: Target,
    process: ProcessName = None,
    *,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="name=POSITION of a source: a snapshot id, a time with zone, 'current' or 'start'; repeat it. Others stay."
        ),
    ] = None,
    processed_through: Annotated[
        str | None,
        typer.Option(help="Mode 'stateful': the time with zone up to which the target counts as computed."),
    ] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="name=namespace.table of a source, where the last publish does not say it.")
    ] = None,
    branch: Annotated[
        list[str] | None, typer.Option(help="name=branch of a source that is not read from main.")
    ] = None,
    append_again: Annotated[
        bool,
        typer.Option(
            "--append-again",
            help="Mode 'append': go back although rows are then appended again; only if you removed them from the target.",
        ),
    ] = False,
    reason: Reason,
    by: By = None,
    dry_run: DryRun = False,
    iceberg_conn_id: IcebergConn = ICEBERG_CONN,
    as_json: AsJson = False,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """Set up to where a process has consumed its sources; no row changes.

    Going back makes the next run take changes again, going on makes it pass over them.
    """
    from airflow_incremental.operators.runtime import catalog_of
    from airflow_incremental.sessions.watermarks import set_watermark

    positions = _pairs(source, "--source", "a snapshot id, a time with zone, 'current' or 'start'")
    tables, branches = _pairs(table, "--table", "a table"), _pairs(branch, "--branch", "a branch")
    through = None if processed_through is None else parse_time(processed_through, what="--processed-through")
    act = act_of(by, reason)
    with working():
        found = set_watermark(
            catalog_of(iceberg_conn_id),
            target,
            process,
            positions,
            act=act,
            tables=tables,
            branches=branches,
            processed_through=through,
            append_again=append_again,
            dry_run=dry_run,
        )
    _tell(found, iceberg_conn_id, conn_id, as_json=as_json)


@app.command()
def reset(
    target: Target,
    process: ProcessName = None,
    *,
    reason: Reason,
    by: By = None,
    dry_run: DryRun = False,
    iceberg_conn_id: IcebergConn = ICEBERG_CONN,
    as_json: AsJson = False,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """Take the watermark of a process away, so that its next run is a first run under its 'initial'; no row changes.

    A first run into a target that holds rows is refused unless 'initial' adopts them, so nothing is loaded twice.
    """
    from airflow_incremental.operators.runtime import catalog_of
    from airflow_incremental.sessions.watermarks import reset_watermark

    act = act_of(by, reason)
    with working():
        found = reset_watermark(catalog_of(iceberg_conn_id), target, process, act=act, dry_run=dry_run)
    _tell(found, iceberg_conn_id, conn_id, as_json=as_json)


def _tell(found: Changed, iceberg_conn_id: str, conn_id: str, *, as_json: bool) -> None:
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else found.describe())
    tell_store(
        conn_id, LoadKey(iceberg_conn_id=iceberg_conn_id, target=found.target, process=found.process), found.record
    )


def _lines(found: Mapping[str, Any]) -> list[str]:
    about = f"process {found['process']!r} on {found['target']} ({found['mode'] or 'mode not known'})"
    if not found["sources"]:
        why = f", since {found['session']}: {found['by_hand']}" if found["by_hand"] else ""
        return [f"{about} has no watermark{why}"]
    lines = [
        f"{about}: {found['kind']} session {found['session']}, snapshot {found['snapshot_id']}, {found['published_at']}",
        f"complete through: {found['complete_through'] or 'not known'}",
    ]
    for name, label in (("by_hand", "by hand"), ("processed_through", "processed through")):
        lines += [f"{label}: {found[name]}"] if found[name] else []
    lines += [f"skipped, and kept for later: {', '.join(found['skipped'])}"] if found["skipped"] else []
    lines += [f"scope: {json.dumps(found['scope'])}"] if found["scope"] else []
    return lines


def _pairs(given: Sequence[str] | None, option: str, what: str) -> dict[str, str]:
    read: dict[str, str] = {}
    for pair in given or ():
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise ArgumentError(f"{option} is {pair!r}", expected=f"name=value: the name of a source, and {what}")
        if name in read:
            raise ArgumentError(f"{option} is given twice for source {name!r}", expected="each source once")
        read[name] = value
    return read
