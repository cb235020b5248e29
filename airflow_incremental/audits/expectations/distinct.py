"""Expectations of the different values of a column: how many there are, and whether they are those of a set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations.given import Finding, Given, Left
from airflow_incremental.audits.expectations.typed import members, typed, within
from airflow_incremental.audits.expectations.verdict import Verdict


def unique_count(given: Given) -> Measure:
    """Measure how many different values there are."""
    column = typed(given, given.column())
    verdict = Verdict(given)

    def read(values: Sequence[Any]) -> Finding:
        return verdict.of(values[0])

    return given.measure((given.over(f"count(DISTINCT {column.sql})"),), read)


def unique_proportion(given: Given) -> Measure:
    """Measure how many different values there are among those that are there."""
    column = typed(given, given.column())
    verdict = Verdict(given)

    def read(values: Sequence[Any]) -> Finding:
        there, different = values
        return verdict.of(different / there if there else 0)

    return given.measure((given.filled(column.column), given.over(f"count(DISTINCT {column.sql})")), read)


def non_null_proportion(given: Given) -> Measure:
    """Measure in how many of all rows the value is there."""
    column = given.column()
    verdict = Verdict(given)

    def read(values: Sequence[Any]) -> Finding:
        rows, there = values
        return verdict.of(there / rows if rows else 0)

    return given.measure((given.count(), given.filled(column)), read)


def distinct_in_set(given: Given) -> Measure:
    """Measure how many different values are not of the set."""
    return _distinct(given, outside=True, lacking=False)


def distinct_contains_set(given: Given) -> Measure:
    """Measure how many values of the set are not there."""
    return _distinct(given, outside=False, lacking=True)


def distinct_equals_set(given: Given) -> Measure:
    """Measure both."""
    return _distinct(given, outside=True, lacking=True)


def _distinct(given: Given, *, outside: bool, lacking: bool) -> Measure:
    column = typed(given, given.column())
    raw = given.arg("value_set")
    chosen = members(raw, column, "value_set")
    if not raw:
        raise Left("value_set is empty")
    size = len({*raw}) if column.kind in ("integer", "text", "boolean") else len(chosen)
    # Over no value at all Great Expectations counts dates as they are written.
    as_written = len({*raw})
    inside = within(given, column, chosen)
    aggregates = (
        given.over(f"count(DISTINCT {column.sql})"),
        given.over(f"count(DISTINCT {column.sql})", inside),
    )

    def read(values: Sequence[Any]) -> Finding:
        different, found = values
        unexpected, missing = different - found, (size if different else as_written) - found
        result: dict[str, Any] = {"observed_value": None}
        if outside:
            result["unexpected_count"] = unexpected
        if lacking:
            result["missing_count"] = missing
        return Finding(not (outside and unexpected) and not (lacking and missing), result)

    return given.measure(aggregates, read)
