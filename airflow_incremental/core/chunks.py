"""A large plan is cut into chunks by event time: what is done of it is kept, and several workers can share it.

Only plans whose parts do not depend on one another are: ranges that are replaced, and rows that are appended one by one. What
depends on order is computed in the steps its author asks for (see :mod:`airflow_incremental.core.stateful`), and the rows of a key
may lie anywhere in time.
"""

from __future__ import annotations

import datetime as dt
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import EPOCH, MICROSECOND, EventRanges, Grain, TimeRange

#: Airflow maps a task over at most 1,024 values unless it is told otherwise, and a plan names the ends of its chunks.
CHUNKS_LIMIT = 1000
#: How often a byte may be read on average because files reach into several chunks; else chunks are fewer.
TIMES_READ = 4
#: How far ahead of its arrival an event may lie that is meant.
_AHEAD = dt.timedelta(days=3653)
#: Modes whose plans are cut.
CUT_MODES = ("append", "overwrite")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(K|M|G|T)?(I?)B?", re.IGNORECASE)


def _size(value: Any) -> int:
    """Read a size in bytes: a number, or a text such as ``"512MB"`` or ``"2GiB"``."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    found = 0
    if match is not None:
        power = "KMGT".index(match[2].upper()) + 1 if match[2] else 0
        found = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if found < 1:
        raise ArgumentError(
            f"chunk_bytes is {value!r}",
            expected="a size of 1 byte or more: a number of bytes, or a text such as '512MB' or '2GiB'",
        )
    return found


def _most(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= CHUNKS_LIMIT:
        raise ArgumentError(
            f"max_chunks is {value!r}",
            expected=f"a whole number from 1 to {CHUNKS_LIMIT:,}",
            hint="write max_chunks=1 to compute every plan at once",
        )
    return value


@attrs.frozen
class Chunking:
    """How large chunks are to be.

    :param bytes: of source files a chunk reads, about; a plan that reads less is not cut.
    :param most: chunks of a plan at most; those of a larger one are larger.
    """

    bytes: int = attrs.field(default=1024**3, converter=_size)
    most: int = attrs.field(default=200, converter=_most)


def cuts_of(
    work: EventRanges,
    files: Iterable[tuple[EventRanges | None, int]],
    unit: Grain,
    chunking: Chunking,
    *,
    latest: dt.datetime,
) -> tuple[dt.datetime, ...]:
    """Return the event times at which work is cut into chunks of about equal size, in order; none if it is not worth it.

    A file's bytes count as spread evenly over its event times. Where it reaches back before 1970 or years past ``latest``, they
    count as spread over what lies between: a few rows whose time is not known (the year 1, or 9999) would pull all cuts away from
    the data. Each chunk holds whole units, and some of the work.

    :param work: event times that are computed.
    :param files: event times and bytes of the files that are read; None for event times stands for anywhere in the work.
    :param latest: when the sources were committed last; events that lie ahead, such as bookings, do not lie many years ahead.
    """
    span = work.span()
    if span is None:
        return ()
    pieces = _density(work, files, TimeRange(EPOCH, latest))
    total = sum(size for _, _, size in pieces)
    count = min(chunking.most, int(-(-total // chunking.bytes)))
    cuts: list[dt.datetime] = []
    done, wanted = 0.0, 1
    for start, end, size in pieces:
        while wanted < count and done + size > total * wanted / count:
            share = (total * wanted / count - done) / size
            # Whole numbers, and in the stretch: rounded, the ends of all time are beyond what a time can be.
            moment = min(start + int((end - start) * share), end - 1)
            cut = unit.floor(EPOCH + moment * MICROSECOND)
            if cut > (cuts[-1] if cuts else span.start):
                cuts.append(cut)
            wanted += 1
        done += size
    return tuple(cuts)


def times_read(files: Iterable[tuple[EventRanges | None, int]], cuts: Sequence[dt.datetime]) -> float:
    """Return how often a byte is read on average: a file is for each chunk that its event times reach into."""
    total = read = 0
    for ranges, size in files:
        total += size
        read += size * (len(cuts) + 1 if ranges is None else max(1, _reached(ranges, cuts)))
    return read / total if total else 1.0


def _reached(ranges: EventRanges, cuts: Sequence[dt.datetime]) -> int:
    found, after = 0, 0
    for item in ranges.ranges:
        first, last = max(bisect_right(cuts, item.start), after), bisect_left(cuts, item.end)
        found += max(0, last + 1 - first)
        after = max(after, last + 1)
    return found


def _density(
    work: EventRanges, files: Iterable[tuple[EventRanges | None, int]], likely: TimeRange
) -> list[tuple[int, int, float]]:
    """Return consecutive stretches of the work (micros from, to, bytes), along each of which bytes lie evenly."""
    span = work.span()
    changes: dict[int, list[float]] = {}

    def at(moment: dt.datetime) -> list[float]:
        return changes.setdefault((moment - EPOCH) // MICROSECOND, [0.0, 0])

    for ranges, size in files:
        held = span if ranges is None else ranges.span()
        if held is not None:
            start, end = held.start, held.end
            if start < likely.end and end > likely.start:
                start = max(start, likely.start)
                end = likely.end if end - likely.end > _AHEAD else end
            rate = size / ((end - start) // MICROSECOND)
            at(start)[0] += rate
            at(end)[0] -= rate
    for item in work.ranges:
        at(item.start)[1] += 1
        at(item.end)[1] -= 1
    found: list[tuple[int, int, float]] = []
    moments = sorted(changes)
    rate, inside = 0.0, 0.0
    for moment, after in pairwise(moments):
        rate += changes[moment][0]
        inside += changes[moment][1]
        if inside and rate > 0:
            found.append((moment, after, rate * (after - moment)))
    return found
