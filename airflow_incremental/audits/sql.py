"""How the SQL of measures is written, where engines differ: for DuckDB, which runs it on the worker, or for Spark.

What is the same in both is written out where it is used. ``FILTER``, ``IS NOT DISTINCT FROM``, ``count(DISTINCT x)``, min and max,
and the order of floats, with NaN above all other values and equal to itself, and zero equal to minus zero, are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import attrs
import pyarrow as pa

from airflow_incremental.engines.filters import quote, text_literal

#: Beyond this a set of values is not spelt out in DuckDB, but joined.
_LISTED = 100

#: What answers a measure.
EngineName = Literal["duckdb", "spark"]


class Inexact(Exception):
    """Why something has no SQL in an engine that is proven to find the same."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@attrs.define
class Sql(ABC):
    """Writes the SQL of one measure.

    :param prefix: what the names of its parameters start with; no two measures of a run share one.
    :param values: values of the parameters named in the SQL so far, by name.
    """

    engine: ClassVar[EngineName]
    #: The relation that is measured.
    rows: ClassVar[str]

    prefix: str = ""
    values: dict[str, Any] = attrs.field(factory=dict)

    def part(self, name: str) -> Sql:
        """Return a writer for one of several measures of an audit."""
        return type(self)(prefix=f"{self.prefix}{name}")

    @abstractmethod
    def quote(self, name: str) -> str:
        """Return the column of a name."""

    @abstractmethod
    def field(self, struct: str, name: str) -> str:
        """Return a field of a struct."""

    @abstractmethod
    def value(self, value: Any, kind: str) -> str:
        """Return a value of a type, which is called as DuckDB calls it."""

    @abstractmethod
    def among(self, sql: str, values: Sequence[Any], kind: str) -> str:
        """Return a predicate: whether something is one of the values, which may be none; null for a null if there are some."""

    @abstractmethod
    def key(self, columns: Sequence[str], types: Sequence[Any]) -> str:
        """Return the values of columns as one, that of a single column as it is.

        :param types: Arrow types of the columns.
        """

    @abstractmethod
    def is_nan(self, sql: str) -> str:
        """Return a predicate: whether a float is NaN; null for a null."""

    @abstractmethod
    def matches(self, sql: str, pattern: str, *, ours: bool = False) -> str:
        """Return a predicate: whether a text holds a match of a pattern that RE2 and Python's ``re`` read alike.

        :param ours: whether the pattern is not the author's.
        """

    @abstractmethod
    def beyond_ascii(self, sql: str) -> str:
        """Return a predicate: whether a text holds a character that is not ASCII."""

    @abstractmethod
    def ends_with(self, sql: str, ending: str) -> str:
        """Return a predicate: whether a text ends with another."""

    @abstractmethod
    def wide(self, sql: str) -> str:
        """Return a whole number as one that does not overflow when a few are added."""

    @abstractmethod
    def summed(self, sql: str, kind: Any) -> tuple[str, str]:
        """Return an aggregate, the exact sum of whole numbers or decimals, in two parts around ``FILTER``: as text at the end.

        :param kind: Arrow type of what is summed.
        """

    @abstractmethod
    def middle(self, sql: str) -> tuple[str, str]:
        """Return aggregates of the lower and the upper of the two values in the middle; of an odd number they are one.

        In Spark they come back as 64-bit floats.
        """


class DuckDBSql(Sql):
    """Writes for DuckDB; values are bound as parameters, never written into the SQL."""

    engine: ClassVar[EngineName] = "duckdb"
    rows: ClassVar[str] = "rows"

    def _bind(self, value: Any) -> str:
        name = f"{self.prefix}_{len(self.values)}"
        self.values[name] = value
        return f"${name}"

    def quote(self, name: str) -> str:
        """Return the column in double quotes."""
        return quote(name)

    def field(self, struct: str, name: str) -> str:
        """Return the field, by ``struct_extract``."""
        # struct_extract with a literal, because "a"."b" could also be read as table a, column b.
        literal = name.replace("'", "''")
        return f"struct_extract({struct}, '{literal}')"

    def value(self, value: Any, kind: str) -> str:
        """Return a parameter, cast."""
        return f"CAST({self._bind(value)} AS {kind})"

    def among(self, sql: str, values: Sequence[Any], kind: str) -> str:
        """Return ``IN``, beyond some values over a joined list."""
        if not values:
            return "FALSE"
        if len(values) > _LISTED:
            return f"({sql} IN (SELECT unnest(CAST({self._bind(list(values))} AS {kind}[]))))"
        return f"({sql} IN ({', '.join(self.value(v, kind) for v in values)}))"

    def key(self, columns: Sequence[str], types: Sequence[Any]) -> str:
        """Return a row."""
        del types  # rows of all types can be grouped
        return columns[0] if len(columns) == 1 else f"row({', '.join(columns)})"

    def is_nan(self, sql: str) -> str:
        """Return ``isnan``."""
        return f"isnan({sql})"

    def matches(self, sql: str, pattern: str, *, ours: bool = False) -> str:
        """Return ``regexp_matches``."""
        return f"regexp_matches({sql}, {text_literal(pattern) if ours else self._bind(pattern)})"

    def beyond_ascii(self, sql: str) -> str:
        """Return a comparison of bytes and characters."""
        return f"strlen({sql}) <> length({sql})"

    def ends_with(self, sql: str, ending: str) -> str:
        """Return ``ends_with``."""
        return f"ends_with({sql}, {text_literal(ending)})"

    def wide(self, sql: str) -> str:
        """Return it with 128 bits."""
        return f"CAST({sql} AS HUGEINT)"

    def summed(self, sql: str, kind: Any) -> tuple[str, str]:
        """Return a sum of 128 bits."""
        # A sum of 64-bit integers is a 128-bit one to DuckDB; as text it comes back whole.
        what = f"CAST({sql} AS INTEGER)" if pa.types.is_boolean(kind) else sql
        return f"CAST(sum({what})", " AS VARCHAR)"

    def middle(self, sql: str) -> tuple[str, str]:
        """Return discrete percentiles."""
        return (
            f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {sql})",
            f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {sql} DESC)",
        )
