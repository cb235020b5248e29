"""What parameters of signals are made of: strings, integers, dates and timestamps, each with its order.

A value has three forms: Python's (``str``, ``int``, ``date``, ``datetime`` with zone), a plain one for template fields and JSON
(text, number, ``{"date": ...}``, ``{"timestamp": ...}``), and an encoded text that sorts as the values do, which is what the store
keeps and compares. (Maestro encodes its strings and longs into one indexed column in the same way.)
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal, get_args

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import UTC

Kind = Literal["string", "integer", "date", "timestamp"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Value = str | int | dt.date | dt.datetime

#: Of a string, in characters: it is part of an index.
STRING_LIMIT = 512
#: Integers are 64 bits wide.
_LEAST, _GREATEST = -(2**63), 2**63 - 1
_ORDERS = "strings by code point, integers by size, dates and timestamps by time"
#: First letter of an encoded value; values of two kinds are never equal, and never compared.
_MARKS: Mapping[str, Kind] = {"s": "string", "i": "integer", "d": "date", "t": "timestamp"}


def read_value(value: Any, *, what: str) -> Value:
    """Return a value from Python's or the plain form.

    :param what: the parameter, for the error.
    :raises ArgumentError: it is none of the kinds, a timestamp without zone, an integer beyond 64 bits, or too long a string.
    """
    if isinstance(value, Mapping):
        return _read_tagged(value, what)
    if isinstance(value, bool) or not isinstance(value, (str, int, dt.date)):
        raise ArgumentError(
            f"{what} is {value!r}, a {type(value).__name__}",
            expected="a string, an integer, a date or a timestamp with zone",
            hint="put other things into the payload, which is free JSON",
        )
    if isinstance(value, dt.datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise ArgumentError(
                f"{what} is {value.isoformat()!r}, a timestamp without zone", expected="one with a time zone"
            )
        return _read_moment(value, what)
    # Of a subclass, such as an enumeration's or that of another library, the plain value: its own text may be another one.
    if isinstance(value, str):
        return _read_string(str.__str__(value), what)
    if isinstance(value, dt.date):
        return dt.date(value.year, value.month, value.day)
    if not _LEAST <= value <= _GREATEST:
        raise ArgumentError(f"{what} is {value}", expected="an integer of 64 bits", hint="write it as a string")
    return int(value)


def read_as(kind: Kind, value: Value, *, what: str) -> Value:
    """Return a value as one of a kind: itself, or what a text says, because what a template renders is always text.

    :param what: the parameter, for the error.
    :raises ArgumentError: the value is of another kind, and no text that could be read as this one.
    """
    if kind_of(value) == kind:
        return value
    if isinstance(value, str) and kind != "string":
        return read_value(_parse(kind, value, what), what=what)
    raise ArgumentError(
        f"{what} is {value!r}, {_a(kind_of(value))}, but this parameter is {_a(kind)}",
        expected=f"values of one kind for each parameter ({_ORDERS})",
        hint=f"give it as {_a(kind)}; a parameter has the kind of its first signal for good",
    )


def kind_of(value: Value) -> Kind:
    """Return the kind of a value."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    return "timestamp" if isinstance(value, dt.datetime) else "date"


def plain_value(value: Value) -> str | int | dict[str, str]:
    """Return the plain form, which ``read_value`` reads again."""
    if isinstance(value, dt.datetime):
        return {"timestamp": value.astimezone(UTC).isoformat()}
    return {"date": value.isoformat()} if isinstance(value, dt.date) else value


def encode(value: Value) -> str:
    """Return the text that sorts, by its bytes, among the texts of values of the same kind as the value does among them."""
    if isinstance(value, str):
        return f"s{value}"
    if isinstance(value, int):
        return f"i{value - _LEAST:020d}"
    if isinstance(value, dt.datetime):
        return f"t{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}"
    return f"d{value.isoformat()}"


def decode(text: str) -> Value:
    """Read what ``encode`` wrote."""
    kind, rest = _MARKS[text[0]], text[1:]
    if kind == "string":
        return rest
    if kind == "integer":
        return int(rest) + _LEAST
    return dt.date.fromisoformat(rest) if kind == "date" else dt.datetime.fromisoformat(rest).replace(tzinfo=UTC)


def as_timestamp(value: str | dt.datetime) -> dict[str, str]:
    """Mark a text, which may be templated, as a timestamp.

    For example ``{"hour": as_timestamp("{{ data_interval_end }}")}``.
    """
    return {"timestamp": value.isoformat() if isinstance(value, dt.datetime) else value}


def as_date(value: str | dt.date) -> dict[str, str]:
    """Mark a text, which may be templated, as a date.

    For example ``{"day": as_date("{{ ds }}")}``.
    """
    return {"date": value.isoformat() if isinstance(value, dt.date) else value}


def as_integer(value: str | int) -> dict[str, str]:
    """Mark a text, which may be templated, as an integer.

    For example ``{"batch": as_integer("{{ params.batch }}")}``.
    """
    # What another task will say stays as it is, or Airflow would not know that the task waits for it.
    return {"integer": str(value) if isinstance(value, int) else value}


def _read_tagged(value: Mapping[Any, Any], what: str) -> Value:
    tags = list(value)
    said = value[tags[0]] if len(tags) == 1 and tags[0] in KINDS else None
    # A template that is rendered to Python's own values, and what another task has said, may be of the kind already.
    if isinstance(said, (int, dt.date)) and not isinstance(said, bool) and kind_of(said) == tags[0]:
        return read_value(said, what=what)
    if not isinstance(said, str):
        raise ArgumentError(
            f"{what} is {dict(value)!r}",
            expected=f"a value, or one text under the name of its kind ({', '.join(KINDS)})",
            hint="write as_timestamp(...), as_date(...) or as_integer(...)",
        )
    return read_value(_parse(tags[0], said, what), what=what)


def _read_moment(value: dt.datetime, what: str) -> dt.datetime:
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise ArgumentError(
            f"{what} is {value.isoformat()!r}", expected="a time in the years 1 to 9999 in UTC"
        ) from None
    return dt.datetime(*moment.timetuple()[:6], moment.microsecond, tzinfo=UTC)


def _read_string(value: str, what: str) -> str:
    if len(value) > STRING_LIMIT:
        raise ArgumentError(
            f"{what} has {len(value):,} characters",
            expected=f"at most {STRING_LIMIT}",
            hint="put long texts into the payload",
        )
    # PostgreSQL stores no NUL, and half a surrogate pair is no text in any encoding.
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise ArgumentError(f"{what} is {value!r}", expected="a text without NUL characters and lone surrogates")
    return value


def _parse(kind: Kind, text: str, what: str) -> Any:
    try:
        if kind == "integer":
            return int(text)
        if kind == "date":
            return dt.date.fromisoformat(text.strip())
        # Python 3.10 does not know the Z.
        return dt.datetime.fromisoformat(text.strip().replace("Z", "+00:00")) if kind == "timestamp" else text
    except ValueError as error:
        wanted = {
            "integer": "digits",
            "date": "YYYY-MM-DD",
            "timestamp": "ISO 8601 with zone, such as 2023-09-14T06:00:00+00:00",
        }
        raise ArgumentError(f"{what} is {text!r}, which is not {_a(kind)}", expected=wanted[kind]) from error


def _a(kind: Kind) -> str:
    return f"an {kind}" if kind == "integer" else f"a {kind}"
