"""One expectation while it is turned into SQL: its arguments, checked, its rows, and the values its SQL binds.

What is built from it must give Great Expectations' own verdict and numbers. Where that is not sure, ``Left`` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import attrs
import pyarrow as pa

from airflow_incremental.audits.columns import Column, resolve
from airflow_incremental.audits.compile import Counts, Measure
from airflow_incremental.audits.expectations.expectation import Expectation
from airflow_incremental.audits.sql import Sql

#: Up to here every whole number is a float.
_EXACT = 2**53
#: What kind of values a column holds.
Kind = Literal["integer", "float", "decimal", "text", "boolean", "date", "timestamp", "binary", "other"]
#: Aggregates that come back as one value each, and what makes of them the verdict and the ``result`` of a validation.
Reading = Callable[[Sequence[Any]], "Finding"]


class Left(Exception):
    """Why an expectation is left to Great Expectations."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@attrs.frozen
class Finding:
    """What an expectation found: Great Expectations' ``success`` and ``result``, and why it is not to be trusted, if so."""

    success: bool
    result: Mapping[str, Any]
    undecided: str = ""


@attrs.define
class Given:
    """One expectation over rows of a schema.

    :param sql: writes its SQL.
    :param kinds: the kinds of columns for which its SQL is proven equal.
    :param where: SQL of its row condition, over ``rows``; None if it has none.
    """

    expectation: Expectation
    schema: pa.Schema
    sql: Sql
    kinds: tuple[Kind, ...] = ()
    where: str | None = None

    def arg(self, name: str, default: Any = None) -> Any:
        """Return an argument; null is as good as none, as in Great Expectations' own files."""
        value = self.expectation.kwargs.get(name)
        return default if value is None else value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return an argument that is true or false."""
        value = self.arg(name, default)
        if not isinstance(value, bool):
            raise Left(f"{name} is neither true nor false")
        return value

    def choice(self, name: str, options: Collection[str], default: str) -> str:
        """Return an argument that is one of a few words."""
        value = self.arg(name, default)
        if not isinstance(value, str) or value not in options:
            raise Left(f"{name} is none of {', '.join(options)}")
        return value

    def number(self, name: str) -> int | float | None:
        """Return an argument that is a finite number, or None if it is not given."""
        value = self.arg(name)
        if value is None or is_number(value):
            return value  # type: ignore[no-any-return]
        raise Left(f"{name} is not a number that a float holds exactly")

    def mostly(self) -> float:
        """Return which part of the rows has to be as expected."""
        value = self.number("mostly")
        if value is None:
            return 1.0
        if not 0 <= value <= 1:
            raise Left("mostly is not between 0 and 1")
        return float(value)

    def column(self, name: str = "column") -> Column:
        """Return the column an argument names."""
        return self.named(self.arg(name), name)

    def named(self, path: Any, what: str) -> Column:
        """Return the column of a name."""
        if not isinstance(path, str):
            raise Left(f"{what} is not the name of a column")
        found = resolve(self.schema, path, audit=self.expectation.name, sql=self.sql)
        if path not in self.schema.names:
            raise Left("Great Expectations knows no fields of structs")
        return found

    def among(self, predicate: str) -> str:
        """Return a predicate true for the rows that fulfil the row condition and it."""
        return predicate if self.where is None else f"({self.where}) AND ({predicate})"

    def count(self, predicate: str | None = None) -> str:
        """Return an aggregate: how many rows of those that fulfil the row condition are as the predicate says."""
        where = self.where if predicate is None else self.among(predicate)
        return "count(*)" if where is None else f"count(*) FILTER (WHERE {where})"

    def filled(self, column: Column) -> str:
        """Return an aggregate: how many rows of those that fulfil the row condition have a value in a column."""
        return self.over(f"count({column.sql})")

    def over(self, aggregate: str, predicate: str | None = None) -> str:
        """Return an aggregate over the rows that fulfil the row condition and the predicate."""
        where = self.where if predicate is None else self.among(predicate)
        return aggregate if where is None else f"{aggregate} FILTER (WHERE {where})"

    def measure(
        self, aggregates: Sequence[str], read: Reading, *, offends: str | None = None, keys: tuple[str, ...] = ()
    ) -> Measure:
        """Return the measure.

        :param read: takes the aggregates' values.
        :param offends: predicate of the rows that are not as expected, among those that fulfil the row condition.
        """

        def counts(total: int, values: Sequence[Any]) -> Counts:
            found = read(values)
            elements = found.result.get("element_count")
            by_row = elements is not None  # else it is one of the rows as a whole
            return Counts(
                checked=elements - found.result.get("missing_count", 0) if by_row else total,
                offending=found.result["unexpected_count"] if by_row else int(not found.success),
                message="",
                passed=found.success,
                full=found.result,
                undecided=found.undecided,
            )

        e = self.expectation
        return Measure(
            name=e.name,
            kind=e.type,
            severity=e.severity,
            aggregates=tuple(aggregates),
            read=counts,
            # Never null, so that whoever keeps the rows that do not offend keeps all of them.
            offends=None if offends is None else f"coalesce({self.among(offends)}, FALSE)",
            values=dict(self.sql.values),
            keys=keys,
        )


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that stays what it is as a float: Great Expectations makes floats of bounds.

    A boolean is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= _EXACT
