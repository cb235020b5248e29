"""Files by their event times, so that those of many parts of a plan are found without a look at every file for each part."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Generic, TypeVar

import attrs

from airflow_incremental.core.ranges import MIN_TIME, EventRanges
from airflow_incremental.iceberg.scan import may_hold

F = TypeVar("F")


@attrs.frozen
class _Placed(Generic[F]):
    """A file with what is known of its event times; None is unknown."""

    number: int
    ranges: EventRanges | None
    nulls: int | None
    file: F


@attrs.frozen(kw_only=True)
class FileIndex(Generic[F]):
    """Files that may be asked for by event times."""

    #: All of them, as they were given.
    _files: list[F]
    #: Files of known event times by the start of these, and up to where any file reaches that starts no later than one.
    _timed: list[_Placed[F]]
    _starts: list[dt.datetime]
    _reach: list[dt.datetime]
    #: Files with rows that have no event time, or may have.
    _with_nulls: list[_Placed[F]]
    #: Files of unknown event times.
    _unknown: list[_Placed[F]]

    @classmethod
    def of(cls, files: Iterable[tuple[F, EventRanges | None, int | None]]) -> FileIndex[F]:
        """Build the index of files, each with its event times and its number of rows without one; None is unknown."""
        placed = [_Placed(number, ranges, nulls, file) for number, (file, ranges, nulls) in enumerate(files)]
        timed = sorted((p for p in placed if p.ranges), key=_start)
        reach: list[dt.datetime] = []
        for item in timed:
            end = item.ranges.ranges[-1].end if item.ranges else MIN_TIME
            reach.append(max(end, reach[-1]) if reach else end)
        return cls(
            files=[item.file for item in placed],
            timed=timed,
            starts=[_start(item) for item in timed],
            reach=reach,
            with_nulls=[p for p in placed if p.nulls != 0],
            unknown=[p for p in placed if p.ranges is None],
        )

    def holding(self, wanted: EventRanges | None) -> list[F]:
        """Return the files that may hold a row of these event times (None: all files), in the order in which they were given."""
        if wanted is None:
            return self._files
        near = list(self._unknown)
        if wanted.nulls:
            near += self._with_nulls
        seen = 0
        # Ranges are in order, and so are the files near them: each is looked at once, even if one of them spans all ranges.
        for item in wanted.ranges:
            end = bisect_left(self._starts, item.end)
            near += self._timed[max(seen, bisect_right(self._reach, item.start)) : end]
            seen = max(seen, end)
        found = {p.number: p.file for p in near if may_hold(p.ranges, p.nulls, wanted)}
        return [found[number] for number in sorted(found)]


def _start(placed: _Placed[F]) -> dt.datetime:
    return placed.ranges.ranges[0].start if placed.ranges else MIN_TIME
