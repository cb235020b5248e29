"""``airflow-incremental plan``: what a run of a DAG would read and write now, from the plan that it would execute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airflow_incremental.cli.options import AsJson, read_json, working
from airflow_incremental.compat import find_dag, template_context
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.plan import Owner
from airflow_incremental.core.requests import RestateRequest

if TYPE_CHECKING:
    from airflow_incremental.operators.load import IncrementalLoadOperator


def plan(
    dag_id: Annotated[str, typer.Argument(help="The DAG.")],
    process: Annotated[
        str | None, typer.Argument(help="The process; needless if the DAG has only one.", show_default=False)
    ] = None,
    *,
    start: Annotated[
        str | None, typer.Option("--from", help="First event time of a restatement, ISO 8601 with a zone.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="End of its event times, exclusive.")] = None,
    conf: Annotated[str | None, typer.Option(help="JSON of the run's params, for templates.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would read and write now, and why. Nothing is touched.

    Without --from and --to, what a scheduled run would do; with them, what a restatement of these event times would.
    """
    from airflow_incremental.operators.binding import bind
    from airflow_incremental.operators.runtime import deployment
    from airflow_incremental.sessions.preview import preview

    restate = None if start is None and end is None else RestateRequest.read(start, end, cause="command")
    # What DAG files print when they are imported is not part of the answer.
    with working():
        operator = _rendered(find_load(dag_id, process), _params(read_json(conf, what="--conf")))
        bound = bind(
            operator,
            owner=Owner(deployment=deployment(), dag_id=dag_id),
            # Who holds the process is shown; whether that run is alive, only a task can ask.
            run_is_over=lambda _owner: False,
            make_runner=lambda transform, catalog: operator.make_runner(transform, catalog, {}),
            restate=restate,
        )
        found = preview(bound)
    typer.echo(json.dumps(found.to_json(), indent=2, default=str) if as_json else found.describe())


def find_load(dag_id: str, process: str | None) -> IncrementalLoadOperator:
    """Return the task of a DAG that plans a process.

    :raises ArgumentError: there is no such DAG or process, or it is known only when the DAG runs.
    """
    from airflow_incremental.operators.load import IncrementalLoadOperator

    dag, errors = find_dag(dag_id)
    if dag is None:
        last = {file: text.strip().splitlines()[-1] for file, text in sorted(errors.items()) if text.strip()}
        broken = "; not imported: " + "; ".join(f"{file}: {line}" for file, line in last.items()) if last else ""
        raise ArgumentError(
            f"there is no DAG {dag_id!r} in the DAG bundles of this Airflow{broken}",
            expected="a DAG that 'airflow dags list' shows",
        )
    loads = [t for t in dag.tasks if isinstance(t, IncrementalLoadOperator) and t.stage in ("all", "plan")]
    named = [load for load in loads if process is None or load.process == process]
    if len(named) == 1:
        return named[0]
    processes = ", ".join(repr(load.process) for load in loads) or "none"
    raise ArgumentError(
        f"DAG {dag_id!r} has no load of process {process!r}" if process else f"DAG {dag_id!r} has {len(loads)} loads",
        expected=f"one of its processes: {processes}",
        hint="processes of mapped tasks are known only in a run: trigger one with preview_only (restate_params())"
        if not loads
        else "name one of them",
    )


def _rendered(operator: IncrementalLoadOperator, params: Mapping[str, Any]) -> IncrementalLoadOperator:
    from jinja2 import UndefinedError

    context = template_context(operator, params)
    try:
        operator.render_template_fields(context)
    except UndefinedError as error:
        raise ArgumentError(
            f"a template of task {operator.task_id!r} needs what only a run has: {error}",
            expected="templates of params, var, conn and macros",
            hint="give params with --conf, or trigger a run with preview_only (restate_params())",
        ) from error
    return operator


def _params(given: Any) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ArgumentError(f"--conf is {given!r}", expected="a JSON object of params, as 'airflow dags trigger' takes")
    return given
