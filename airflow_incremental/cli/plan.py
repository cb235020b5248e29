"""``airflow-incremental plan``: what a run of a DAG would read and write now, from the plan that it would execute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from airflow_incremental.cli.options import AsJson, read_json, working
from airflow_incremental.compat import find_dag, instances, template_context, upstream_of
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
        operator = _rendered(_find_load(dag_id, process, _params(read_json(conf, what="--conf"))))
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


@attrs.frozen
class _Load:
    """A task that plans a process, as it would run.

    :param operator: a copy of its own, not yet rendered.
    :param context: what its templates can refer to.
    :param process: its process; as it is written in the DAG file, where only a run can render it.
    """

    operator: IncrementalLoadOperator
    context: Any
    process: Any


def _find_load(dag_id: str, process: str | None, params: Mapping[str, Any]) -> _Load:
    """Return the task of a DAG that plans a process, of a mapped one the instance.

    :raises ArgumentError: there is no such DAG or process, or it is known only when the DAG runs.
    """
    dag, errors = find_dag(dag_id)
    if dag is None:
        last = {file: text.strip().splitlines()[-1] for file, text in sorted(errors.items()) if text.strip()}
        broken = "; not imported: " + "; ".join(f"{file}: {line}" for file, line in last.items()) if last else ""
        raise ArgumentError(
            f"there is no DAG {dag_id!r} in the DAG bundles of this Airflow{broken}",
            expected="a DAG that 'airflow dags list' shows",
        )
    loads, unknown = _loads(dag, params)
    named = [load for load in loads if process in (None, load.process)]
    if len(named) == 1:
        return named[0]
    known = ", ".join(repr(load.process) for load in loads) or "none"
    unseen = f"; what tasks {', '.join(unknown)} are mapped over is known only in a run" if unknown else ""
    if unknown:
        hint = "trigger a run with preview_only (restate_params())"
    elif not loads:
        hint = "name a DAG with an IncrementalLoadOperator or an IncrementalLoad"
    elif process is not None and named:
        hint = "give each load a process of its own, since a watermark belongs to a process"
    else:
        hint = "name one of them"
    raise ArgumentError(
        f"DAG {dag_id!r} has no load of process {process!r}{unseen}"
        if process is not None and not named
        else f"DAG {dag_id!r} has {len(named)} loads{f' of process {process!r}' if process else ''}{unseen}",
        expected=f"one of its processes: {known}",
        hint=hint,
    )


def _loads(dag: Any, params: Mapping[str, Any]) -> tuple[list[_Load], list[str]]:
    """Return the loads of a DAG, one per instance of a mapped one, and the tasks whose instances only a run knows."""
    from airflow_incremental.operators.load import IncrementalLoadOperator

    loads, unknown = [], []
    for task in dag.tasks:
        if not issubclass(getattr(task, "operator_class", type(task)), IncrementalLoadOperator):
            continue
        found = instances(task)
        if found is None:
            unknown.append(task.task_id)
            continue
        for operator, mapped in found:
            if operator.stage in ("all", "plan"):
                context = {**template_context(operator, params), **mapped}
                loads.append(_Load(operator, context, _process_of(operator, context)))
    return loads, unknown


def _process_of(operator: IncrementalLoadOperator, context: Any) -> Any:
    from jinja2 import UndefinedError

    if upstream_of(operator.process):
        return operator.process
    try:
        return operator.render_template(operator.process, context)
    except UndefinedError:
        return operator.process


def _rendered(load: _Load) -> IncrementalLoadOperator:
    from jinja2 import UndefinedError

    operator = load.operator
    for name in operator.template_fields:
        if upstream := upstream_of(getattr(operator, name)):
            raise ArgumentError(
                f"{name} of task {operator.task_id!r} is made of what {', '.join(upstream)} returned, which only a run has",
                expected="arguments that are known without a run",
                hint="trigger a run with preview_only (restate_params())",
            )
    try:
        operator.render_template_fields(load.context)
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
