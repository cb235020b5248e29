"""How Great Expectations judges row by row, and puts its counts into a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations.given import Finding, Given


def map_result(elements: int, unexpected: int, missing: int | None) -> dict[str, Any]:
    """Return the ``result`` of a row-wise expectation.

    :param elements: rows that fulfil the row condition.
    :param missing: how many of them it does not apply to; None where it applies to all.
    """
    looked_at = elements - (missing or 0)
    result: dict[str, Any] = {
        "element_count": elements,
        "unexpected_count": unexpected,
        "unexpected_percent": unexpected / looked_at * 100 if looked_at else None,
    }
    if missing is not None:
        result["missing_count"] = missing
        result["missing_percent"] = missing / elements * 100 if elements else None
        result["unexpected_percent_total"] = unexpected / elements * 100 if elements else None
        result["unexpected_percent_nonmissing"] = result["unexpected_percent"]
    return result


def map_finding(elements: int, unexpected: int, missing: int | None, mostly: float) -> Finding:
    """Return what a row-wise expectation found; over no row at all it holds."""
    looked_at = elements - (missing or 0)
    success = looked_at == 0 or (looked_at - unexpected) / looked_at >= mostly
    return Finding(success, map_result(elements, unexpected, missing))


def whole(given: Given, offends: str) -> Measure:
    """Measure an expectation that applies to every row."""
    mostly = given.mostly()
    aggregates = (given.count(), given.count(offends))

    def read(values: Sequence[Any]) -> Finding:
        elements, unexpected = values
        return map_finding(elements, unexpected, None, mostly)

    return given.measure(aggregates, read, offends=offends)


def not_null(given: Given) -> Measure:
    """``expect_column_values_to_not_be_null``: to GX's Arrow-backed frames NaN is a value, as it is to SQL."""
    return whole(given, f"{given.column().sql} IS NULL")


def null(given: Given) -> Measure:
    """``expect_column_values_to_be_null``."""
    return whole(given, f"{given.column().sql} IS NOT NULL")
