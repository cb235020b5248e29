"""Row conditions as SQL: what Great Expectations gives to ``DataFrame.query``, in its three ways to write one.

To a comparison with a null the answer is null, which leaves the row out; a null is in no list, so it is ``not in`` every one.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping
from typing import Any

from airflow_incremental.audits.expectations.given import Given, Left, is_number
from airflow_incremental.audits.expectations.typed import Typed, compare, members, typed, within

_GX_PARSERS = ("great_expectations", "great_expectations__experimental__")
_NUMBER = r"(?P<number>-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?)"
_TEXT = r"""(?P<text>"[A-Za-z0-9 _.:/-]*"|'[A-Za-z0-9 _.:/-]*')"""
_OPERATOR = r"(?P<operator>==|!=|<=|>=|<|>)"
_GX = re.compile(
    rf"""\s*col\("(?P<name>[A-Za-z0-9_]+)"\)\s*"""
    rf"""(?:(?P<present>\.notnull\(\))|{_OPERATOR}\s*(?:(?P<text>"[A-Za-z0-9 _.:/-]+")|{_NUMBER}))\s*""",
    re.ASCII,
)
_PANDAS = re.compile(
    rf"\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*"
    rf"(?:(?P<present>\.notnull\(\)|\.notna\(\))|(?P<missing>\.isnull\(\)|\.isna\(\))|{_OPERATOR}\s*(?:{_TEXT}|{_NUMBER}))\s*",
    re.ASCII,
)
_AND = re.compile(r"\s+and\s+")
_MOST = 100


def condition(given: Given) -> str | None:
    """Return a predicate of the rows an expectation is about, or None if it is about all.

    :raises Left: if it cannot be said in SQL with certainty.
    """
    found, parser = given.arg("row_condition"), given.arg("condition_parser")
    if found is None:
        return None
    if isinstance(found, str):
        if parser in _GX_PARSERS:
            return _read(given, [found], _GX)
        if parser not in (None, "pandas"):
            raise Left("the condition_parser is unknown")
        return _read(given, _AND.split(found), _PANDAS)
    return _of(given, found, 0)


def _read(given: Given, parts: list[str], form: re.Pattern[str]) -> str:
    each: list[str] = []
    for part in parts:
        one = form.fullmatch(part)
        if one is None or keyword.iskeyword(one["name"]) or one["name"] == "index":
            raise Left("the row condition is not one of the simple forms")
        fields = one.groupdict()
        if fields["operator"] is None:
            each.append(_null(given, fields["name"], is_null=fields.get("missing") is not None))
        else:
            value = fields["text"][1:-1] if fields["text"] is not None else json.loads(fields["number"])
            each.append(_compared(given, fields["name"], fields["operator"], value))
    return " AND ".join(each)


def _of(given: Given, found: Any, depth: int) -> str:
    """Return the predicate of a condition in its JSON form."""
    if not isinstance(found, Mapping):
        raise Left("the row condition is neither text nor an object")
    kind, column = found.get("type"), found.get("column")
    name = column.get("name") if isinstance(column, Mapping) else None
    if kind in ("and", "or"):
        parts = found.get("conditions")
        if not isinstance(parts, list) or not parts or len(parts) > _MOST or depth > 1:
            raise Left("the row condition has no parts, or too many")
        return "(" + f" {kind.upper()} ".join(f"({_of(given, p, depth + 1)})" for p in parts) + ")"
    if kind == "nullity" and isinstance(found.get("is_null"), bool):
        return _null(given, name, is_null=found["is_null"])
    if kind == "comparison":
        return _compared(given, name, found.get("operator"), found.get("parameter"))
    if kind == "pass_through" and isinstance(found.get("pass_through_filter"), str):
        return _read(given, _AND.split(found["pass_through_filter"]), _PANDAS)
    raise Left(f"the row condition is of the type {kind!r}")


def _null(given: Given, name: Any, *, is_null: bool) -> str:
    return f"{given.named(name, 'row_condition').sql} IS {'' if is_null else 'NOT '}NULL"


def _compared(given: Given, name: Any, operator: Any, value: Any) -> str:
    column = typed(given, given.named(name, "row_condition"), ("integer", "float", "text"))
    if column.column.type == "float" or column.column.path == "index":
        raise Left("32-bit floats are compared in a way of their own")
    if operator in ("IN", "NOT_IN"):
        if column.kind == "float" or not isinstance(value, list) or not value:
            raise Left("a list in the row condition is empty, or of floats")
        inside = within(given, column, _whole(column, value))
        return (
            f"({column.sql} IS NOT NULL AND {inside})"
            if operator == "IN"
            else f"({column.sql} IS NULL OR NOT {inside})"
        )
    if operator in ("==", "!="):
        chosen = _whole(column, [value])
        if column.kind == "float":
            equal = f"{column.sql} = {given.sql.value(float(value), 'DOUBLE')}"
            return f"({equal})" if operator == "==" else f"NOT ({equal})"
        equal = within(given, column, chosen)
        if operator == "==":
            return equal
        # To DataFrame.query, text that is not equal is text that is not in a list of one.
        return f"NOT {equal}" if column.kind == "integer" else f"({column.sql} IS NULL OR NOT {equal})"
    if operator in ("<", "<=", ">", ">="):
        if column.kind == "text":
            raise Left("text is compared by order in the row condition")
        _whole(column, [value])
        return compare(given, column, operator, float(value))
    raise Left("the row condition compares with an unknown operator")


def _whole(column: Typed, values: list[Any]) -> list[Any]:
    """Return values to compare a column with, as the column has them."""
    if column.kind == "integer" and not all(isinstance(v, int) and is_number(v) for v in values):
        raise Left("the row condition compares whole numbers with others")
    return members(values, column, "row_condition")
