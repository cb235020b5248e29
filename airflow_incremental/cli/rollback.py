"""``airflow-incremental rollback``: undo."""

from __future__ import annotations

import json
from typing import Annotated

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
from airflow_incremental.core.session_log import LoadKey


def rollback(
    target: Target,
    process: ProcessName = None,
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="SESSION",
            help="The session to go back to the beginning of: it is undone, and so are those of the process that came after it.",
        ),
    ],
    reason: Reason,
    by: By = None,
    dry_run: DryRun = False,
    iceberg_conn_id: IcebergConn = ICEBERG_CONN,
    as_json: AsJson = False,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """Take a target back to before a session, with its watermark, in one commit, if nobody else changed rows since.

    SESSION itself is undone. The next run of the load loads again what was undone, and loads that read the target follow it as a
    change. Sessions are listed by 'session list'.
    """
    from airflow_incremental.operators.runtime import catalog_of
    from airflow_incremental.sessions.undoing import preview, undo

    act = act_of(by, reason)
    with working():
        catalog = catalog_of(iceberg_conn_id)
        found = preview(catalog, target, process, to) if dry_run else undo(catalog, target, process, to, act=act)
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else found.describe())
    if not dry_run:
        key = LoadKey(iceberg_conn_id=iceberg_conn_id, target=target, process=found.process)
        tell_store(conn_id, key, found.record)
