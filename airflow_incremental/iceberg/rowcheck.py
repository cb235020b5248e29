"""What the rows of a session may be: inside the planned ranges and inside the process's scope.

A row outside would be added to a part of the table that the session does not replace, and be doubled by the next one.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Mapping, Sequence

import attrs
import pyarrow as pa
import pyarrow.compute as pc

from airflow_incremental.core.errors import TransformError
from airflow_incremental.core.ranges import EPOCH, MAX_TIME, MICROSECOND, MIN_TIME, EventRanges, format_time
from airflow_incremental.core.tables import ScopeValue
from airflow_incremental.iceberg.keys import KeySet
from airflow_incremental.iceberg.masks import has_value

_DAY_MICROS = 86_400_000_000
#: Ranges shown in an error.
_SHOWN = 6
#: Up to this many of the planned ranges are compared with a whole batch each; beyond it every distinct time is looked
#: up.
_FEW = 64


@attrs.frozen(kw_only=True)
class RowCheck:
    """Rows a session may write.

    :param event_time: event-time column of the target; dates stand for their midnight UTC, timestamps without zone are UTC.
    :param ranges: the event times the plan replaces; None allows all.
    :param scope: identity partition columns and the values each may have; None allows all.
    """

    event_time: str | None = None
    ranges: EventRanges | None = None
    scope: Mapping[str, Sequence[ScopeValue]] | None = None
    #: Columns of the target that make up its keys; none of them may be null.
    key_columns: tuple[str, ...] = ()
    #: The keys whose rows the session replaces; None allows all.
    keys: KeySet | None = None

    def check(self, batch: pa.RecordBatch) -> None:
        """Refuse a batch with a row outside.

        :raises TransformError: with the column, how many rows of this batch, and between which event times; no other values.
        """
        for column, values in (self.scope or {}).items():
            self._check_scope(batch, column, values)
        if self.event_time is not None and self.ranges is not None:
            self._check_times(batch, self.event_time, self.ranges)
        if self.key_columns:
            self._check_keys(batch)

    def _check_keys(self, batch: pa.RecordBatch) -> None:
        for column in self.key_columns:
            nulls = batch.column(column).null_count
            if nulls:
                raise TransformError(
                    f"the transform returned {nulls:,} rows (of {batch.num_rows:,} in one batch) whose key {column!r} is null",
                    expected="a key in every row",
                    hint=f"filter with {column} IS NOT NULL, or choose other keys",
                )
        if self.keys is None:
            return
        outside = batch.num_rows - (pc.sum(self.keys.mask(batch, self.key_columns)).as_py() or 0)
        if outside:
            raise TransformError(
                f"the transform returned {outside:,} rows (of {batch.num_rows:,} in one batch) whose key "
                f"({', '.join(self.key_columns)}) is none of the {len(self.keys):,} changed ones",
                expected="rows of keys that the drivers' rows have: only those are replaced, others would be doubled",
                hint="carry the keys of the drivers through unchanged; keys that only a lookup has make no rows of their own",
            )

    @staticmethod
    def _check_scope(batch: pa.RecordBatch, column: str, values: Sequence[ScopeValue]) -> None:
        inside = has_value(batch.column(column), values)
        outside = batch.num_rows - (pc.sum(inside).as_py() or 0)
        if outside:
            raise TransformError(
                f"the transform returned {outside:,} rows (of {batch.num_rows:,} in one batch) whose {column!r} is outside the "
                "scope of the process",
                expected=f"{column} in ({', '.join(repr(v) for v in values)})",
                hint=f"filter on {column!r} in the transform; a process of its own can load the other rows",
            )

    @staticmethod
    def _check_times(batch: pa.RecordBatch, column: str, ranges: EventRanges) -> None:
        found = batch.column(column)
        if found.null_count and not ranges.nulls:
            raise TransformError(
                f"the transform returned {found.null_count:,} rows (of {batch.num_rows:,} in one batch) whose event time "
                f"{column!r} is null",
                expected=f"event times in the planned ranges: {_short(ranges)}",
                hint=f"filter with {column} IS NOT NULL, or set on_null_event_time='own_range'",
            )
        times = _micros(found).drop_null()
        if not len(times):
            return
        outside = _outside(times, ranges)
        if len(outside):
            ends = pc.min_max(outside)
            raise TransformError(
                f"the transform returned {len(outside):,} rows (of {batch.num_rows:,} in one batch) whose {column!r} is outside "
                f"the planned ranges, from {_show(ends['min'].as_py())} to {_show(ends['max'].as_py())}",
                expected=f"event times in {_short(ranges)}",
                hint=f"filter {column!r} by the ranges in plan_ranges (range_start, range_end), or carry the source's event time "
                "through unchanged",
            )


def _micros(times: pa.Array) -> pa.Array:
    """Return dates or timestamps as microseconds since 1970."""
    if pa.types.is_date32(times.type):
        return pc.multiply(times.cast(pa.int32()).cast(pa.int64()), _DAY_MICROS)
    return times.cast(pa.timestamp("us", times.type.tz)).cast(pa.int64())


def _outside(times: pa.Array, ranges: EventRanges) -> pa.Array:
    """Return the times that are in none of the ranges; ends at ``MIN_TIME`` and ``MAX_TIME`` are open."""
    ends = pc.min_max(times)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    bounds = [(_bound(r.start), _bound(r.end)) for r in ranges.ranges]
    near = [(a, b) for a, b in bounds if (a is None or a <= high) and (b is None or low < b)]
    if len(near) > _FEW:
        starts = [-(2**63) if a is None else a for a, _ in near]
        stops = [2**63 if b is None else b for _, b in near]
        distinct = pc.unique(times)
        bad = [t for t in distinct.to_pylist() if (i := bisect_right(starts, t)) == 0 or t >= stops[i - 1]]
        return times.filter(pc.is_in(times, value_set=pa.array(bad, times.type)))
    inside = pa.repeat(pa.scalar(value=False), len(times))
    for a, b in near:
        mask = pa.repeat(pa.scalar(value=True), len(times)) if a is None else pc.greater_equal(times, a)
        inside = pc.or_(inside, mask if b is None else pc.and_(mask, pc.less(times, b)))
    return times.filter(pc.invert(inside))


def _bound(moment: dt.datetime) -> int | None:
    return None if moment <= MIN_TIME or moment >= MAX_TIME else (moment - EPOCH) // MICROSECOND


def _show(micros: int) -> str:
    try:
        return format_time(EPOCH + micros * MICROSECOND)
    except OverflowError:
        return f"{micros} microseconds since 1970"


def _short(ranges: EventRanges) -> str:
    items = ranges.to_json()
    more = f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return (", ".join(items[:_SHOWN]) or "nothing") + more
