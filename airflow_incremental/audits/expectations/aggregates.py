"""Expectations of one number of a column: its extremes, sum, mean and spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations.given import Finding, Given, Left
from airflow_incremental.audits.expectations.typed import Typed, typed
from airflow_incremental.audits.expectations.verdict import Verdict

_INT64 = 2**63
#: Sums of floats depend on the order of the rows. A bound that lies this near to one, relative to the size of what is
#: summed, is left to Great Expectations.
_ROUNDING = 1e-9
#: Beyond this, squares and sums could leave what a float can hold.
_TAME = 1e100
_WILD = "the column holds values beyond 1e100"
#: Of fewer values there is no spread.
_SAMPLE = 2


def minimum(given: Given) -> Measure:
    """Measure the least value; of floats, the least that is not NaN."""
    return _extreme(given, "min")


def maximum(given: Given) -> Measure:
    """Measure the greatest value; of floats, the greatest that is not NaN."""
    return _extreme(given, "max")


def _extreme(given: Given, function: str) -> Measure:
    column = typed(given, given.column())
    if column.kind == "text" and (given.arg("min_value"), given.arg("max_value")) != (None, None):
        raise Left("text is not compared with numbers")
    verdict = Verdict(given, column)
    if column.kind != "float":
        return given.measure([given.over(f"{function}({column.sql})")], lambda values: verdict.of(values[0]))
    real = f"NOT {given.sql.is_nan(column.sql)}"
    aggregates = [given.over(f"{function}({column.sql})", real), given.filled(column.column), given.count(real)]

    def read(values: Sequence[Any]) -> Finding:
        found, there, numbers = values
        if there and not numbers:
            return Finding(success=False, result={}, undecided="all values are NaN")
        return verdict.of(found)

    return given.measure(aggregates, read)


def total(given: Given) -> Measure:
    """Measure the sum, exactly for integers, decimals and booleans."""
    column = typed(given, given.column())
    if column.kind == "decimal" and given.where is not None:
        # It puts the values it has made floats of back by position where they have kept the index of all rows.
        raise Left("under a row condition Great Expectations adds up the decimals of other rows")
    verdict = Verdict(given)

    def exact(_count: int, found: Any) -> Finding:
        return verdict.of(found)

    def rounded(count: int, found: float, size: float) -> Finding:
        return verdict.of(found, error=_ROUNDING * size * count)

    return _summed(given, column, exact, rounded, empty=0)


def mean(given: Given) -> Measure:
    """Measure the mean; not of decimals, whose mean Arrow rounds in a way of its own."""
    column = typed(given, given.column())
    verdict = Verdict(given)

    def exact(count: int, found: Any) -> Finding:
        return verdict.of(float(found) / count)

    def rounded(count: int, found: float, size: float) -> Finding:
        return verdict.of(found / count, error=_ROUNDING * size)

    return _summed(given, column, exact, rounded, empty=None)


def _summed(
    given: Given,
    column: Typed,
    exact: Callable[[int, Any], Finding],
    rounded: Callable[[int, float, float], Finding],
    *,
    empty: int | None,
) -> Measure:
    """Measure what is made of a sum: from the number of values and their sum, of floats also the size of the largest."""
    nothing = Verdict(given).of(empty)
    if column.kind == "float":
        plain = (f"count({column.sql})", f"sum({column.real})", f"min({column.sql})", f"max({column.sql})")

        def read(values: Sequence[Any]) -> Finding:
            count, found, least, greatest = values
            if not count:
                return nothing
            if math.isnan(greatest):  # to SQL NaN is greater than any number
                return Finding(success=False, result={"observed_value": None})
            size = max(abs(least), abs(greatest))
            return rounded(count, found, size) if size < _TAME else Finding(success=False, result={}, undecided=_WILD)

        return given.measure([given.over(a) for a in plain], read)
    begin, end = given.sql.summed(column.sql, column.column.type)
    aggregates = (given.filled(column.column), given.over(begin) + end)

    def read_exact(values: Sequence[Any]) -> Finding:
        count, text = values
        if not count:
            return nothing
        found = Decimal(text) if column.kind == "decimal" else int(text)
        if isinstance(found, int) and not -_INT64 <= found < _INT64:
            return Finding(success=False, result={}, undecided="the sum is beyond 64 bits, where Arrow's wraps around")
        return exact(count, found)

    return given.measure(aggregates, read_exact)


def deviation(given: Given) -> Measure:
    """Measure the standard deviation of a sample, which takes two values at least."""
    column = typed(given, given.column())
    verdict = Verdict(given)
    # DuckDB stops at a square that no float holds, so such values are kept from it.
    tame = f"abs({column.real}) < {_TAME}"
    aggregates = (
        given.filled(column.column),
        given.count(given.sql.is_nan(column.real)),
        given.count(tame),
        given.over(f"stddev_samp({column.real})", tame),
        given.over(f"max(abs({column.real}))", tame),
    )

    def read(values: Sequence[Any]) -> Finding:
        count, nan, tamed, found, size = values
        if nan or count < _SAMPLE:
            return verdict.of(None)
        if count != tamed:
            return Finding(success=False, result={}, undecided=_WILD)
        return verdict.of(found, error=_ROUNDING * size)

    return given.measure(aggregates, read)
