"""The values an audit compares a column with: what kinds there are, how they are checked and how written as JSON."""

from __future__ import annotations

import datetime as dt
import enum
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import UTC, format_time, parse_time, utc

#: A value of a kind below; times are timezone-aware and in UTC.
Value = bool | int | float | Decimal | dt.date | dt.datetime | str


class Kind(str, enum.Enum):
    """Values that can be compared with one another; the name is how messages call them."""

    BOOLEAN = "booleans"
    NUMBER = "numbers"
    DATE = "dates"
    TIMESTAMP = "times"
    STRING = "strings"


def kind_of(value: Value) -> Kind:
    """Return the kind of a checked value."""
    if isinstance(value, bool):
        return Kind.BOOLEAN
    if isinstance(value, (int, float, Decimal)):
        return Kind.NUMBER
    if isinstance(value, dt.datetime):
        return Kind.TIMESTAMP
    return Kind.DATE if isinstance(value, dt.date) else Kind.STRING


def checked(value: Any, *, what: str) -> Value:
    """Return ``value`` as a plain value of its kind, so that equal audits serialise equally.

    :param what: how an error names the value.
    :raises ArgumentError: for other types, naive times, and numbers that no column could be compared with.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float, Decimal)):
        return _number(value, what=what)
    if isinstance(value, dt.datetime):
        moment = utc(value, what=what)
        return dt.datetime.combine(dt.date(moment.year, moment.month, moment.day), dt.time(*_clock(moment)), tzinfo=UTC)
    if isinstance(value, dt.date):
        return dt.date(value.year, value.month, value.day)
    if isinstance(value, str):
        return _text(value, what=what)
    raise ArgumentError(
        f"{what} is {value!r} ({type(value).__name__})",
        expected="a number, a string, a boolean, a date or a timezone-aware datetime",
        hint="convert it, for example with int(), float(), str() or datetime.fromisoformat()",
    )


def _clock(moment: dt.datetime) -> tuple[int, int, int, int]:
    return moment.hour, moment.minute, moment.second, moment.microsecond


def _number(value: float | Decimal, *, what: str) -> int | float | Decimal:
    try:
        nearest = float(value)
    except (OverflowError, ValueError):
        nearest = math.inf
    if not math.isfinite(nearest) or (nearest == 0) != (value == 0):
        raise ArgumentError(
            f"{what} is {value if isinstance(value, (float, Decimal)) else 'an integer of more than 308 digits'}",
            expected="a finite number of the size a float can hold",
            hint="leave a bound out instead of giving an infinite one",
        )
    if isinstance(value, Decimal):
        return Decimal(value)
    return float(value) if isinstance(value, float) else int(value)


def _text(value: str, *, what: str) -> str:
    plain = str.__str__(value)
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"{what} is {plain!r}", expected="text that can be written as UTF-8") from None
    return plain


def encode(value: Value) -> Any:
    """Return a JSON value; decimals, dates and times are wrapped so that they come back as what they were."""
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, dt.datetime):
        return {"time": format_time(value)}
    if isinstance(value, dt.date):
        return {"date": value.isoformat()}
    return value


def decode(value: Any, *, what: str) -> Any:
    """Read what ``encode`` wrote; other values come back as they are, to be checked by the audit they belong to."""
    if not isinstance(value, Mapping):
        return value
    try:
        ((kind, text),) = value.items()
        if kind == "decimal":
            return Decimal(text)
        if kind == "time":
            return parse_time(text, what=what)
        if kind == "date":
            return dt.date.fromisoformat(text)
    except (ValueError, TypeError, ArithmeticError):
        pass
    raise ArgumentError(
        f"{what} is {dict(value)!r}",
        expected="a plain value, {'decimal': '1.20'}, {'date': '2024-01-31'} or {'time': '2024-01-31T00:00:00Z'}",
    )


def show(value: Value) -> str:
    """Return a value as messages write it."""
    if isinstance(value, dt.datetime):
        return format_time(value)
    return repr(value) if isinstance(value, str) else str(value)
