"""Expectations of the number of rows and of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations.given import Finding, Given, Left
from airflow_incremental.audits.expectations.verdict import Verdict


def row_count_between(given: Given) -> Measure:
    """Measure how many rows fulfil the row condition."""
    verdict = Verdict(given)

    def read(values: Sequence[Any]) -> Finding:
        return verdict.of(values[0])

    return given.measure((given.count(),), read)


def row_count_equal(given: Given) -> Measure:
    """Measure how many rows fulfil the row condition."""
    value = _whole(given)

    def read(values: Sequence[Any]) -> Finding:
        return Finding(values[0] == value, {"observed_value": values[0]})

    return given.measure((given.count(),), read)


def column_count_between(given: Given) -> Measure:
    """Judge how many columns there are."""
    return _known(given, Verdict(given).of(len(given.schema.names)))


def column_count_equal(given: Given) -> Measure:
    """Judge how many columns there are."""
    count = len(given.schema.names)
    return _known(given, Finding(count == _whole(given), {"observed_value": count}))


def columns_in_order(given: Given) -> Measure:
    """Judge the columns and their order."""
    actual, expected = list(given.schema.names), _names(given, "column_list")
    result: dict[str, Any] = {"observed_value": actual}
    if actual != expected:
        both = enumerate(zip_longest(expected, actual))
        mismatched = [{"Expected Column Position": i, "Expected": e, "Found": a} for i, (e, a) in both if e != a]
        result["details"] = {"mismatched": mismatched}
    return _known(given, Finding(actual == expected, result))


def columns_in_set(given: Given) -> Measure:
    """Judge the columns in any order; without ``exact_match`` there may be more."""
    actual, expected = set(given.schema.names), set(_names(given, "column_set"))
    exact = given.flag("exact_match", default=True)
    more, less = sorted(actual - expected), sorted(expected - actual)
    result: dict[str, Any] = {"observed_value": sorted(actual)}
    mismatched = {k: v for k, v in (("unexpected", more), ("missing", less)) if v}
    success = not (less or (exact and more))
    if mismatched:
        result["details"] = {"mismatched": mismatched}
    return _known(given, Finding(success, result))


def column_exists(given: Given) -> Measure:
    """Judge whether there is a column of a name, with ``column_index`` at that place."""
    name, place = given.arg("column"), given.arg("column_index")
    if not isinstance(name, str) or not (place is None or (isinstance(place, int) and place >= 0)):
        raise Left("the column or its place cannot be read")
    names = given.schema.names
    exists = name in names if not place else names[place : place + 1] == [name]
    return _known(given, Finding(exists, {}))


def _known(given: Given, finding: Finding) -> Measure:
    """Measure what the schema says, without a look at a row."""
    return given.measure((), lambda _values: finding)


def _whole(given: Given) -> int:
    value = given.number("value")
    if not isinstance(value, int):
        raise Left("value is not a whole number")
    return value


def _names(given: Given, what: str) -> list[str]:
    names = given.arg(what)
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise Left(f"{what} is not a list of names")
    return names
