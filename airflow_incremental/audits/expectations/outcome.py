"""The result of one expectation, whichever way it was found: without a value of a row, unless sample rows were asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_incremental.audits.expectations.expectation import Expectation
from airflow_incremental.audits.expectations.kinds import OBSERVES_NO_VALUE, OF_COLUMNS
from airflow_incremental.core.audit import AuditResult, Over, Path

_COUNTS = (
    "element_count",
    "unexpected_count",
    "unexpected_percent",
    "missing_count",
    "missing_percent",
    "unexpected_percent_total",
    "unexpected_percent_nonmissing",
)
#: Arguments that say where an expectation looks, not what it expects there.
_WHERE = (
    "column",
    "column_A",
    "column_B",
    "column_list",
    "mostly",
    "row_condition",
    "condition_parser",
    "ignore_row_if",
)
_SHOWN = 120
#: The nearest of Great Expectations' own severities, for those who read its standard results.
_SEVERITIES = {"block": "critical", "warn": "warning", "ask": "critical", "quarantine": "critical"}


def outcome_of(
    expectation: Expectation,
    *,
    success: bool,
    result: Mapping[str, Any],
    over: Over,
    path: Path,
    rows: int,
    samples: tuple[Mapping[str, Any], ...],
    wanted: int,
) -> AuditResult:
    """Return the result of an expectation.

    :param result: the ``result`` of its validation, as Great Expectations has it.
    :param rows: how many it looked at where the ``result`` does not say.
    :param samples: some offending rows.
    :param wanted: how many were asked for; if none, no value of a row is in what is returned.
    """
    counted = "element_count" in result
    offending = result["unexpected_count"] if counted else int(not success)
    checked = result["element_count"] - result.get("missing_count", 0) if counted else rows
    shown = expectation.type in OBSERVES_NO_VALUE
    kept = {k: v for k, v in result.items() if wanted or k in _COUNTS or (k == "observed_value" and shown)}
    if expectation.type in OF_COLUMNS and "details" in result:
        kept["details"] = result["details"]
    column = expectation.kwargs.get("column")
    if counted and samples and isinstance(column, str) and all(column in row for row in samples):
        # As Great Expectations names them; DuckDB gives whole rows.
        kept.setdefault("partial_unexpected_list", [row[column] for row in samples])
    return AuditResult(
        name=expectation.name,
        severity=expectation.severity,
        passed=success,
        offending=offending,
        checked=checked,
        message=_counted(expectation, offending, checked)
        if counted
        else _observed(expectation, kept, success=success, shown=shown),
        samples=samples,
        kind=expectation.type,
        over=over,
        path=path,
        observed=kept.get("observed_value") if shown else None,
        full={
            "success": success,
            "expectation_config": {
                "type": expectation.type,
                "kwargs": dict(expectation.kwargs),
                "meta": dict(expectation.meta),
                "severity": _SEVERITIES[expectation.severity],
            },
            "result": kept,
            "meta": {},
            "exception_info": {"raised_exception": False, "exception_traceback": None, "exception_message": None},
        },
    )


def _counted(expectation: Expectation, offending: int, checked: int) -> str:
    kwargs = expectation.kwargs
    where = " where its row_condition holds" if kwargs.get("row_condition") is not None else ""
    mostly = kwargs.get("mostly")
    enough = f"; at least {mostly * 100:.6g}% must be" if isinstance(mostly, (int, float)) and mostly < 1 else ""
    return f"{offending:,} of {checked:,} rows{where} are not as expected{enough}"


def _observed(expectation: Expectation, result: Mapping[str, Any], *, success: bool, shown: bool) -> str:
    given = {k: v for k, v in expectation.kwargs.items() if k not in _WHERE and v is not None}
    expected = _cut(", ".join(f"{k} {json.dumps(v)}" for k, v in given.items()))
    if "observed_value" in result and shown:
        found = f"observed {_cut(json.dumps(result['observed_value']))}"
    elif shown:
        found = "as expected" if success else "not as expected"
    else:
        found = "observed what may be a row's own value, which is not shown"
    return found + (f"; expected {expected}" if expected else "")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
