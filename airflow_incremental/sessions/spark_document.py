"""The job that a session gives to a Spark application: what to read, run and write, as plain values (see ``core.spark_job``)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_incremental.core.ranges import EventRanges, Grain
from airflow_incremental.core.reads import changes_name
from airflow_incremental.core.spark_job import JOB_VERSION, SESSION_CONF, SparkRead, ranges_as_job
from airflow_incremental.core.stateful import steps_of
from airflow_incremental.iceberg.reads import schema_at
from airflow_incremental.iceberg.replace import replaceable
from airflow_incremental.iceberg.spark_reads import added_reads, changed_reads, snapshot_reads
from airflow_incremental.iceberg.spark_types import spark_columns, spark_event_time, spark_type
from airflow_incremental.sessions.reading import changed_span, key_columns, pinned_changes, source_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyiceberg.schema import Schema
    from pyiceberg.table import Table

    from airflow_incremental.core.plan import Plan, SourcePlan
    from airflow_incremental.core.spark_job import SparkRunner
    from airflow_incremental.core.tables import ScopeValue
    from airflow_incremental.iceberg.attempts import Attempt
    from airflow_incremental.sessions.process import Process, Session

#: Ranges up to which Spark replaces them on the branch, as people who look at it expect; it makes no difference to what is sealed.
REPLACED_RANGES = 64


def job_document(session: Session, runner: SparkRunner, target: Table, attempt: Attempt) -> dict[str, Any]:
    """Return the job of an attempt.

    :param target: as it is now.
    :raises PlanExpired: a pinned snapshot is gone, or what changed until it reads differently now.
    :raises TableError: a table does not fit, or Spark cannot express what has to be read.
    """
    process, plan = session.process, session.plan
    spec = process.spec
    keyed = {s.name: key_columns(spec, s.name) for s in plan.sources if s.derivation != "lookup"} if plan.keys else {}
    return {
        "version": JOB_VERSION,
        "what": "load",
        "process": plan.process,
        "session": plan.session,
        "mode": plan.mode,
        "kind": plan.kind,
        "attempt": attempt.number,
        "catalog": dict(runner.catalog),
        "session_conf": dict(SESSION_CONF),
        "plan": plan.to_json(),
        "plan_ranges": ranges_as_job(plan.replaced or plan.affected),
        "transform": dict(runner.transform),
        "sources": job_sources(process, plan, runner),
        "keys": {
            "columns": list(plan.keys),
            "sources": {name: list(columns) for name, columns in keyed.items()},
            "within": dict.fromkeys(keyed, _optional(changed_span(spec, plan))),
        }
        if plan.keys
        else None,
        "target": _target(process, plan, target, attempt),
        "steps": _steps(process, plan) if plan.mode == "stateful" else None,
    }


def job_sources(process: Process, plan: Plan, runner: SparkRunner) -> dict[str, Any]:
    """Return what each source name stands for.

    :raises PlanExpired: a pinned snapshot is gone, or what changed until it reads differently now.
    """
    return {source.name: _source(process, plan, source, runner) for source in plan.sources}


def _source(process: Process, plan: Plan, source: SourcePlan, runner: SparkRunner) -> dict[str, Any]:
    declared = process.spec.sources[source.name]
    table = source_table(process, plan, source)
    schema = schema_at(table, source.pinned.snapshot_id)
    changed = None if source.derivation == "lookup" else _changed(process, plan, source, runner)
    return {
        "table": source.table,
        "columns": spark_columns(table, schema),
        **_event_time(table, declared.event_time, schema),
        "rows": _plain(_rows(process, plan, source, table)),
        "added": None if changed is None else _plain(changed[0]),
        "removed": None if changed is None else _plain(changed[1]),
        "ranges": ranges_as_job(source.changed),
        "bounds": dict(source.bounds),
        "bounds_types": {column: spark_type(table, schema, column) for column in source.bounds},
    }


def _rows(process: Process, plan: Plan, source: SourcePlan, table: Table) -> list[SparkRead]:
    """Return the rows that a source's name stands for; see :func:`~airflow_incremental.sessions.reading.PlanReader`."""
    if source.derivation == "lookup" or plan.keys:
        # Of the rows of a keyed driver, the application takes those of the changed keys.
        return snapshot_reads(table, source)
    if not plan.reads_added_rows:
        return snapshot_reads(table, source, keep=None if plan.read.is_everything else plan.read)
    changes, table = pinned_changes(process, plan, source)
    event_time = process.spec.sources[source.name].event_time
    added = added_reads(table, source, changes, event_time=event_time, drop=plan.replaced or None)
    return [*added, *snapshot_reads(table, source, keep=plan.replaced)] if plan.replaced else added


