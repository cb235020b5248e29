"""What somebody asks to be computed again on purpose: a range of event times, and why."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal, get_args

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import TimeRange, parse_time, utc

Cause = Literal["backfill", "form", "command"]

_WORDS = {"backfill": "backfill", "form": "restatement by form", "command": "restatement by command"}
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
        first, last = ("restate_from", "restate_to") if cause == "form" else ("the start", "the end")
        if start is None or end is None:
            missing = first if start is None else last
            raise ArgumentError(
                f"a {_WORDS[cause]} has no {missing.removeprefix('the ')}",
                expected="both ends of the event times to compute again: from (inclusive) and to (exclusive)",
            )
        begin, stop = _moment(start, what=first), _moment(end, what=last)
        if begin >= stop:
            raise ArgumentError(
                f"a {_WORDS[cause]} goes from {begin.isoformat()} to {stop.isoformat()}, which is not after it",
                expected="a start before the end, which is exclusive",
                hint="this run's data interval has no length: in Airflow 3 a cron expression alone makes such runs. Give the DAG "
                "CatchUpTimetable(...) or CronDataIntervalTimetable(...), or restate by form"
                if cause == "backfill"
                else "exchange them, or write the end that is meant",
            )
        return cls(range=TimeRange(begin, stop), cause=cause, reason=_text(reason), by=_text(by))

    def __str__(self) -> str:
        who = f", asked for by {self.by}" if self.by else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{_WORDS[self.cause]} of {self.range}{who}{why}"


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
