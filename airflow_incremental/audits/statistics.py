"""Audits of what manifests know already: null counts, minima and maxima, numbers of rows. They open no data file.

Each takes ``severity`` (``"block"``, ``"warn"`` or ``"ask"``), ``over`` and ``name``, as all audits do.
"""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any, ClassVar, Literal

import attrs

from airflow_incremental.audits.base import Audit, columns_of, label, name_of, severity_of
from airflow_incremental.audits.comparisons import check_bounds
from airflow_incremental.audits.values import Value, checked, show
from airflow_incremental.core.audit import Over, Severity
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import one_of

#: What follows where statistics do not tell: the audit ``fail``s, whatever its severity, or the report has a ``warn``-ing.
OnUnknown = Literal["fail", "warn"]


@attrs.frozen(init=False)
class NullFraction(Audit):
    """At most a given share of the rows is null in a column, by the null counts of the files. NaN is a value, not a null.

    Exact, but for rows that row-level deletes hide: they are counted within what they can make out.

    :param column: a column that is no list, map or struct; a field of a struct is fine.
    :param max: the greatest share that passes, from 0 (no nulls) to 1.
    :param on_unknown: files without null counts: ``"fail"`` (default; use ``NotNull``) or ``"warn"``.
    """

    type: ClassVar[str] = "null_fraction"
    required: ClassVar[tuple[str, ...]] = ("column", "max")
    reads_rows: ClassVar[bool] = False
    name: str
    severity: Severity
    over: Over
    column: str
    max: float
    on_unknown: OnUnknown

    def __init__(
        self,
        column: str,
        max: float,  # noqa: A002  what everybody calls it
        *,
        on_unknown: OnUnknown = "fail",
        severity: Severity = "block",
        over: Over = "rows",
        name: str | None = None,
    ) -> None:
        (column,) = columns_of((column,), "NullFraction")
        name = name_of(name, label(self.type, column, over=over))
        self.__attrs_init__(
            column=column,
            max=number(max, f"max of audit {name!r}", least=0, most=1),
            on_unknown=one_of(on_unknown, OnUnknown, what=f"on_unknown of audit {name!r}"),
            name=name,
            **severity_of(severity, over, name, row_wise=self.row_wise),
        )


@attrs.frozen(init=False)
class ColumnRange(Audit):
    """Every value of a column lies between two bounds, both of which pass, by the least and greatest value of each file.

    Files keep exact bounds of whole numbers, decimals, floats, dates and times; those of strings are cut short, so they
    cannot be checked. NaN is in no bound and is not looked at: ``Between`` finds it. Offending are counted as files.

    :param column: a column of numbers, dates or timestamps. Of a field of a struct pyiceberg keeps no bounds.
    :param min: the least value; None for no lower bound.
    :param max: the greatest value; None for no upper bound.
    :param on_unknown: files without bounds, or with some outside and row-level deletes that may hide those: ``"fail"``
        (default; use ``Between``) or ``"warn"``.
    """

    type: ClassVar[str] = "column_range"
    required: ClassVar[tuple[str, ...]] = ("column",)
    reads_rows: ClassVar[bool] = False
    name: str
    severity: Severity
    over: Over
    column: str
    min: Value | None
    max: Value | None
    on_unknown: OnUnknown

    def __init__(
        self,
        column: str,
        min: float | Decimal | dt.date | None = None,  # noqa: A002
        max: float | Decimal | dt.date | None = None,  # noqa: A002
        *,
        on_unknown: OnUnknown = "fail",
        severity: Severity = "block",
        over: Over = "rows",
        name: str | None = None,
    ) -> None:
        (column,) = columns_of((column,), "ColumnRange")
        name = name_of(name, label(self.type, column, over=over))
        low = None if min is None else checked(min, what=f"min of audit {name!r}")
        high = None if max is None else checked(max, what=f"max of audit {name!r}")
        check_bounds(low, high, open_ended=False, name=name)
        self.__attrs_init__(
            column=column,
            min=low,
            max=high,
            on_unknown=one_of(on_unknown, OnUnknown, what=f"on_unknown of audit {name!r}"),
            name=name,
            **severity_of(severity, over, name, row_wise=self.row_wise),
        )

    @property
    def interval(self) -> str:
        """The bounds as people write them: ``[0, 10]``, ``>= 0``."""
        if self.min is not None and self.max is not None:
            return f"[{show(self.min)}, {show(self.max)}]"
        return f">= {show(self.min)}" if self.min is not None else f"<= {show(self.max)}"  # type: ignore[arg-type]


@attrs.frozen(init=False)
class Volume(Audit):
    """The number of rows is what it usually is: within given multiples of the median of the table's own history.

    Over ``rows`` what the session wrote is compared with the process's last publishes; over ``table`` all rows with what the
    table had after each of those; over ``partitions`` each partition that was touched with the ones that were written last
    of the others. Publishes count that ``main`` still shows; those that only moved the watermark do not. Rows are counted
    before row-level deletes, then as now.

    :param min_ratio: the least multiple of the median that passes; None for no lower bound.
    :param max_ratio: the greatest; None for no upper bound.
    :param last: how many publishes, or other partitions, are compared with.
    :param min_history: how many there have to be. As long as there are fewer the audit passes, and says that nothing was
        compared: a first load has nothing to be compared with. Add a ``RowCount`` for what must hold even then.
    """

    type: ClassVar[str] = "volume"
    reads_rows: ClassVar[bool] = False
    name: str
    severity: Severity
    over: Over
    min_ratio: float | None
    max_ratio: float | None
    last: int
    min_history: int

    def __init__(
        self,
        *,
        min_ratio: float | None = None,
        max_ratio: float | None = None,
        last: int = 10,
        min_history: int = 3,
        severity: Severity = "block",
        over: Over = "rows",
        name: str | None = None,
    ) -> None:
        name = name_of(name, label(self.type, over=over))
        low = None if min_ratio is None else number(min_ratio, f"min_ratio of audit {name!r}", least=0)
        high = None if max_ratio is None else number(max_ratio, f"max_ratio of audit {name!r}", least=0)
        if (low is None and high is None) or (low is not None and high is not None and low > high):
            raise ArgumentError(
                f"audit {name!r} has min_ratio {min_ratio!r} and max_ratio {max_ratio!r}",
                expected="at least one of them, and a min_ratio that is not above max_ratio",
                hint="Volume(min_ratio=0.5, max_ratio=2) lets half to twice the usual number of rows pass",
            )
        self.__attrs_init__(
            min_ratio=low,
            max_ratio=high,
            **history_of(last, min_history, name),
            name=name,
            **severity_of(severity, over, name, row_wise=self.row_wise),
        )


def number(value: Any, what: str, *, least: float, most: float = math.inf) -> float:
    """Return a checked number."""
    is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and least <= value <= most:
        return float(value)
    expected = f"a number from {least:g} to {most:g}" if math.isfinite(most) else f"a number, {least:g} or more"
    raise ArgumentError(f"{what} is {value!r}", expected=expected)


def history_of(last: Any, min_history: Any, name: str) -> dict[str, Any]:
    """Return a checked ``last`` and ``min_history``, as arguments."""
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in (last, min_history))
    if whole and 1 <= min_history <= last:
        return {"last": last, "min_history": min_history}
    raise ArgumentError(
        f"audit {name!r} has last={last!r} and min_history={min_history!r}",
        expected="whole numbers, 1 or more, with a min_history that is not above last",
    )
