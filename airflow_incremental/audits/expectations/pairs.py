"""Expectations of several columns, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations.given import Given, Left, is_number
from airflow_incremental.audits.expectations.rowwise import over_some, unique_key
from airflow_incremental.audits.expectations.typed import Typed, typed

_NULL_LEFT = "a null is compared, which Arrow-backed frames cannot do"
_LISTED = 100
_PAIR = 2


def pair_equal(given: Given) -> Measure:
    """Measure rows whose two values are not equal; NaN is not equal to NaN."""
    a, b = _pair(given)
    equal = f"({a.real} = {b.real} AND NOT {given.sql.is_nan(a.sql)})" if a.kind == "float" else f"{a.sql} = {b.sql}"
    return _compared(given, a, b, equal)


def pair_greater(given: Given) -> Measure:
    """Measure rows whose first value is not greater; NaN is not greater than anything."""
    a, b = _pair(given)
    operator = ">=" if given.flag("or_equal") else ">"
    if a.kind == "float":  # to SQL NaN is greater than any number
        nan = given.sql.is_nan
        greater = f"({a.real} {operator} {b.real} AND NOT {nan(a.sql)} AND NOT {nan(b.sql)})"
    else:
        greater = f"{a.sql} {operator} {b.sql}"
    return _compared(given, a, b, greater)


def pair_in_set(given: Given) -> Measure:
    """Measure rows whose two values are no pair of the set; a null is equal to a null."""
    a, b = (typed(given, given.column(f"column_{x}")) for x in "AB")
    pairs = given.arg("value_pairs_set")
    if not isinstance(pairs, list) or len(pairs) > _LISTED:
        raise Left(f"value_pairs_set is no list of at most {_LISTED} pairs")
    if not all(isinstance(p, list) and len(p) == _PAIR and _fits(a, p[0]) and _fits(b, p[1]) for p in pairs):
        raise Left("value_pairs_set holds what is no pair of values of the columns' kinds")
    inside = " OR ".join(f"({_is(given, a, x)} AND {_is(given, b, y)})" for x, y in pairs) or "FALSE"
    applies, _ = _applies(given, (a, b), ("both_values_are_missing", "either_value_is_missing", "neither"))
    return over_some(given, given.count(applies), f"({applies}) AND NOT ({inside})")


def sum_equal(given: Given) -> Measure:
    """Measure rows whose values do not add up."""
    columns = _several(given)
    value = given.number("sum_total")
    if value is None:
        raise Left("sum_total is not given")
    added = " + ".join(given.sql.wide(c.sql) for c in columns)
    applies, nulls = _applies(given, columns, _SEVERAL)
    widest = min(c.domain.high for c in columns)
    odd = f"({nulls}) OR NOT ({added}) BETWEEN {-widest} AND {widest}"
    offends = f"({applies}) AND ({added}) <> {given.sql.value(float(value), 'DOUBLE')}"
    return over_some(
        given, given.count(applies), offends, odd=odd, reason=f"{_NULL_LEFT}, or a sum is beyond its columns' type"
    )


def compound_unique(given: Given) -> Measure:
    """Measure rows that share their values in all the columns with another; a null is equal to a null."""
    columns = _several(given)
    applies, _ = _applies(given, columns, _SEVERAL)
    return unique_key(given, f"({applies})", given.sql.key([c.sql for c in columns], [c.column.type for c in columns]))


def within_record_unique(given: Given) -> Measure:
    """Measure rows in which two of the columns agree; a null is equal to a null."""
    columns = _several(given)
    if len({c.column.type for c in columns}) > 1:
        raise Left("the columns are of different types")
    applies, _ = _applies(given, columns, _SEVERAL)
    agree = " OR ".join(f"{a.sql} IS NOT DISTINCT FROM {b.sql}" for a, b in combinations(columns, 2))
    return over_some(given, given.count(applies), f"({applies}) AND ({agree})")


_SEVERAL = ("all_values_are_missing", "any_value_is_missing", "never")


def _pair(given: Given) -> tuple[Typed, Typed]:
    a, b = (typed(given, given.column(f"column_{x}")) for x in "AB")
    alike = a.kind == b.kind and (a.kind in ("integer", "float", "text") or a.column.type == b.column.type)
    if not alike:
        raise Left("the columns are of different types")
    return a, b


def _several(given: Given) -> list[Typed]:
    names = given.arg("column_list")
    if not isinstance(names, list) or len(names) < _PAIR or len(set(map(str, names))) < len(names):
        raise Left("column_list is no list of two or more different columns")
    return [typed(given, given.named(n, "column_list")) for n in names]


def _applies(given: Given, columns: Sequence[Typed], words: tuple[str, str, str]) -> tuple[str, str]:
    """Return a predicate of the rows that are looked at, and of those of them that hold a null.

    :param words: what ``ignore_row_if`` may say: that all, that any, or that no value is missing. The first is the default.
    """
    ignored = given.choice("ignore_row_if", words, words[0])
    some = " OR ".join(f"{c.sql} IS NOT NULL" for c in columns)
    every = " AND ".join(f"{c.sql} IS NOT NULL" for c in columns)
    applies = {words[0]: some, words[1]: every, words[2]: "TRUE"}[ignored]
    return applies, f"({applies}) AND NOT ({every})"


def _compared(given: Given, a: Typed, b: Typed, holds: str) -> Measure:
    words = ("both_values_are_missing", "either_value_is_missing", "neither")
    applies, nulls = _applies(given, (a, b), words)
    return over_some(given, given.count(applies), f"({applies}) AND NOT ({holds})", odd=nulls, reason=_NULL_LEFT)


def _fits(column: Typed, value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, str) if column.kind == "text" else isinstance(value, int) and is_number(value)


def _is(given: Given, column: Typed, value: Any) -> str:
    if value is None:
        return f"{column.sql} IS NULL"
    kind = "VARCHAR" if column.kind == "text" else "BIGINT"
    return f"{column.sql} IS NOT DISTINCT FROM {given.sql.value(value, kind)}"
