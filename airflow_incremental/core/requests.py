"""What somebody asks to be computed again on purpose: a range of event times, and why."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal, get_args

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import TimeRange, format_time, parse_time, utc

Cause = Literal["backfill", "form", "command"]

_WORDS = {"backfill": "backfill", "form": "restatement by form", "command": "restatement by command"}
#: How a person calls the two ends.
_ENDS = {"backfill": ("start", "end"), "form": ("restate_from", "restate_to"), "command": ("--from", "--to")}
_BOTH = {
    "backfill": "",
    "form": "fill in both, or leave both empty: then the run loads what changed",
    "command": "name both, or none: then it is shown what a scheduled run would do",
}
#: Of a reason, in characters: it becomes part of a snapshot's summary.
_REASON_LIMIT = 500


@attrs.frozen(kw_only=True)
class RestateRequest:
    """A restatement that somebody asks for, whatever the watermark: event times ``[start, end)``, UTC.

    :param cause: a ``backfill`` run, whose data interval it is; the ``form`` of "Trigger DAG"; or a ``command``.
    :param reason: why, in a person's words.
    :param by: who, as Airflow knows the person.
    """

    range: TimeRange
    cause: Cause
    reason: str = ""
    by: str = ""

    @classmethod
    def read(cls, start: Any, end: Any, *, cause: Cause, reason: Any = None, by: Any = None) -> RestateRequest:
        """Read a request from what a run or a form holds.

        :param start: first event time: a datetime with a zone, or ISO 8601 text with one.
        :param end: end of the event times, exclusive.
        :raises ArgumentError: a time is missing, has no zone or is none, or the range is empty.
        """
        if cause not in get_args(Cause):
            raise ArgumentError(f"cause is {cause!r}", expected=f"one of {', '.join(get_args(Cause))}")
        first, last = _ENDS[cause]
        if start is None or end is None:
            missing = f"{last} and no {first}" if start is None else f"{first} and no {last}"
            raise ArgumentError(
                f"a {_WORDS[cause]} has " + ("no range" if start is None and end is None else missing),
                expected="both ends of the event times to compute again: from (inclusive) and to (exclusive)",
                hint=_BOTH[cause],
            )
        begin, stop = _moment(start, what=first), _moment(end, what=last)
        if begin >= stop:
            raise _no_range(begin, stop, cause=cause, first=first, last=last)
        return cls(range=TimeRange(begin, stop), cause=cause, reason=_text(reason), by=_text(by))

    @property
    def ends(self) -> tuple[str, str]:
        """What the two ends are called where they were written."""
        return _ENDS[self.cause]

    def __str__(self) -> str:
        who = f", asked for by {self.by}" if self.by else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{_WORDS[self.cause]} of {self.range}{who}{why}"


def _no_range(begin: dt.datetime, stop: dt.datetime, *, cause: Cause, first: str, last: str) -> ArgumentError:
    if begin == stop:
        found = f"{first} and {last} are both {format_time(begin)}"
        hint = "write a later end, such as the start of the hour after the last one that is meant"
    else:
        found, hint = (
            f"{first} is {format_time(begin)} and {last} is {format_time(stop)}, which is before it",
            "exchange them",
        )
    if cause == "backfill":
        hint = (
            "this run's data interval has no length: in Airflow 3 a cron expression alone makes such runs. Give the DAG "
            "CatchUpTimetable(...) or CronDataIntervalTimetable(...), or restate by form"
        )
    return ArgumentError(
        f"a {_WORDS[cause]} has no range: {found}", expected="a start before the end, which is exclusive", hint=hint
    )


def _moment(value: Any, *, what: str) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return utc(value, what=what)
    if isinstance(value, str):
        return parse_time(value, what=what)
    raise ArgumentError(
        f"{what} is {value!r}",
        expected="a time with a zone",
        hint="write it like 2024-01-01T00:00:00Z",
    )


def _text(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    if len(text) > _REASON_LIMIT:
        raise ArgumentError(
            f"a reason or name of {len(text):,} characters is given", expected=f"{_REASON_LIMIT} characters at most"
        )
    return text