def _changed(
    process: Process, plan: Plan, source: SourcePlan, runner: SparkRunner
) -> tuple[list[SparkRead], list[SparkRead]]:
    """Return the rows that came and those that went; see :func:`~airflow_incremental.sessions.reading.source_changes`."""
    if not _asks_for_changes(source.name, plan, runner):
        return [], []
    if source.derivation == "restatement":
        # What is computed again on purpose counts as changed, whole.
        again = plan.restated(source)
        table = source_table(process, plan, source)
        return snapshot_reads(table, source, keep=None if again.is_everything else again), []
    changes, table = pinned_changes(process, plan, source)
    return changed_reads(table, source, changes, event_time=process.spec.sources[source.name].event_time)


def _asks_for_changes(name: str, plan: Plan, runner: SparkRunner) -> bool:
    """Say whether the changed rows of a driver may be asked for; of SQL its text tells."""
    text = runner.transform.get("text")
    if plan.keys or not isinstance(text, str):
        return True
    return re.search(rf"\b{re.escape(changes_name(name))}\b", text, re.IGNORECASE) is not None


def _target(process: Process, plan: Plan, target: Table, attempt: Attempt) -> dict[str, Any]:
    event_time = process.spec.target.event_time
    every = plan.reads_added_rows or plan.keys or plan.read.is_everything
    scope = _scope(plan.scope)
    # What only grows is appended to.
    replaces = plan.replaced and not plan.reads_added_rows and len(plan.replaced.ranges) <= REPLACED_RANGES
    return {
        "table": plan.target,
        "branch": attempt.branch,
        "base": plan.main,
        "columns": spark_columns(target, target.schema()),
        **_event_time(target, event_time, target.schema()),
        "replace": {"ranges": ranges_as_job(plan.replaced), "scope": scope}
        if replaces and replaceable(target, plan.main, event_time=event_time, ranges=plan.replaced, scope=plan.scope)
        else None,
        "check": {
            "ranges": None if every else ranges_as_job(plan.read),
            "scope": scope,
            "keys": bool(plan.keys),
        },
    }


def _steps(process: Process, plan: Plan) -> dict[str, Any]:
    spec = process.spec
    unit = spec.step or (None if plan.grain is None else plan.grain.value)
    step = None if spec.step is None else Grain(spec.step)
    return {
        "parts": [ranges_as_job(EventRanges((part,)))["ranges"][0] for part in steps_of(plan.read, step)],
        "state": None
        if spec.state is None or unit is None
        else {
            "kind": spec.state.kind,
            "columns": list(spec.state.keys),
            "unit": unit,
            "replaced": ranges_as_job(plan.replaced),
        },
    }


def _event_time(table: Table, name: str | None, schema: Schema) -> dict[str, str | None]:
    column, kind = (None, None) if name is None else spark_event_time(table, schema, name)
    return {"event_time": column, "event_time_type": kind}


def _plain(reads: Sequence[SparkRead]) -> list[dict[str, Any]]:
    return [read.to_json() for read in reads]


def _optional(ranges: EventRanges | None) -> dict[str, Any] | None:
    return None if ranges is None else ranges_as_job(ranges)


def _scope(scope: Mapping[str, Sequence[ScopeValue]] | None) -> dict[str, list[ScopeValue]] | None:
    return None if scope is None else {column: list(values) for column, values in scope.items()}
