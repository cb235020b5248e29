"""Expectations of the value in the middle of a column, and of other quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations.given import Finding, Given, Left
from airflow_incremental.audits.expectations.typed import typed
from airflow_incremental.audits.expectations.verdict import Verdict

_PAIR = 2
#: Up to here every whole number is a float.
_EXACT = 2**53


def median(given: Given) -> Measure:
    """Measure the mean of the two values in the middle, computed as Arrow does."""
    column = typed(given, given.column())
    verdict = Verdict(given)
    real = f"NOT {given.sql.is_nan(column.sql)}" if column.kind == "float" else f"{column.sql} IS NOT NULL"
    aggregates = tuple(given.over(a, real) for a in given.sql.middle(column.sql))

    def read(values: Sequence[Any]) -> Finding:
        lower, upper = values
        return verdict.of(None if lower is None else 0.5 * float(upper) + 0.5 * float(lower))

    return given.measure(aggregates, read)


def quantiles(given: Given) -> Measure:
    """Measure quantiles; only the ends and the middle, for which value is nearest to another depends on the number of rows."""
    column = typed(given, given.column())
    asked, ranges = _ranges(given)
    if given.arg("allow_relative_error", default=False) is not False:
        raise Left("allow_relative_error is given")
    real = f"NOT {given.sql.is_nan(column.sql)}" if column.kind == "float" else f"{column.sql} IS NOT NULL"
    if not all(q in (0, 0.5, 1) for q in asked):
        raise Left("quantiles other than 0, 0.5 and 1 have no SQL that is proven equal")
    least, greatest = f"min({column.sql})", f"max({column.sql})"
    aggregates = (given.count(real), *(given.over(a, real) for a in (least, *given.sql.middle(column.sql), greatest)))

    def read(values: Sequence[Any]) -> Finding:
        count, low, lower, upper, high = values
        if not count:
            return Finding(success=False, result={}, undecided="there is no value to take a quantile of")
        if column.kind == "integer" and isinstance(lower, float):  # as Spark gives them
            if max(abs(lower), abs(upper)) >= _EXACT:
                return Finding(
                    success=False, result={}, undecided="a value in the middle is beyond what a float can hold"
                )
            lower, upper = int(lower), int(upper)
        # Between two values in the middle Arrow takes the one whose index is even.
        found_by = {0: low, 0.5: lower if count // 2 % 2 else upper, 1: high}
        found = [found_by[q] for q in asked]
        details = [_in_range(v, low, high) for v, (low, high) in zip(found, ranges, strict=True)]
        observed = {"quantiles": list(asked), "values": found}
        return Finding(all(details), {"observed_value": observed, "details": {"success_details": details}})

    return given.measure(aggregates, read)


def _ranges(given: Given) -> tuple[list[float], list[tuple[float, float]]]:
    both = given.arg("quantile_ranges")
    asked, ranges = (both.get("quantiles"), both.get("value_ranges")) if isinstance(both, dict) else (None, None)
    if not isinstance(asked, list) or not isinstance(ranges, list) or len(asked) != len(ranges) or not asked:
        raise Left("quantile_ranges is no list of quantiles and one of as many ranges")
    if not all(isinstance(pair, list) and len(pair) == _PAIR and all(map(_bound, pair)) for pair in ranges):
        raise Left("quantile_ranges holds a range that is no pair of numbers")
    return asked, [(-math.inf if low is None else low, math.inf if high is None else high) for low, high in ranges]


def _bound(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _in_range(value: float, low: float, high: float) -> bool:
    """Whether a quantile is in its range, which Great Expectations widens by a ten thousandth."""
    return _close(value, low) or _close(value, high) or low <= value <= high


def _close(value: float, bound: float) -> bool:
    if math.isinf(value) or math.isinf(bound):
        return value == bound
    return abs(float(value) - float(bound)) <= 1e-8 + 1e-4 * abs(float(bound))
