"""Time zones, as ticks need them: from an instant to what a clock on the wall shows, and back."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

from airflow_incremental.core.errors import ArgumentError

UTC = dt.timezone.utc
#: More than clocks have ever been moved at once (Samoa left out a day in 2011).
_FAR = dt.timedelta(hours=26)


class Zone:
    """A time zone.

    :param given: an IANA name, a ``tzinfo`` that has one (``zoneinfo``'s and pendulum's have), or one of a fixed offset.
    :raises ArgumentError: it is nothing of the kind.
    """

    def __init__(self, given: Any) -> None:
        key = getattr(given, "key", None) if isinstance(given, dt.tzinfo) else given
        try:
            #: How a timetable stores it: by name, or the seconds of its offset.
            self.tz, self.stored = _named(key) if isinstance(key, str) else _fixed(given)
        except (ValueError, LookupError, OSError):
            raise ArgumentError(
                f"timezone is {given!r}",
                expected="the name of a time zone such as 'UTC' or 'Europe/Berlin', or a tzinfo that has one",
            ) from None

    @classmethod
    def restore(cls, stored: str | int) -> Zone:
        """Return the zone that was stored."""
        return cls(stored if isinstance(stored, str) else dt.timezone(dt.timedelta(seconds=stored)))

    @property
    def name(self) -> str:
        """How a person calls it."""
        return self.stored if isinstance(self.stored, str) else str(self.tz)

    @property
    def is_utc(self) -> bool:
        """Whether clocks there always show UTC."""
        return self.tz is UTC

    def wall(self, moment: dt.datetime) -> dt.datetime:
        """Return what a clock on the wall shows, as a naive time."""
        return moment.astimezone(self.tz).replace(tzinfo=None, fold=0)

    def instants(self, wall: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
        """Return, in UTC and in order, when a clock shows a time, by the offsets before and after a move of the clocks.

        Both are the same where it shows that time once. Where clocks are put forward over it, it is never shown: the later of the
        two is as long after the move as the time is after the one from which the clocks were moved.
        """
        one, two = (wall.replace(tzinfo=self.tz, fold=fold).astimezone(UTC) for fold in (0, 1))
        return min(one, two), max(one, two)

    def instant(self, wall: dt.datetime) -> dt.datetime:
        """Return the one instant that stands for a time on the wall, as Airflow's own timetables choose it.

        The second of two, and one after the clocks were put forward for a time that they never show.
        """
        return self.instants(wall)[1]

    def shift(self, moment: dt.datetime) -> dt.timedelta:
        """Return by how much clocks are moved about the time of ``moment``; nothing on nearly all days."""
        here = self._offset(moment)
        return max(abs(here - self._offset(moment - _FAR)), abs(here - self._offset(moment + _FAR)))

    def _offset(self, moment: dt.datetime) -> dt.timedelta:
        return self.wall(moment) - moment.replace(tzinfo=None)


def _named(name: str) -> tuple[dt.tzinfo, str]:
    return (UTC, "UTC") if name.upper() == "UTC" else (ZoneInfo(name), name)


def _fixed(given: Any) -> tuple[dt.tzinfo, str | int]:
    offset = given.utcoffset(None) if isinstance(given, dt.tzinfo) else None
    if offset is None:
        raise LookupError
    return (dt.timezone(offset), int(offset.total_seconds())) if offset else (UTC, "UTC")
