"""Event time as half-open ranges, always timezone-aware UTC.

``EventRanges`` is the currency between change detection, planning and writing: a normalised set of ``[start, end)`` ranges, plus
one flag for rows whose event time is null (they form a range of their own).
"""

from __future__ import annotations

import datetime as dt
import enum
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from operator import attrgetter

import attrs

from airflow_incremental.core.errors import ArgumentError

UTC = dt.timezone.utc
EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = dt.timedelta(microseconds=1)
#: The ends of what a timestamp column can hold here; used for "everything".
MIN_TIME = dt.datetime(1, 1, 1, tzinfo=UTC)
MAX_TIME = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def utc(moment: dt.datetime, *, what: str = "a time") -> dt.datetime:
    """Return ``moment`` in UTC; a naive one is refused, because guessing its zone loses or doubles hours.

    :param what: how an error names the value.
    """
    if moment.tzinfo is UTC:
        return moment
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ArgumentError(
            f"{what} is the naive datetime {moment.isoformat()}",
            expected="a timezone-aware datetime",
            hint="add a time zone, for example datetime(2024, 1, 1, tzinfo=timezone.utc)",
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ArgumentError(
            f"{what} is {moment.isoformat()}", expected="a time from the year 1 to the year 9999 of UTC"
        ) from None


def parse_time(text: str, *, what: str = "a time") -> dt.datetime:
    """Read an ISO 8601 time with a zone (``2024-01-01T00:00:00Z``) as UTC.

    :raises ArgumentError: it is none, or has no zone.
    """
    try:
        moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ArgumentError(
            f"{what} is {text!r}", expected="an ISO 8601 time with a zone", hint="write it like 2024-01-01T00:00:00Z"
        ) from None
    if moment.tzinfo is None:
        raise ArgumentError(
            f"{what} is {text!r}, which has no zone",
            expected="an ISO 8601 time with a zone",
            hint=f"write it like {moment.isoformat()}Z, if that is meant in UTC, or with another zone's offset, such as +02:00",
        )
    return utc(moment, what=what)


def format_time(moment: dt.datetime) -> str:
    """Return the shortest ISO 8601 form of a UTC time, with ``Z``."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat()[: -len("+00:00")] + "Z"


class Grain(str, enum.Enum):
    """The unit a target's event time is partitioned by; ranges that are replaced are whole units."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    YEAR = "year"

    def floor(self, moment: dt.datetime) -> dt.datetime:
        """Return the start of the unit that holds ``moment``."""
        whole = moment.replace(minute=0, second=0, microsecond=0)
        if self is Grain.HOUR:
            return whole
        whole = whole.replace(hour=0)
        if self is Grain.DAY:
            return whole
        whole = whole.replace(day=1)
        return whole if self is Grain.MONTH else whole.replace(month=1)

    def after(self, start: dt.datetime) -> dt.datetime:
        """Return the start of the unit that follows the one starting at ``start``; never past ``MAX_TIME``."""
        try:
            if self is Grain.HOUR:
                return start + dt.timedelta(hours=1)
            if self is Grain.DAY:
                return start + dt.timedelta(days=1)
            if self is Grain.MONTH:
                return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
            return start.replace(year=start.year + 1)
        except (OverflowError, ValueError):
            return MAX_TIME

    def before(self, start: dt.datetime) -> dt.datetime:
        """Return the start of the unit that ends at ``start``, which is the start of one."""
        return self.floor(start - MICROSECOND)

    def divides(self, other: Grain) -> bool:
        """Say whether units of this kind make up whole units of the other."""
        order = list(Grain)
        return order.index(self) <= order.index(other)

    def ceil(self, moment: dt.datetime) -> dt.datetime:
        """Return ``moment`` if a unit starts there, else the start of the next unit."""
        start = self.floor(moment)
        return moment if start == moment else self.after(start)


def _range_end(moment: dt.datetime) -> dt.datetime:
    return utc(moment, what="an end of a range")


@attrs.frozen(order=True)
class TimeRange:
    """``[start, end)``: event times from ``start`` on and before ``end``, both timezone-aware and kept in UTC."""

    start: dt.datetime = attrs.field(converter=_range_end)
    end: dt.datetime = attrs.field(converter=_range_end)

    def __attrs_post_init__(self) -> None:
        if self.start >= self.end:
            raise ArgumentError(
                f"the range [{format_time(self.start)}, {format_time(self.end)}) is empty",
                expected="a start before the end",
            )

    def overlaps(self, other: TimeRange) -> bool:
        """Say whether some moment is in both."""
        return self.start < other.end and other.start < self.end

    def covers(self, other: TimeRange) -> bool:
        """Say whether every moment of ``other`` is in this range."""
        return self.start <= other.start and other.end <= self.end

    def align(self, grain: Grain) -> TimeRange:
        """Return the smallest range of whole units that covers this one."""
        return _between(grain.floor(self.start), grain.ceil(self.end))

    def units(self, grain: Grain) -> Iterator[TimeRange]:
        """Yield the whole units that touch this range, in order."""
        start = grain.floor(self.start)
        while start < self.end:
            end = grain.after(start)
            yield _between(start, end)
            start = end

    def __str__(self) -> str:
        return f"{format_time(self.start)}/{format_time(self.end)}"


_START = attrgetter("start")
_SET_START, _SET_END = TimeRange.start.__set__, TimeRange.end.__set__  # type: ignore[attr-defined]


def _between(start: dt.datetime, end: dt.datetime) -> TimeRange:
    """Return the range between two ends of other ranges, of which nothing has to be checked; there are plans of very many."""
    made: TimeRange = object.__new__(TimeRange)
    _SET_START(made, start)
    _SET_END(made, end)
    return made


def _normalise(ranges: Iterable[TimeRange]) -> tuple[TimeRange, ...]:
    merged: list[TimeRange] = []
    for item in sorted(ranges, key=_START):
        if merged and item.start <= merged[-1].end:
            if item.end > merged[-1].end:
                merged[-1] = _between(merged[-1].start, item.end)
        else:
            merged.append(item)
    return tuple(merged)


@attrs.frozen
class EventRanges:
    """A set of event times: sorted, disjoint, non-touching ranges, and whether rows with a null event time belong to it."""

    ranges: tuple[TimeRange, ...] = attrs.field(default=(), converter=_normalise)
    nulls: bool = False

    @classmethod
    def everything(cls) -> EventRanges:
        """Return the set of all event times, null included."""
        return cls((TimeRange(MIN_TIME, MAX_TIME),), nulls=True)

    @classmethod
    def union_of(cls, sets: Iterable[EventRanges]) -> EventRanges:
        """Return the union of any number of sets."""
        items = list(sets)
        return cls(tuple(r for s in items for r in s.ranges), nulls=any(s.nulls for s in items))

    def __bool__(self) -> bool:
        return bool(self.ranges) or self.nulls

    def union(self, other: EventRanges) -> EventRanges:
        """Return what is in either."""
        return EventRanges.union_of((self, other))

    def intersect(self, other: EventRanges) -> EventRanges:
        """Return what is in both."""
        found: list[TimeRange] = []
        i = j = 0
        while i < len(self.ranges) and j < len(other.ranges):
            a, b = self.ranges[i], other.ranges[j]
            if a.overlaps(b):
                found.append(_between(max(a.start, b.start), min(a.end, b.end)))
            if a.end <= b.end:
                i += 1
            else:
                j += 1
        return EventRanges(tuple(found), nulls=self.nulls and other.nulls)

    def subtract(self, other: EventRanges) -> EventRanges:
        """Return what is here and not in ``other``."""
        if not other.ranges or self == other:  # which is the usual case, and may be of very many ranges
            return EventRanges(() if other.ranges else self.ranges, nulls=self.nulls and not other.nulls)
        left: list[TimeRange] = []
        cuts = iter(other.ranges)
        cut = next(cuts, None)
        for item in self.ranges:
            start = item.start
            while cut is not None and cut.end <= start:
                cut = next(cuts, None)
            while cut is not None and cut.start < item.end:
                if start < cut.start:
                    left.append(_between(start, cut.start))
                start = max(start, cut.end)
                if cut.end >= item.end:
                    break
                cut = next(cuts, None)
            if start < item.end:
                left.append(_between(start, item.end))
        return EventRanges(tuple(left), nulls=self.nulls and not other.nulls)

    def below(self, moment: dt.datetime | None) -> EventRanges:
        """Return the part before ``moment`` (nothing when it is None); null event times have no place in time and stay out."""
        if moment is None or moment <= MIN_TIME:
            return EventRanges()
        return EventRanges(self.ranges).intersect(EventRanges((TimeRange(MIN_TIME, moment),)))

    def align(self, grain: Grain) -> EventRanges:
        """Return the smallest set of whole units that covers this one."""
        return EventRanges(tuple(r.align(grain) for r in self.ranges), nulls=self.nulls)

    def widened(self, by: dt.timedelta) -> EventRanges:
        """Return all event times at most ``by`` away from these, those of rows without one too; from such a row all are."""
        if self.nulls:
            return EventRanges.everything()
        return EventRanges(
            tuple(
                TimeRange(
                    MIN_TIME if r.start - MIN_TIME <= by else r.start - by,
                    MAX_TIME if MAX_TIME - r.end <= by else r.end + by,
                )
                for r in self.ranges
            ),
            nulls=True,
        )

    def coalesce(self, most: int) -> EventRanges:
        """Return a superset of at most ``most`` ranges, closing the smallest gaps first; bounds the size of a plan."""
        if len(self.ranges) <= most:
            return self
        gaps = [after.start - item.end for item, after in pairwise(self.ranges)]
        kept = sorted(range(len(gaps)), key=gaps.__getitem__)[len(self.ranges) - max(most, 1) :]
        spans = pairwise([0, *sorted(i + 1 for i in kept), len(self.ranges)])
        return EventRanges(
            tuple(_between(self.ranges[i].start, self.ranges[after - 1].end) for i, after in spans), nulls=self.nulls
        )

    def _at(self, moment: dt.datetime) -> TimeRange | None:
        """Return the last range that starts at or before ``moment``."""
        i = bisect_right(self.ranges, moment, key=lambda r: r.start)
        return self.ranges[i - 1] if i else None

    def contains(self, moment: dt.datetime | None) -> bool:
        """Say whether one event time (None for null) is in the set."""
        if moment is None:
            return self.nulls
        near = self._at(moment)
        return near is not None and moment < near.end

    def covers(self, item: TimeRange) -> bool:
        """Say whether one range lies wholly inside."""
        near = self._at(item.start)
        return near is not None and near.covers(item)

    def overlaps(self, item: TimeRange) -> bool:
        """Say whether one range shares a moment with the set."""
        near = self._at(item.end - MICROSECOND)
        return near is not None and near.overlaps(item)

    def count(self, grain: Grain) -> int:
        """Return how many units the set touches; null event times count as one."""
        aligned = self.align(grain).ranges
        if grain in (Grain.HOUR, Grain.DAY):
            unit = dt.timedelta(hours=1) if grain is Grain.HOUR else dt.timedelta(days=1)
            return sum(-((r.start - r.end) // unit) for r in aligned) + self.nulls
        return sum(sum(1 for _ in r.units(grain)) for r in aligned) + self.nulls

    def span(self) -> TimeRange | None:
        """Return the one range from the first start to the last end, or None if there is no range."""
        return _between(self.ranges[0].start, self.ranges[-1].end) if self.ranges else None

    def to_json(self) -> list[str]:
        """Return ISO 8601 intervals (``start/end``), with ``"null"`` last when null event times belong to the set."""
        return [str(r) for r in self.ranges] + (["null"] if self.nulls else [])

    @classmethod
    def from_json(cls, items: Iterable[str]) -> EventRanges:
        """Read what ``to_json`` wrote."""
        found: list[TimeRange] = []
        nulls = False
        for item in items:
            if item == "null":
                nulls = True
                continue
            start, _, end = item.partition("/")
            found.append(TimeRange(parse_time(start), parse_time(end)))
        return cls(tuple(found), nulls=nulls)

    @property
    def is_everything(self) -> bool:
        """Whether this is the set of all event times."""
        return self == EventRanges.everything()

    def __str__(self) -> str:
        return "everything" if self.is_everything else ", ".join(self.to_json()) or "nothing"
