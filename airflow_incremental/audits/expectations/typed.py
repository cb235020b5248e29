"""What kind of values a column holds, and SQL that compares them as Python does.

To Great Expectations the values of an Arrow-backed frame are Python's: an integer or a decimal is compared with a float
exactly, with neither rounded to the other, and NaN is neither less nor more than anything.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.audits.columns import Column
from airflow_incremental.audits.domains import Domain, domain_of
from airflow_incremental.audits.expectations.given import Given, Kind, Left, is_number

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?(\+00:00)?", re.ASCII)
_TYPES: tuple[tuple[Kind, Any], ...] = (
    ("integer", lambda t: pa.types.is_int32(t) or pa.types.is_int64(t)),
    ("float", lambda t: pa.types.is_float32(t) or pa.types.is_float64(t)),
    ("decimal", pa.types.is_decimal128),
    ("text", lambda t: pa.types.is_string(t) or pa.types.is_large_string(t)),
    ("boolean", pa.types.is_boolean),
    ("date", pa.types.is_date32),
    ("timestamp", lambda t: pa.types.is_timestamp(t) and t.unit == "us" and t.tz in (None, "UTC")),
    ("binary", lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t)),
)


@attrs.frozen
class Typed:
    """A column and the kind of its values."""

    column: Column
    kind: Kind

    @property
    def sql(self) -> str:
        """SQL that reads it."""
        return self.column.sql

    @property
    def real(self) -> str:
        """SQL that reads it as a 64-bit float."""
        return f"CAST({self.sql} AS DOUBLE)"

    @property
    def domain(self) -> Domain:
        """The values it can hold."""
        found = domain_of(self.column.type)
        if found is None:
            raise Left(f"its values are {self.kind}")
        return found


def typed(given: Given, column: Column, kinds: Sequence[Kind] = ()) -> Typed:
    """Return a column with its kind, if that is one of ``kinds``, or else of the expectation's."""
    kind: Kind = next((k for k, fits in _TYPES if fits(column.type)), "other")
    if kind not in (kinds or given.kinds):
        raise Left(f"a column of type {column.type} has no SQL that is proven equal")
    return Typed(column, kind)


def moment(text: Any, column: Typed) -> dt.date:
    """Return a date or a time that is written in the one way that every reader reads alike."""
    zone = column.kind == "timestamp" and column.column.type.tz is not None
    try:
        if column.kind == "date" and isinstance(text, str) and _DAY.fullmatch(text):
            return dt.date.fromisoformat(text)
        if column.kind == "timestamp" and isinstance(text, str) and _MOMENT.fullmatch(text):
            found = dt.datetime.fromisoformat(text)
            if (found.tzinfo is not None) == zone:
                return found
    except ValueError:
        pass
    form = "a date as 2026-01-31" if column.kind == "date" else "a time as 2026-01-31T12:00:00" + "+00:00" * zone
    raise Left(f"a value for the column {column.column.path} is not {form}")


def bound_of(given: Given, name: str, column: Typed) -> Any:
    """Return an argument that bounds a column: a float, or a date or time."""
    if given.arg(name) is None:
        return None
    if column.kind in ("date", "timestamp"):
        return moment(given.arg(name), column)
    number = given.number(name)
    return None if number is None else float(number)


def compare(given: Given, column: Typed, operator: str, bound: Any) -> str:
    """Return a predicate: whether ``operator`` holds of the value and the bound; null for a null.

    :param operator: ``<``, ``<=``, ``>`` or ``>=``.
    """
    if column.kind == "float":  # to SQL NaN is more than any number
        return f"(NOT {given.sql.is_nan(column.sql)} AND {column.real} {operator} {given.sql.value(bound, 'DOUBLE')})"
    if column.kind in ("integer", "decimal"):
        domain = column.domain
        exact: Any = Fraction(bound)
        value = domain.bound(exact, round_up=operator in (">=", "<"))
        if isinstance(value, float) and math.isinf(value):
            return _always(column) if (value < 0) == operator.startswith(">") else _never(column)
        return f"({column.sql} {operator} {given.sql.value(value, domain.sql)})"
    if column.kind == "boolean":
        return f"(CAST({column.sql} AS INTEGER) {operator} {given.sql.value(bound, 'DOUBLE')})"
    return f"({column.sql} {operator} {given.sql.value(bound, column.domain.sql)})"


def members(values: Any, column: Typed, name: str) -> list[Any]:
    """Return the values of a set that are of the column's kind, each once; those the column cannot hold are left out.

    :raises Left: if one is of another kind: what that does differs from one library to the next.
    """
    if not isinstance(values, list):
        raise Left(f"{name} is not a list of values")
    others: dict[Kind, Callable[[Any], bool]] = {
        "text": lambda v: isinstance(v, str),
        "boolean": lambda v: isinstance(v, bool),
        "date": lambda v: moment(v, column) is not None,
        "timestamp": lambda v: moment(v, column) is not None,
    }
    fits = others.get(column.kind, is_number)
    if not all(fits(v) for v in values):
        raise Left(f"{name} holds a value that is not of the kind of the column {column.column.path}")
    if column.kind in ("date", "timestamp"):
        return list(dict.fromkeys(moment(v, column) for v in values))
    if column.kind in ("integer", "decimal"):
        exact: Any = tuple(dict.fromkeys(Fraction(v) for v in values))
        return column.domain.members(exact)
    return list(dict.fromkeys(values))


def within(given: Given, column: Typed, values: Sequence[Any]) -> str:
    """Return a predicate: whether the value is one of ``values``; null for a null."""
    if not values:
        return _never(column)
    what = column.real if column.kind == "float" else column.sql
    return given.sql.among(what, values, column.domain.sql)


def _always(column: Typed) -> str:
    return f"({column.sql} IS NOT NULL OR NULL)"


def _never(column: Typed) -> str:
    return f"({column.sql} IS NULL AND NULL)"
