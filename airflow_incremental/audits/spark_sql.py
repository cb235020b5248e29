"""How the SQL of measures is written for Spark, 3.5 and later, in a session with ANSI mode on and the time zone UTC.

Values are written into the SQL: as they get there in a file, there is nothing to bind them to. Text that is more than plain
letters is written as its bytes, so that no setting of Spark's parser, nor a variable it would replace, can make it another.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, ClassVar

import pyarrow as pa

from airflow_incremental.audits.sql import EngineName, Inexact, Sql

#: Spark's names of types that DuckDB calls otherwise.
_TYPES = {"VARCHAR": "STRING", "TIMESTAMPTZ": "TIMESTAMP", "TIMESTAMP": "TIMESTAMP_NTZ"}
_KNOWN = re.compile(r"BOOLEAN|INTEGER|BIGINT|DOUBLE|DATE|STRING|TIMESTAMP|TIMESTAMP_NTZ|DECIMAL\(\d+,\d+\)")
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9 _.,:;/@+*()<>=-]*")
#: A class of characters, an escape, the beginning of a named group, or one character.
_PATTERN_PART = re.compile(r"\[(?:\\.|[^\\\]])*\]|\\.|\(\?P<\w+>|.", re.DOTALL)
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_WIDEST = 38


class SparkSql(Sql):
    """Writes for Spark."""

    engine: ClassVar[EngineName] = "spark"
    #: A name that no column has: to Spark, a field of a column that is called as the relation could be a column of it.
    rows: ClassVar[str] = "incremental_rows"

    def quote(self, name: str) -> str:
        """Return the column in backticks."""
        return f"`{name.replace('`', '``')}`"

    def field(self, struct: str, name: str) -> str:
        """Return the field after a dot."""
        return f"{struct}.{self.quote(name)}"

    def value(self, value: Any, kind: str) -> str:
        """Return a literal."""
        return literal(value, _TYPES.get(kind, kind))

    def among(self, sql: str, values: Sequence[Any], kind: str) -> str:
        """Return ``IN``, of as many values as there are."""
        if not values:
            return "FALSE"
        listed = ", ".join(self.value(v, kind) for v in values)
        return f"({sql} IN ({listed}))"

    def key(self, columns: Sequence[str], types: Sequence[Any]) -> str:
        """Return a struct."""
        if any(_holds_map(t) for t in types):
            raise Inexact("Spark does not group rows by maps")
        if len(columns) == 1:
            return columns[0]
        # Not struct(...), of which the parser makes several values before IN.
        fields = ", ".join(f"'c{i}', {c}" for i, c in enumerate(columns))
        return f"named_struct({fields})"

    def is_nan(self, sql: str) -> str:
        """Return a comparison with NaN."""
        return f"({sql} = CAST('NaN' AS DOUBLE))"  # Spark's isnan is false for a null

    def matches(self, sql: str, pattern: str, *, ours: bool = False) -> str:
        """Return ``RLIKE`` of the pattern as Java reads it."""
        del ours  # all are written into the SQL
        return f"({sql} RLIKE {literal(java_pattern(pattern), 'STRING')})"

    def beyond_ascii(self, sql: str) -> str:
        """Return a comparison of bytes and characters."""
        return f"octet_length({sql}) <> char_length({sql})"

    def ends_with(self, sql: str, ending: str) -> str:
        """Return ``endswith``."""
        return f"endswith({sql}, {literal(ending, 'STRING')})"

    def wide(self, sql: str) -> str:
        """Return it as a decimal of 38 digits."""
        return f"CAST({sql} AS DECIMAL({_WIDEST},0))"

    def summed(self, sql: str, kind: Any) -> tuple[str, str]:
        """Return a sum of decimals of 38 digits."""
        what = f"CAST({sql} AS INTEGER)" if pa.types.is_boolean(kind) else sql
        scale = kind.scale if pa.types.is_decimal(kind) else 0
        return f"CAST(sum(CAST({what} AS DECIMAL({_WIDEST},{scale})))", " AS STRING)"

    def middle(self, sql: str) -> tuple[str, str]:
        """Return discrete percentiles."""
        return (
            f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {sql})",
            f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {sql} DESC)",
        )


def literal(value: Any, kind: str) -> str:
    """Return a value in Spark's SQL.

    :param kind: Spark's name of its type.
    """
    if not _KNOWN.fullmatch(kind):
        raise Inexact(f"there is no type {kind} in Spark")
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        if _PLAIN_TEXT.fullmatch(value):
            return f"'{value}'"
        return f"CAST(X'{value.encode().hex()}' AS STRING)"
    if isinstance(value, Decimal):
        text = format(value, "f")
    elif isinstance(value, dt.date):
        text = value.isoformat()
    else:
        text = repr(value)
    return f"CAST('{text}' AS {kind})"


def java_pattern(pattern: str) -> str:
    r"""Return a pattern that RE2 and Python's ``re`` read alike as one that Java reads like them.

    To Java ``\v`` is a class of characters, a name of a group has no underscore, and without ``(?d)`` a dot and ``$`` know more
    line breaks than ``\n``.
    """
    parts = ("(" if part.startswith("(?P<") else part for part in _PATTERN_PART.findall(pattern))
    return "(?d)" + _ESCAPE.sub(lambda escape: r"\x0b" if escape.group() == r"\v" else escape.group(), "".join(parts))


def _holds_map(kind: Any) -> bool:
    if pa.types.is_map(kind):
        return True
    return any(_holds_map(kind.field(i).type) for i in range(kind.num_fields)) if pa.types.is_nested(kind) else False
