"""``airflow-incremental subscriptions``: who starts runs on signals."""

from __future__ import annotations

from typing import Annotated

import typer

from airflow_incremental.cli.options import STORE_CONN, AsJson, StoreConn, open_store, show, text_of

app = typer.Typer(help="Who starts runs on signals, and how far they have looked.", no_args_is_help=True)


@app.command("list")
def list_(*, as_json: AsJson = False, conn_id: StoreConn = STORE_CONN) -> None:
    """List subscriptions. One that was not polled for long has no triggerer any more, and keeps signals from being cleaned."""
    from airflow_incremental.store.subscriptions import list_subscriptions

    with open_store(conn_id).read() as conn:
        found = list_subscriptions(conn)
    rows = [
        {
            "name": one.name,
            "state": one.state,
            "matches": one.matches,
            "polled_at": one.polled_at,
            "signals": [text_of(dependency.to_json()) for dependency in one.dependencies],
        }
        for one in found
    ]
    columns = ("name", "state", "matches", "polled_at", "signals")
    show(rows, columns=columns, as_json=as_json, empty="there is no subscription")


@app.command()
def close(
    name: Annotated[str, typer.Argument(help="Name of the subscription.")], conn_id: StoreConn = STORE_CONN
) -> None:
    """Close a subscription whose DAG is gone: what no run has claimed goes, and signals are not kept for it any more.

    A triggerer that still has it opens it anew, from then on, when it starts the next time.
    """
    from airflow_incremental.store.subscriptions import close_subscription

    with open_store(conn_id).write() as conn:
        close_subscription(conn, name)
    typer.echo(f"subscription {name!r} is closed")
