"""``airflow-incremental signals``: emit, look, follow where a signal led, and let a waiting step go."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from airflow_incremental.cli.options import (
    MOST,
    STORE_CONN,
    AsJson,
    By,
    StoreConn,
    in_line,
    open_store,
    read_json,
    read_pairs,
    show,
    text_of,
    who_does,
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
    """Emit a signal, and print it as JSON. Emitting it again changes nothing; then ``new`` is false."""
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
    typer.echo(json.dumps({**emitted.signal.to_json(), "new": emitted.new}, indent=2))


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Name of the signals; all names if left out.")] = None,
    *,
    match: Annotated[
        str | None, typer.Option(help='JSON of conditions, such as {"hour": {">=": 6}, "region": "eu"}.')
    ] = None,
    limit: Annotated[int, typer.Option(help="How many at most, newest first.", min=1, max=MOST)] = 20,
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


@app.command()
def waits(
    *,
    dag_id: Annotated[str | None, typer.Option("--dag-id", help="Only those of a DAG.")] = None,
    run_id: Annotated[str | None, typer.Option("--run-id", help="Only those of a run.")] = None,
    task_id: Annotated[str | None, typer.Option("--task-id", help="Only those of a task.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    limit: Annotated[int, typer.Option(help="How many at most, newest first.", min=1, max=MOST)] = 1_000,
    as_json: AsJson = False,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """List the steps that wait for signals, and what for."""
    from airflow_incremental.store.waits import find_waits

    with open_store(conn_id).read() as conn:
        state = None if all_ else "open"
        found = find_waits(conn, state=state, dag_id=dag_id, run_id=run_id, task_id=task_id, limit=limit + 1)
    if len(found) > limit:
        typer.echo(f"there are more than the {limit:,} newest: see --limit", err=True)
    rows = [
        {
            "id": wait.id,
            "state": wait.state,
            "since": wait.opened_at,
            "dag_id": wait.task.dag_id,
            "run_id": wait.task.run_id,
            "task_id": wait.task.task_id,
            "map_index": wait.task.map_index,
            "waits_for": [text_of(dependency) for dependency in wait.dependencies],
            "closed_by": wait.closed_by,
            "reason": wait.reason,
        }
        for wait in found[:limit]
    ]
    columns = ["id", "since", "dag_id", "run_id", "task_id", "waits_for"]
    columns[1:1] = ["state"] if all_ else []
    show(rows, columns=columns, as_json=as_json, empty="nothing waits")


@app.command()
def bypass(
    wait: Annotated[str | None, typer.Argument(help="Id of the wait; or name the task.")] = None,
    *,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks later.")],
    by: By = None,
    dag_id: Annotated[str | None, typer.Option("--dag-id")] = None,
    run_id: Annotated[str | None, typer.Option("--run-id")] = None,
    task_id: Annotated[str | None, typer.Option("--task-id")] = None,
    map_index: Annotated[int, typer.Option("--map-index")] = -1,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """Let a waiting step go on without its signals. Who did it, and why, is kept."""
    from airflow_incremental.store.waits import bypass as let_go
    from airflow_incremental.store.waits import find_waits

    store = open_store(conn_id)
    named = (dag_id, run_id, task_id)
    if (wait is None) == (None in named):
        raise ArgumentError(
            "which step is meant is not said", expected="the id of a wait, or --dag-id, --run-id and --task-id"
        )
    if wait is None:
        with store.read() as conn:
            found = find_waits(
                conn, state="open", dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index, limit=1
            )
        if not found:
            index = f" with map index {map_index}" if map_index >= 0 else ""
            raise ArgumentError(
                f"task {task_id!r}{index} of run {run_id!r} of DAG {dag_id!r} does not wait",
                expected="an open wait",
                hint="see 'airflow-incremental signals waits'",
            )
        wait = found[0].id
    done = let_go(store, wait, by=who_does(by), reason=reason)
    typer.echo(f"wait {done.id} was bypassed by {done.closed_by}: {done.reason}")


@app.command()
def lineage(
    name: Annotated[str, typer.Argument(help="Name of the signal.")],
    seq: Annotated[
        int, typer.Argument(help="Its number among those of the name, see 'signals list'.", min=1, max=2**63 - 1)
    ],
    *,
    up: Annotated[bool, typer.Option("--up", help="What it came from, instead of what it led to.")] = False,
    depth: Annotated[int, typer.Option(help="Hops from signal to signal.", min=1, max=100)] = 10,
    as_json: AsJson = False,
    conn_id: StoreConn = STORE_CONN,
) -> None:
    """Show which tasks a signal released and which runs it started, what those emitted, and so on; or the way back."""
    from airflow_incremental.store.lineage import lineage as follow

    with open_store(conn_id).read() as conn:
        found = follow(conn, name, seq, direction="up" if up else "down", depth=depth)
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else "\n".join(map(in_line, found.describe())))
