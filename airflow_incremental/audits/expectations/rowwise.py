"""Expectations of the values of one column, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations.given import Finding, Given, Left
from airflow_incremental.audits.expectations.typed import (
    Typed,
    bound_of,
    compare,
    members,
    typed,
    within,
)


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


def map_finding(elements: int, unexpected: int, missing: int | None, mostly: float, undecided: str = "") -> Finding:
    """Return what a row-wise expectation found; over no row at all it holds."""
    looked_at = elements - (missing or 0)
    success = looked_at == 0 or (looked_at - unexpected) / looked_at >= mostly
    return Finding(success, map_result(elements, unexpected, missing), undecided)


def over_all(given: Given, offends: str) -> Measure:
    """Measure an expectation that applies to every row."""
    mostly = given.mostly()

    def read(values: Sequence[Any]) -> Finding:
        elements, unexpected = values
        return map_finding(elements, unexpected, None, mostly)

    return given.measure((given.count(), given.count(offends)), read, offends=offends)


def over_some(given: Given, applicable: str, offends: str, *, odd: str | None = None, reason: str = "") -> Measure:
    """Measure an expectation that applies to some rows.

    :param applicable: aggregate that counts the rows it applies to.
    :param offends: predicate that is true for the rows that offend; it may be null for others.
    :param odd: predicate of rows that Great Expectations could judge in another way; ``reason`` says why.
    """
    mostly = given.mostly()
    aggregates = [given.count(), applicable, given.count(offends)]
    if odd is not None:
        aggregates.append(given.count(odd))

    def read(values: Sequence[Any]) -> Finding:
        elements, looked_at, unexpected, *odds = values
        undecided = reason if any(odds) else ""
        return map_finding(elements, unexpected, elements - looked_at, mostly, undecided)

    return given.measure(aggregates, read, offends=offends)


def unique_key(given: Given, applies: str | None, key: str) -> Measure:
    """Measure an expectation of no two rows with one key; offending are all that share theirs.

    :param applies: predicate of the rows that have a key; None: those in which the key is not null.
    """
    mostly = given.mostly()
    having = given.where if applies is None else given.among(applies)
    own = key if having is None else f"CASE WHEN {having} THEN {key} END"
    several = f"SELECT {own} AS key FROM {given.sql.rows} GROUP BY {own} HAVING count(*) > 1"  # noqa: S608
    offends = f"{own} IN (SELECT key FROM ({several}) WHERE key IS NOT NULL)"  # noqa: S608

    def read(values: Sequence[Any]) -> Finding:
        applicable, _, elements, shared = values
        return map_finding(elements, shared, elements - applicable, mostly)

    aggregates = (given.over(f"count({key})", applies), given.over(f"count(DISTINCT {key})", applies), given.count())
    return given.measure(aggregates, read, offends=offends, keys=(own,))


def not_null(given: Given) -> Measure:
    """Measure nulls. To GX's Arrow-backed frames NaN is a value, as it is to SQL."""
    return over_all(given, f"{given.column().sql} IS NULL")


def null(given: Given) -> Measure:
    """Measure what is not null."""
    return over_all(given, f"{given.column().sql} IS NOT NULL")


def unique(given: Given) -> Measure:
    """Measure rows that share their value with another."""
    column = typed(given, given.column())
    return unique_key(given, None, column.sql)


def in_set(given: Given) -> Measure:
    """Measure rows whose value is none of a set.

    Arrow casts one side to the other's type, so only sets of the column's own kind are sure.
    """
    column, inside = _in(given)
    return over_some(given, given.filled(column.column), f"NOT {inside}", **_zero(column))


def not_in_set(given: Given) -> Measure:
    """Measure rows whose value is one of a set."""
    column, inside = _in(given)
    return over_some(given, given.filled(column.column), inside, **_zero(column))


def between(given: Given) -> Measure:
    """Measure rows whose value is not between the bounds; NaN is between none."""
    column = typed(given, given.column())
    low, high = bound_of(given, "min_value", column), bound_of(given, "max_value", column)
    inside = _inside(given, column, low, high)
    return over_some(given, given.filled(column.column), f"NOT ({inside})")


def lengths_between(given: Given) -> Measure:
    """Measure rows whose text is not of such a length, in code points."""
    column = typed(given, given.column())
    length = f"length({column.sql})"
    low, high = given.number("min_value"), given.number("max_value")
    above, below = _strict(given)
    parts = [
        f"{length} {operator} {given.sql.value(float(bound), 'DOUBLE')}"
        for bound, operator in ((low, above), (high, below))
        if bound is not None
    ]
    if not parts:
        raise Left("neither min_value nor max_value is given")
    return over_some(given, given.filled(column.column), f"NOT ({' AND '.join(parts)})")


def lengths_equal(given: Given) -> Measure:
    """Measure rows whose text is not as long, in code points."""
    column = typed(given, given.column())
    value = given.number("value")
    if value is None:
        raise Left("value is not given")
    other = f"length({column.sql}) <> {given.sql.value(float(value), 'DOUBLE')}"
    return over_some(given, given.filled(column.column), other)


def _in(given: Given) -> tuple[Typed, str]:
    column = typed(given, given.column())
    values = given.arg("value_set")
    if column.kind == "integer" and not (isinstance(values, list) and all(isinstance(v, int) for v in values)):
        raise Left("value_set holds values that are no whole numbers")
    chosen = members(values, column, "value_set")
    if column.kind == "float":
        chosen = list(dict.fromkeys(column.domain.members(tuple(chosen))))
    return column, within(given, column, chosen)


def _zero(column: Typed) -> dict[str, str]:
    """Arrow tells zero from minus zero."""
    if column.kind != "float":
        return {}
    return {"odd": f"{column.sql} = 0", "reason": "the column holds zeros, which Arrow tells from minus zeros"}


def _strict(given: Given) -> tuple[str, str]:
    return ">" if given.flag("strict_min") else ">=", "<" if given.flag("strict_max") else "<="


def _inside(given: Given, column: Typed, low: Any, high: Any) -> str:
    if low is None and high is None:
        raise Left("neither min_value nor max_value is given")
    if low is not None and high is not None and low > high:
        raise Left("min_value is greater than max_value")
    above, below = _strict(given)
    parts = [compare(given, column, operator, b) for b, operator in ((low, above), (high, below)) if b is not None]
    return " AND ".join(parts)
