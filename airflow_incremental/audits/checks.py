"""Audits of whole rows: nulls, keys, how many rows, and a query of one's own.

They say what must hold, not how it is found out; importing them loads no engine. Each takes ``severity``
(``"block"``, the default, keeps the data from being published; ``"warn"`` only reports; ``"ask"`` has a person decide;
``"quarantine"``, where single rows offend, puts those aside and publishes the rest), ``over`` (``"rows"``, the default,
looks at what the session wrote; ``"partitions"`` at all rows of the partitions it touched; ``"table"`` at all there
will be in the target) and ``name`` (default: the check and its columns; must be unique among the audits of one load).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from airflow_incremental.audits.base import Audit, columns_of, label, name_of, severity_of
from airflow_incremental.audits.values import checked
from airflow_incremental.core.audit import Over, Severity
from airflow_incremental.core.errors import ArgumentError


@attrs.frozen(init=False)
class NotNull(Audit):
    """No row is null in any of the columns. NaN is a value, not a null; a field of a null struct is null.

    :param columns: one or more columns.
    """

    type: ClassVar[str] = "not_null"
    required: ClassVar[tuple[str, ...]] = ("columns",)
    row_wise: ClassVar[bool] = True
    name: str
    severity: Severity
    over: Over
    columns: tuple[str, ...]

    def __init__(
        self, *columns: str, severity: Severity = "block", over: Over = "rows", name: str | None = None
    ) -> None:
        columns = columns_of(columns, "NotNull")
        name = name_of(name, label(self.type, *columns, over=over))
        self.__attrs_init__(columns=columns, name=name, **severity_of(severity, over, name, row_wise=self.row_wise))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Audit:
        """Build the audit from its serialised fields, without ``type``."""
        return _with_columns(cls, fields)


@attrs.frozen(init=False)
class Unique(Audit):
    """No two rows agree in all the columns.

    Rows that are null in one of them are left out, as in SQL's ``UNIQUE`` (add a ``NotNull`` if they must not be). NaN
    equals NaN. Offending are all rows that share their key, not only the second of each. Rows that were in the target
    before are only looked at with ``over="table"`` or ``over="partitions"``.

    :param columns: one or more columns that form the key.
    """

    type: ClassVar[str] = "unique"
    required: ClassVar[tuple[str, ...]] = ("columns",)
    row_wise: ClassVar[bool] = True
    name: str
    severity: Severity
    over: Over
    columns: tuple[str, ...]

    def __init__(
        self, *columns: str, severity: Severity = "block", over: Over = "rows", name: str | None = None
    ) -> None:
        columns = columns_of(columns, "Unique")
        name = name_of(name, label(self.type, *columns, over=over))
        self.__attrs_init__(columns=columns, name=name, **severity_of(severity, over, name, row_wise=self.row_wise))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Audit:
        """Build the audit from its serialised fields, without ``type``."""
        return _with_columns(cls, fields)


def _with_columns(cls: type[NotNull | Unique], fields: Mapping[str, Any]) -> Audit:
    rest = dict(fields)
    columns = rest.pop("columns")
    if not isinstance(columns, (list, tuple)):
        raise ArgumentError(f"the columns of a {cls.type} audit are {columns!r}", expected="a list of column names")
    return cls(*columns, **rest)


@attrs.frozen(init=False)
class RowCount(Audit):
    """The number of rows lies within bounds, both of which pass.

    The only built-in audit that has an opinion on a session that wrote no row.

    :param min: the least number of rows; None for no lower bound.
    :param max: the greatest number of rows; None for no upper bound.
    """

    type: ClassVar[str] = "row_count"
    name: str
    severity: Severity
    over: Over
    min: int | None
    max: int | None

    def __init__(
        self,
        min: int | None = None,  # noqa: A002  what everybody calls it
        max: int | None = None,  # noqa: A002
        *,
        severity: Severity = "block",
        over: Over = "rows",
        name: str | None = None,
    ) -> None:
        name = name_of(name, label(self.type, over=over))
        low, high = _rows(min, f"min of audit {name!r}"), _rows(max, f"max of audit {name!r}")
        if low is None and high is None:
            raise ArgumentError(
                f"audit {name!r} has neither min nor max",
                expected="at least one bound",
                hint="RowCount(min=1) refuses an empty load",
            )
        if low is not None and high is not None and low > high:
            raise ArgumentError(
                f"audit {name!r} asks for at least {low} and at most {high} rows",
                expected="a min that is not above max",
            )
        self.__attrs_init__(min=low, max=high, name=name, **severity_of(severity, over, name, row_wise=self.row_wise))


def _rows(value: Any, what: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ArgumentError(f"{what} is {value!r}", expected="a number of rows, 0 or more, or None")


@attrs.frozen(init=False)
class SqlCheck(Audit):
    """A query of one's own that returns the offending rows; the audit passes when it returns none.

    It is DuckDB SQL, or Spark's where the load's audits run in Spark, and reads what it looks at as ``rows``. A query that counts
    (``SELECT count(*) ...``) always returns a row: put the condition into ``HAVING``. Given to an operator, the SQL may hold Jinja
    templates.

    :param name: what the check is called.
    :param sql: one ``SELECT`` over ``rows``.
    """

    type: ClassVar[str] = "sql"
    required: ClassVar[tuple[str, ...]] = ("name", "sql")
    name: str
    severity: Severity
    over: Over
    sql: str

    def __init__(self, name: str, sql: str, *, severity: Severity = "block", over: Over = "rows") -> None:
        name = name_of("" if name is None else name, "")
        self.__attrs_init__(name=name, sql=_sql(sql, name), **severity_of(severity, over, name, row_wise=self.row_wise))


def _sql(value: Any, name: str) -> str:
    if isinstance(value, str) and value.strip():
        return str(checked(value, what=f"the SQL of audit {name!r}"))
    raise ArgumentError(
        f"the SQL of audit {name!r} is {value!r}",
        expected="a SELECT that returns offending rows",
        hint="for example SELECT * FROM rows WHERE fare < 0",
    )
