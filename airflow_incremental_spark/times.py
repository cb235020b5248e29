"""Event times as half-open ranges, and as conditions on a column that Iceberg can prune by.

Up to ``FEW`` ranges are compared one by one, with typed literals on the column itself: Spark hands such comparisons to Iceberg,
which then leaves out manifests, files and row groups. More of them are coalesced to that many for Iceberg, and the rows that are
left are looked up exactly, in a broadcast table of the ranges by hour, so that the cost per row does not grow with their number.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, Mapping, Optional, Sequence, Tuple

from airflow_incremental_spark.document import quote
from airflow_incremental_spark.errors import DriverError
from airflow_incremental_spark.settings import functions_of

UTC = dt.timezone.utc
EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = dt.timedelta(microseconds=1)
#: What stands for an open end where it has to be a time: as in the embedded engine.
MIN_TIME = dt.datetime(1, 1, 1, tzinfo=UTC)
MAX_TIME = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
#: Up to this many ranges are conditions of their own; also how many are given to Iceberg when there are more.
FEW = 64

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
#: Rows the broadcast table may have before its ranges are cut into larger pieces.
_PIECES = 200_000
#: Stands for the piece of rows without an event time.
_NO_TIME = -(2**62)

#: Microseconds (or days) since 1970 of a range's start and end; None is an open end.
Range = Tuple[Optional[int], Optional[int]]


class Ranges:
    """A set of event times: sorted, disjoint ranges in microseconds since 1970, and whether rows without one belong to it."""

    def __init__(self, ranges: list[Range], *, nulls: bool) -> None:
        self.ranges = ranges
        self.nulls = nulls

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Ranges:
        """Read ``{"ranges": [[start, end], ...], "nulls": bool}``."""
        return cls([(micros(a), micros(b)) for a, b in value["ranges"]], nulls=bool(value["nulls"]))

    @property
    def everything(self) -> bool:
        """Whether no row is left out."""
        return self.nulls and self.ranges == [(None, None)]

    def complement(self) -> Ranges:
        """Return all other event times."""
        found: list[Range] = []
        start: int | None = None
        for low, high in self.ranges:
            if low is not None and low != start:
                found.append((start, low))
            start = high
            if high is None:
                break
        else:
            found.append((start, None))
        return Ranges(found, nulls=not self.nulls)

    def coalesce(self, most: int) -> Ranges:
        """Return a superset of at most ``most`` ranges, with the smallest gaps closed."""
        if len(self.ranges) <= most:
            return self
        # Only the first start and the last end can be open.
        gap = [(self.ranges[i][0] or 0) - (self.ranges[i - 1][1] or 0) for i in range(1, len(self.ranges))]
        closed = set(sorted(range(1, len(self.ranges)), key=lambda i: gap[i - 1])[: len(self.ranges) - most])
        merged: list[Range] = []
        for i, (low, high) in enumerate(self.ranges):
            if i in closed:
                merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        return Ranges(merged, nulls=self.nulls)

    def frame(self, spark: Any) -> Any:
        """Return a DataFrame of ``range_start`` and ``range_end``, half-open and in order."""
        rows = [(_at(low, MIN_TIME), _at(high, MAX_TIME)) for low, high in self.ranges]
        return local_frame(spark, rows, "range_start bigint, range_end bigint").selectExpr(
            "timestamp_micros(range_start) AS range_start", "timestamp_micros(range_end) AS range_end"
        )

    def __str__(self) -> str:
        shown = ["{}/{}".format(show(low) or "...", show(high) or "...") for low, high in self.ranges[:6]]
        shown += [f"and {len(self.ranges) - 6:,} more"] if len(self.ranges) > 6 else []  # noqa: PLR2004 - as many as are shown
        return ", ".join([*shown, *(["null"] if self.nulls else [])]) or "nothing"


class TimeColumn:
    """A column that says when a thing happened: a date is its midnight UTC, a timestamp without zone is UTC."""

    def __init__(self, name: str, kind: str) -> None:
        """Take a column.

        :param kind: ``date``, ``timestamp`` (without zone) or ``timestamptz``.
        """
        self.name = name
        self.kind = kind

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> TimeColumn | None:
        """Return the event time of a source or target of the document; None if it has none."""
        return None if value.get("event_time") is None else cls(value["event_time"], value["event_time_type"])

    def inside(self, frame: Any, ranges: Ranges) -> Any:
        """Return the rows of a DataFrame whose event time is in the ranges."""
        if ranges.everything:
            return frame
        if len(ranges.ranges) <= FEW:
            return frame.where(self.condition(ranges))
        return self._looked_up(frame.where(self.condition(ranges.coalesce(FEW))), ranges, "left_semi")

    def outside(self, frame: Any, ranges: Ranges) -> Any:
        """Return the rows of a DataFrame whose event time is in none of the ranges."""
        if len(ranges.ranges) < FEW:
            return frame.where(self.condition(ranges.complement()))
        return self._looked_up(frame, ranges, "left_anti")

    def condition(self, ranges: Ranges) -> str:
        """Return the SQL of a condition that Iceberg can prune by, and delete by."""
        name = quote(self.name)
        if ranges.everything:
            return "true"
        terms = [self._term(name, bound) for bound in self._bounds(ranges)]
        return " OR ".join([*terms, *([f"{name} IS NULL"] if ranges.nulls else [])]) or "false"

    def _term(self, name: str, bound: Range) -> str:
        low, high = bound
        ends = [f"{name} >= {self._literal(low)}"] if low is not None else []
        ends += [f"{name} < {self._literal(high)}"] if high is not None else []
        return "({})".format(" AND ".join(ends)) if ends else f"{name} IS NOT NULL"

    def _bounds(self, ranges: Ranges) -> list[Range]:
        """Return the ranges in units of the column; ranges too short to hold a midnight hold no date."""
        if self.kind != "date":
            return ranges.ranges
        days = [(None if a is None else -(-a // _DAY), None if b is None else -(-b // _DAY)) for a, b in ranges.ranges]
        return [(a, b) for a, b in days if a is None or b is None or a < b]

    def _literal(self, value: int) -> str:
        if self.kind == "date":
            last = (MAX_TIME - EPOCH).days
            day = (EPOCH + dt.timedelta(days=value)).date().isoformat() if value <= last else "+10000-01-01"
            return f"DATE '{day}'"
        text = (EPOCH + value * MICROSECOND).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
        return f"TIMESTAMP_NTZ '{text}'" if self.kind == "timestamp" else f"TIMESTAMP_LTZ '{text}+00:00'"

    def _value(self) -> str:
        """Return the SQL of a column's value in its units; the session's zone is UTC."""
        name = quote(self.name)
        if self.kind == "date":
            return f"unix_date({name})"
        return f"unix_micros({name})" if self.kind == "timestamptz" else f"unix_micros(CAST({name} AS TIMESTAMP))"

    def _looked_up(self, frame: Any, ranges: Ranges, how: str) -> Any:
        """Return rows by whether a range holds them: joined by the piece of time that they lie in, then compared exactly."""
        functions = functions_of(frame)
        bounds = self._bounds(ranges)
        known = [v for bound in bounds for v in bound if v is not None]
        unit = 1 if self.kind == "date" else _HOUR
        while known and sum(((b or max(known)) - (a or min(known))) // unit + 2 for a, b in bounds) > _PIECES:
            unit *= 24
        # Open ends: every time before the first bound lies in one piece, and so does every time after the last one.
        first, last = (min(known) // unit - 1, max(known) // unit + 1) if known else (0, 0)
        rows: list[tuple[int | None, ...]] = [
            (first if a is None else a // unit, last if b is None else (b - 1) // unit, a, b) for a, b in bounds
        ]
        rows += [(_NO_TIME, _NO_TIME, None, None)] if ranges.nulls else []
        pieces = local_frame(frame.sparkSession, rows, "first bigint, last bigint, low bigint, high bigint").selectExpr(
            "explode(sequence(first, last)) AS __incremental_piece",
            "low AS __incremental_low",
            "high AS __incremental_high",
        )
        value = self._value()
        piece = f"greatest(least(({value} - pmod({value}, {unit})) div {unit}, {last}), {first})"
        piece = f"if({value} IS NULL, {_NO_TIME}, {piece})"  # greatest() takes null for no value
        # A semi-join may have one side's expressions in its condition, so nothing is added to the rows.
        on = functions.expr(
            f"{piece} = __incremental_piece "
            f"AND (__incremental_low IS NULL OR {value} >= __incremental_low) "
            f"AND (__incremental_high IS NULL OR {value} < __incremental_high)"
        )
        return frame.join(pieces.hint("broadcast"), on, how)


def local_frame(spark: Any, rows: Sequence[tuple[int | None, ...]], columns: str) -> Any:
    """Return a DataFrame of whole numbers.

    By a literal: rows that Python hands over would need Python of the same version on every executor.

    :param columns: their names and types, as in ``"first bigint, last bigint"``.
    """
    names = [item.split()[0] for item in columns.split(", ")]
    text = json.dumps([dict(zip(names, row)) for row in rows])
    kind = "array<struct<{}>>".format(", ".join("{}: {}".format(*item.split()) for item in columns.split(", ")))
    functions = functions_of(spark)
    return spark.range(1).select(functions.inline(functions.from_json(functions.lit(text), kind)))


def micros(text: str | None) -> int | None:
    """Read an ISO 8601 time with an offset as microseconds since 1970; None stays.

    :raises DriverError: it has no offset.
    """
    if text is None:
        return None
    moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise DriverError(f"the job document holds the time {text!r}", expected="times with an offset", where="bind")
    return (moment - EPOCH) // MICROSECOND


def show(value: int | None) -> str:
    """Return microseconds since 1970 as an ISO 8601 time in UTC; empty for None."""
    if value is None:
        return ""
    try:
        return (EPOCH + value * MICROSECOND).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return f"{value} microseconds since 1970"


def _at(value: int | None, end: dt.datetime) -> int:
    return (end - EPOCH) // MICROSECOND if value is None else value
