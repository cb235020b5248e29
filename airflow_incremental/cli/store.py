"""``airflow-incremental store``: its tables, its log, and what is old in it."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

from airflow_incremental.cli.options import (
    ICEBERG_CONN,
    STORE_CONN,
    AsJson,
    IcebergConn,
    StoreConn,
    open_store,
    read_duration,
    show,
)
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import default_audit_table
from airflow_incremental.core.ranges import UTC

app = typer.Typer(help="The database of signals and the session log.", no_args_is_help=True)


@app.command()
def upgrade(conn_id: StoreConn = STORE_CONN) -> None:
    """Make the store's tables, or bring them to the form this version knows. Others may do so at the same time."""
    store = open_store(conn_id)
    typer.echo(f"store {store.store_id} at {store.where} is up to date")


@app.command()
def rebuild(
    tables: Annotated[list[str] | None, typer.Argument(help="Targets, as namespace.table.")] = None,
    *,
    namespace: Annotated[str | None, typer.Option(help="All targets of processes in this namespace.")] = None,
    iceberg_conn_id: IcebergConn = ICEBERG_CONN,
    audit_table: Annotated[
        str | None, typer.Option(help="Where results of audits are kept, if not in <target>__audits.")
    ] = None,
    signals: Annotated[
        bool, typer.Option("--signals", help="Also emit the signals of these sessions that the store does not have.")
    ] = False,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """Write the session log anew from what targets say: published sessions, open and failed ones, watermarks.

    What only the log knows (timings of steps, plans of sessions that are over) stays as it is.
    """
    from airflow_incremental.iceberg.commits import load_table
    from airflow_incremental.iceberg.targets import targets_in
    from airflow_incremental.operators.runtime import catalog_of
    from airflow_incremental.operators.session_log import rewrite_log
    from airflow_incremental.sessions.entries import read_log

    if bool(tables) == bool(namespace):
        raise ArgumentError("which targets are meant is not said", expected="tables, or --namespace, and not both")
    store, catalog = open_store(conn_id), catalog_of(iceberg_conn_id)
    for target in tables or targets_in(catalog, namespace or ""):
        table = load_table(catalog, target, role="target")
        found = read_log(catalog, table, audit_table=audit_table or default_audit_table(target))
        emitted = rewrite_log(store, iceberg_conn_id=iceberg_conn_id, target=target, found=found, signals=signals)
        said = f"{target}: {len(found.processes)} processes, {len(found.sessions)} sessions"
        typer.echo(said + (f", {emitted} signals" if signals else ""))


@app.command()
def clean(
    older_than: Annotated[str, typer.Option(help="Age of what is removed, such as 90d.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: AsJson = False,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """Remove old signals, waits and matches, but nothing that an open subscription or wait still needs."""
    from airflow_incremental.store.cleaning import clean as remove

    removed = remove(open_store(conn_id), dt.datetime.now(UTC) - read_duration(older_than), dry_run=dry_run)
    rows = [{"table": name, "rows": count} for name, count in removed.items()]
    if not as_json:
        typer.echo("would be removed:" if dry_run else "removed:")
    show(rows, columns=("table", "rows"), as_json=as_json, empty="nothing")
