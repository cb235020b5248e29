"""An operator's arguments: from what an author writes to plain values Airflow can template, and from rendered values to a spec.

The same rules run twice. When the DAG is parsed, on whatever is literal, so that a mistake fails the import of the DAG file; and in
the task, on the rendered values.
"""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from airflow_incremental.audits import Audit, PythonCheck, validate_audits
from airflow_incremental.audits.python import Check, is_function
from airflow_incremental.audits.trend import check_trends
from airflow_incremental.core.approval import ApprovalPolicy, OnReject
from airflow_incremental.core.errors import ArgumentError, ScopeOverlap
from airflow_incremental.core.literals import check_audit_table, is_template, name_of_callable, one_of
from airflow_incremental.core.quarantine import check_quarantine
from airflow_incremental.core.spark import SparkTransform
from airflow_incremental.core.spec import (
    Mode,
    OnLostWatermark,
    OnMissingBounds,
    OnNullEventTime,
    OnRewrite,
    ProcessSpec,
    check_process_name,
    initial_as_plain,
)
from airflow_incremental.core.stateful import CatchUp
from airflow_incremental.core.tables import IcebergSource, IcebergTarget, scopes_overlap, show_scope
from airflow_incremental.core.thresholds import OnSkipped

WhenBusy = Literal["wait", "skip", "fail"]
WhenPending = Literal["skip", "replace"]
OnNoChange = Literal["succeed", "skip"]
Stage = Literal["all", "plan", "load", "audit", "publish"]
Transform = str | Callable[..., Any] | SparkTransform | Mapping[str, Any] | None

#: Arguments of the operator that make up its ``ProcessSpec``; all are template fields.
SPEC_FIELDS = (
    "process",
    "sources",
    "target",
    "mode",
    "initial",
    "on_rewrite",
    "on_null_event_time",
    "on_lost_watermark",
    "on_missing_bounds",
    "state",
    "step",
    "keys",
    "key_horizon",
    "catch_up",
    "max_lookback",
    "budget",
    "on_skipped",
)
_POLICIES = {
    "mode": Mode,
    "on_rewrite": OnRewrite,
    "on_null_event_time": OnNullEventTime,
    "on_lost_watermark": OnLostWatermark,
    "on_missing_bounds": OnMissingBounds,
    "catch_up": CatchUp,
    "on_skipped": OnSkipped,
}
SQL_FILE = ".sql"


