"""Audits that compare a column with given values; importing them loads no engine."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Literal

import attrs

from airflow_incremental.audits.base import Audit, columns_of, label, name_of, severity_of
from airflow_incremental.audits.values import Kind, Value, checked, decode, kind_of, show
from airflow_incremental.core.audit import Over, Severity
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import one_of

#: Which of its two bounds a ``Between`` lets pass; pandas' words.
Inclusive = Literal["both", "left", "right", "neither"]


@attrs.frozen(init=False)
class AcceptedValues(Audit):
    """Every row holds one of the given values. NaN is never one of them.

    Numbers are compared exactly in the column's own type; in a float column they stand for the float nearest to them.

    :param column: a column of booleans, numbers, strings, dates or timestamps.
    :param values: the values, all of one kind; times timezone-aware. Their order does not matter.
    :param allow_null: whether a row without a value passes; such rows are then not counted as checked.
    """

    type: ClassVar[str] = "accepted_values"
    required: ClassVar[tuple[str, ...]] = ("column", "values")
    row_wise: ClassVar[bool] = True
    name: str
    severity: Severity
    over: Over
    column: str
    values: tuple[Value, ...]
    allow_null: bool

    def __init__(
        self,
        column: str,
        values: Iterable[Value],
        allow_null: bool = True,  # noqa: FBT001, FBT002  the order is the order one reads it in
        *,
        severity: Severity = "block",
        over: Over = "rows",
        name: str | None = None,
    ) -> None:
        (column,) = columns_of((column,), "AcceptedValues")
        name = name_of(name, label(self.type, column, over=over))
        self.__attrs_init__(
            column=column,
            values=_accepted(values, name),
            allow_null=_flag(allow_null, name),
            name=name,
            **severity_of(severity, over, name, row_wise=self.row_wise),
        )

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Audit:
        """Build the audit from its serialised fields, without ``type``."""
        rest = dict(fields)
        values = rest.pop("values")
        if isinstance(values, (list, tuple)):
            values = [decode(v, what="an accepted value") for v in values]
        return cls(values=values, **rest)


def _flag(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    raise ArgumentError(f"allow_null of audit {name!r} is {value!r}", expected="True or False")


def _accepted(values: Any, name: str) -> tuple[Value, ...]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ArgumentError(
            f"the values of audit {name!r} are {values!r}",
            expected="a list of values",
            hint="write a single value as ['value']",
        )
    items = list(values)
    if any(v is None for v in items):
        raise ArgumentError(
            f"the values of audit {name!r} hold None",
            expected="values",
            hint="whether null passes is said by allow_null, which is True unless told otherwise",
        )
    plain = [checked(v, what=f"a value of audit {name!r}") for v in items]
    kinds = {kind_of(v).value for v in plain}
    if len(kinds) != 1:
        raise ArgumentError(
            f"audit {name!r} is given {' and '.join(sorted(kinds)) or 'no value'}",
            expected="one or more values of one kind",
        )
    # Sorted, because a set has another order in each process and two parses must give one DAG.
    ordered: list[Any] = list(dict.fromkeys(plain))
    return tuple(sorted(ordered))


@attrs.frozen(init=False)
class Between(Audit):
    """Every value of a column lies between two bounds. Nulls are not checked; NaN lies nowhere, so it offends.

    A date column takes dates and a timestamp column takes timezone-aware datetimes; a timestamp without zone is read
    as UTC. Numbers are compared exactly in the column's own type; in a float column a bound stands for the float
    nearest to it.

    :param column: a column of numbers, dates or timestamps.
    :param min: the least value; None for no lower bound.
    :param max: the greatest value; None for no upper bound.
    :param inclusive: the bounds that pass themselves: ``"both"`` (default), ``"left"`` (half-open, as ranges of time
        usually are), ``"right"`` or ``"neither"``.
    """

    type: ClassVar[str] = "between"
    required: ClassVar[tuple[str, ...]] = ("column",)
    row_wise: ClassVar[bool] = True
    name: str
    severity: Severity
    over: Over
    column: str
    min: Value | None
    max: Value | None
    inclusive: Inclusive

    def __init__(
        self,
        column: str,
        min: float | Decimal | dt.date | None = None,  # noqa: A002  what everybody calls it
        max: float | Decimal | dt.date | None = None,  # noqa: A002
        *,
        inclusive: Inclusive = "both",
        severity: Severity = "block",
        over: Over = "rows",
        name: str | None = None,
    ) -> None:
        (column,) = columns_of((column,), "Between")
        name = name_of(name, label(self.type, column, over=over))
        low = None if min is None else checked(min, what=f"min of audit {name!r}")
        high = None if max is None else checked(max, what=f"max of audit {name!r}")
        one_of(inclusive, Inclusive, what=f"inclusive of audit {name!r}")
        check_bounds(low, high, open_ended=inclusive != "both", name=name)
        self.__attrs_init__(
            column=column,
            min=low,
            max=high,
            inclusive=inclusive,
            name=name,
            **severity_of(severity, over, name, row_wise=self.row_wise),
        )

    @property
    def interval(self) -> str:
        """The bounds as people write them: ``[0, 10)``, ``>= 0``."""
        left, right = self.inclusive in ("both", "left"), self.inclusive in ("both", "right")
        low, high = ("" if b is None else show(b) for b in (self.min, self.max))
        if self.max is None:
            return f"{'>=' if left else '>'} {low}"
        if self.min is None:
            return f"{'<=' if right else '<'} {high}"
        return f"{'[' if left else '('}{low}, {high}{']' if right else ')'}"


def check_bounds(low: Any, high: Any, *, open_ended: bool, name: str) -> None:
    """Refuse bounds that are none, of two kinds, or with nothing between them.

    :param open_ended: whether a bound itself does not pass.
    :param name: of the audit, for the message.
    """
    bounds: list[Value] = [b for b in (low, high) if b is not None]
    if not bounds:
        raise ArgumentError(f"audit {name!r} has neither min nor max", expected="at least one bound")
    kinds = {kind_of(b) for b in bounds}
    if not kinds <= {Kind.NUMBER, Kind.DATE, Kind.TIMESTAMP}:
        raise ArgumentError(
            f"audit {name!r} is bounded by {' and '.join(show(b) for b in bounds)}",
            expected="numbers, dates or timezone-aware datetimes",
            hint="use AcceptedValues for strings and booleans, or SqlCheck",
        )
    if len(kinds) > 1:
        raise ArgumentError(
            f"audit {name!r} is bounded by {' and '.join(sorted(k.value for k in kinds))}",
            expected="two bounds of one kind",
        )
    if low is not None and high is not None and (low > high or (low == high and open_ended)):
        raise ArgumentError(
            f"audit {name!r} asks for min {show(low)} and max {show(high)}, between which there is nothing",
            expected="min below max",
        )
