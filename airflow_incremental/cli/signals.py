"""``airflow-incremental signals``: emit, look, follow where a signal led, and let a waiting step go."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from airflow_incremental.cli.options import (
    STORE_CONN,
    AsJson,
    StoreConn,
    open_store,
    read_json,
    read_pairs,
    show,
)
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signals import Emitter, SignalDependency

app = typer.Typer(help="Named facts with parameters, which gate steps and start runs.", no_args_is_help=True)

Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="name=text, or name:kind=text (integer, date, timestamp); repeat it."),
]


@app.command()
def emit(
    name: Annotated[str, typer.Argument(help="Name of the signal.")],
    *,
    param: Params = None,
    payload: Annotated[str | None, typer.Option(help="JSON, not searched.")] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Identity of the fact; default is name and parameters.")
    ] = None,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """Emit a signal. Emitting it again changes nothing, and says so."""
    from airflow_incremental.store.emitting import Emission
    from airflow_incremental.store.emitting import emit as put

    emission = Emission.read(
        name,
        read_pairs(param or ()),
        read_json(payload, what="the payload"),
        request_id=request_id,
        emitter=Emitter(source="cli"),
    )
    emitted = put(open_store(conn_id), emission)
    if not emitted.new:
        typer.echo("was emitted before:")
    typer.echo(json.dumps(emitted.signal.to_json(), indent=2))


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Name of the signals; all names if left out.")] = None,
    *,
    match: Annotated[
        str | None, typer.Option(help='JSON of conditions, such as {"hour": {">=": 6}, "region": "eu"}.')
    ] = None,
    limit: Annotated[int, typer.Option(help="How many at most, newest first.", min=1)] = 20,
    as_json: AsJson = False,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """List signals, newest first."""
    from airflow_incremental.store.searching import list_signals

    if match is not None and name is None:
        raise ArgumentError("--match is given without a name", expected="the name of the signals that are to match")
    wanted = None
    if name is not None:
        wanted = SignalDependency.read({"name": name, "match": read_json(match, what="--match") or {}})
    with open_store(conn_id).read() as conn:
        found = list_signals(conn, wanted, limit=limit)
    rows = [
        {
            **signal.to_json(),
            "emitted_by": f"{signal.emitter.source} {signal.emitter.dag_id} {signal.emitter.run_id}".strip(),
        }
        for signal in found
    ]
    columns = ("name", "seq", "created_at", "params", "emitted_by")
    show(rows, columns=columns, as_json=as_json, empty="there is no such signal")