def is_open(value: Any) -> bool:
    """Say whether something in ``value`` is known only in the task: an XCom, an argument of a mapped group, a whole template."""
    if isinstance(value, Mapping):
        return any(is_open(v) for v in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(is_open(v) for v in value)
    return hasattr(value, "resolve") and hasattr(value, "iter_references")


def plain(value: Any) -> Any:
    """Return ``value`` with sources, targets, audits and times as the plain values they are made of."""
    if isinstance(value, (IcebergSource, IcebergTarget, Audit, SparkTransform)):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if is_function(value):
        return PythonCheck(value).as_dict()
    return initial_as_plain(value)


def functions_of(audits: Any) -> dict[str, Check]:
    """Return the functions among the audits by the audits' names: they are no plain values."""
    if is_open(audits) or isinstance(audits, str) or not isinstance(audits, Iterable):
        return {}
    found = [PythonCheck(a) if is_function(a) else a for a in audits]
    return {a.name: a.function for a in found if isinstance(a, PythonCheck) and a.function is not None}


def default_process(process: Any, target: Any) -> Any:
    """Return the process name: the given one, else the target's identifier, else None while that is not known."""
    if process is not None or not isinstance(target, Mapping):
        return process
    return target.get("table")


def check_parsed(
    fields: Mapping[str, Any],
    *,
    iceberg_conn_id: Any,
    audits: Any,
    functions: Mapping[str, Check],
    quarantine_table: Any = None,
    audit_table: Any = None,
    approval: ApprovalPolicy | None = None,
) -> ProcessSpec | None:
    """Check what is literal of plain, not yet rendered arguments.

    :param fields: the ``SPEC_FIELDS``.
    :param functions: of the audits that are functions, by their names.
    :returns: what they declare; None while that is not known.
    :raises ArgumentError: a value is wrong, whatever the rest will be rendered to.
    """
    spec = None
    for name, choices in _POLICIES.items():
        if not is_open(fields[name]):
            one_of(fields[name], choices, what=name)
    whole = [fields[name] for name in ("sources", "target", "initial", "process")]
    if not is_open(whole) and not is_template(fields["sources"]) and not is_template(fields["target"]):
        spec = build_spec(fields)
        for table in (*spec.tables, quarantine_table, audit_table):
            _check_no_file(table)
    elif not is_open(fields["process"]) and fields["process"] is not None:
        check_process_name(fields["process"])
    found = literal_audits(audits, functions)
    check_asks(found, approval)
    check_trends(found, kept=audit_table is not False)
    if not is_open(quarantine_table):
        check_quarantine(spec, quarantine_table, [a.name for a in found if a.puts_aside])
    if not is_open(audit_table):
        check_audit_table(audit_table, tables=[quarantine_table, *(() if spec is None else spec.tables)])
    if not is_open(iceberg_conn_id) and (not isinstance(iceberg_conn_id, str) or not iceberg_conn_id):
        raise ArgumentError(
            f"iceberg_conn_id is {iceberg_conn_id!r}", expected="the id of an Airflow connection of the type 'iceberg'"
        )
    return spec


def _check_no_file(table: Any) -> None:
    if isinstance(table, str) and table.endswith(SQL_FILE):
        raise ArgumentError(
            f"a table is named {table!r}",
            expected=f"a name that does not end in {SQL_FILE!r}: Airflow takes that for the name of a file",
            hint="give it through a template, for example {{ params.table }}",
        )


def literal_audits(audits: Any, functions: Mapping[str, Check]) -> tuple[Audit, ...]:
    """Return the audits of plain values; none while they are not known.

    :raises ArgumentError: one is no audit.
    """
    if is_open(audits) or is_template(audits):
        return ()
    return validate_audits(audits, functions=functions)


def check_approval(approval: Any, on_reject: Any, *, alone: bool) -> None:
    """Check when a person is asked, and what a rejection leads to.

    :param alone: all steps are one task, which cannot wait for a person in the middle.
    :raises ArgumentError: it is no policy, or nobody can be asked.
    """
    one_of(on_reject, OnReject, what="approval_on_reject")
    if approval is None:
        return
    if is_template(approval):
        raise ArgumentError(
            f"approval is {approval!r}",
            expected="a literal: it decides which tasks there are",
            hint="do not template it",
        )
    one_of(approval, ApprovalPolicy, what="approval")
    if alone:
        raise ArgumentError(
            f"approval is {approval!r}, and all steps are one task, which cannot wait for a person in the middle",
            expected="no approval in IncrementalLoadOperator",
            hint="use the task group IncrementalLoad, which takes the same arguments and has a task that asks",
        )


def check_asks(audits: Iterable[Audit], approval: ApprovalPolicy | None) -> None:
    """Refuse audits that leave it to a person where nobody is asked.

    :raises ArgumentError: there is one, and no approval.
    """
    asking = [repr(audit.name) for audit in audits if audit.asks_person]
    if asking and approval is None:
        raise ArgumentError(
            f"the severity 'ask' of {', '.join(asking)} leaves it to a person, and nobody is asked",
            expected="approval='always', 'on_warning' or 'on_sensitive_data' where an audit asks",
            hint="use the task group IncrementalLoad(..., approval=...), which asks between audit and publish; or another severity",
        )


def check_disjoint(one: ProcessSpec, other: ProcessSpec, *, who: str) -> None:
    """Refuse two processes of one target where one replaces rows of the other, as far as their literals tell.

    :raises ScopeOverlap: they do.
    """
    replaces = one.surely_replaces or other.surely_replaces
    if one.target.table == other.target.table and replaces and scopes_overlap(one.target.scope, other.target.scope):
        raise ScopeOverlap(
            f"{who} write {one.target.table!r}, one of them replaces rows, and their scopes overlap: "
            f"{show_scope(one.target.scope)}; {show_scope(other.target.scope)}",
            expected="scopes on identity partition columns that have no row in common",
            hint="give each IcebergTarget(scope={column: value}), or a target of its own",
        )


def build_spec(fields: Mapping[str, Any]) -> ProcessSpec:
    """Build the spec of rendered (or literal) arguments.

    :raises ArgumentError: something is missing, unknown or wrong.
    """
    sources, target = fields["sources"], fields["target"]
    if not isinstance(sources, Mapping):
        raise ArgumentError(
            f"sources is {sources!r}",
            expected="a mapping from the name the transform uses to an IcebergSource",
            hint="write sources={'events': IcebergSource('raw.events', event_time='ts')}",
        )
    built_target = _build(IcebergTarget, target, what="target")
    return ProcessSpec(
        **{
            **{name: fields[name] for name in SPEC_FIELDS},
            "process": built_target.table if fields["process"] is None else fields["process"],
            "sources": {
                name: _build(IcebergSource, source, what=f"source {name!r}") for name, source in sources.items()
            },
            "target": built_target,
        }
    )


def _build(cls: Any, value: Any, *, what: str) -> Any:
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{what} is {value!r}", expected=f"an {cls.__name__}, or a mapping with its arguments")
    try:
        return cls(**value)
    except TypeError as error:
        raise ArgumentError(
            f"{what} is {dict(value)!r}",
            expected=f"the arguments of {cls.__name__}",
            hint=str(error).partition("() ")[2],
        ) from None


def check_transform(transform: Any, *, stage: Stage) -> None:
    """Check the kind of a transform; its SQL is checked by the engine.

    :raises ArgumentError: it is neither text nor callable with two arguments, or there is none and nobody else writes.
    """
    if is_open(transform) or (isinstance(transform, str) and transform.strip()):
        return
    if callable(transform):
        _check_arguments(transform)
        return
    if isinstance(transform, (SparkTransform, Mapping)):
        on_spark(transform)
        return
    if transform is None and stage != "all":
        return
    hint = "to write with tasks of your own, use IncrementalLoad(..., transform=None) as a context manager"
    raise ArgumentError(
        f"transform is {transform!r}",
        expected="SQL text, the path of a .sql file, a Python callable, or a SparkTransform",
        hint=hint if transform is None else "",
    )


def on_spark(transform: Any) -> SparkTransform | None:
    """Return a transform that runs on Spark as a value; None for one that does not, or that is not known yet.

    :raises ArgumentError: an argument is wrong.
    """
    if isinstance(transform, SparkTransform):
        return transform
    return SparkTransform.from_dict(transform) if isinstance(transform, Mapping) and not is_open(transform) else None


def _check_arguments(function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # of some built-ins nothing is known
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ArgumentError(
            f"the transform {name_of_callable(function)} takes {signature}: {error}",
            expected="a function f(relations, plan)",
            hint="relations maps each source's name to its rows as a DuckDB relation; plan says what is computed",
        ) from None


def check_number(value: Any, *, what: str, least: float) -> float:
    """Check a number that is not templated, and return it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
        raise ArgumentError(f"{what} is {value!r}", expected=f"a number, {least} or more")
    return value
