"""How much of the pending work a session takes on, and what becomes of the rest.

``max_lookback`` leaves out what is older than that before the published complete-through; ``budget`` what are more units of the
target than a session should compute. Work that is cut off is an error, or kept in the watermark as ``skipped``: part of every later
plan's work until it is computed, so that it is caught up on by itself as soon as the thresholds allow.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

from airflow_incremental.core.errors import ArgumentError, WorkCutOff
from airflow_incremental.core.literals import is_template
from airflow_incremental.core.ranges import MIN_TIME, EventRanges, Grain, TimeRange, format_time

if TYPE_CHECKING:
    from airflow_incremental.core.spec import ProcessSpec

#: What a plan does with work that a threshold cuts off.
OnSkipped = Literal["fail", "keep"]
#: Ranges a watermark keeps as skipped; of more, those with the smallest gaps are joined, so that the property of the target that
#: holds the watermark stays below 2 KB. What lies between is then computed once more than needed.
SKIPPED_RANGES = 12
#: Modes whose work is made of ranges of event time.
_MODES = ("overwrite", "stateful")


def read_lookback(value: Any) -> dt.timedelta | None:
    """Read ``max_lookback``: a timedelta, seconds (as text, too, as templates render them), or None."""
    if value is None or is_template(value):
        return value  # type: ignore[no-any-return]  # a template is carried along until it is rendered
    try:
        found = value if isinstance(value, dt.timedelta) else dt.timedelta(seconds=float(value))
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or isinstance(value, bool) or found < dt.timedelta(0):
        raise ArgumentError(f"max_lookback is {value!r}", expected="a timedelta, or seconds, of 0 or more")
    return found


def read_budget(value: Any) -> int | None:
    """Read ``budget``: a whole number (as text, too, as templates render it), or None."""
    if value is None or is_template(value):
        return value  # type: ignore[no-any-return]  # a template is carried along until it is rendered
    found = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ArgumentError(
            f"budget is {value!r}",
            expected="how many units of the target a session computes at most: a whole number from 1",
        )
    return found


def check_thresholds(process: str, mode: str, given: Mapping[str, Any]) -> None:
    """Refuse thresholds where work is not made of ranges.

    :param given: argument -> value, None where it was left out.
    :raises ArgumentError: with the argument.
    """
    for name, value in given.items():
        if value is not None and mode not in _MODES and not is_template(mode):
            raise ArgumentError(
                f"process {process!r} has mode={mode!r} and {name}={str(value)!r}",
                expected=f"{name} in the modes {' and '.join(map(repr, _MODES))}, whose work is made of ranges of event time",
                hint=f"leave {name} out",
            )


@attrs.frozen(kw_only=True)
class Share:
    """What a session takes on of the work, and what it does not: because it is too old, or too much."""

    now: EventRanges = EventRanges()
    old: EventRanges = EventRanges()
    beyond: EventRanges = EventRanges()


@attrs.frozen(kw_only=True)
class Thresholds:
    """The thresholds of one plan.

    :param since: start of the first unit that is not older than ``max_lookback``; None leaves nothing out.
    :param budget: units a session computes at most; None for any number.
    """

    process: str
    grain: Grain
    since: dt.datetime | None = None
    budget: int | None = None
    max_lookback: dt.timedelta | None = None
    on_skipped: OnSkipped = "fail"
    #: Whether what lies between skipped ranges may be rows that the sources do not give back.
    exact: bool = False

    @classmethod
    def of(cls, spec: ProcessSpec, *, before: dt.datetime | None, grain: Grain) -> Thresholds:
        """Return the thresholds of a process.

        :param before: complete-through as it was published last; None on a first run, to which nothing is too old.
        """
        since = None
        if spec.max_lookback is not None and before is not None:
            since = grain.floor(before - spec.max_lookback) if before - MIN_TIME > spec.max_lookback else None
        return cls(
            process=spec.process,
            grain=grain,
            since=since,
            budget=spec.budget,
            max_lookback=spec.max_lookback,
            on_skipped=spec.on_skipped,
            exact=spec.initial.adopt,
        )

    def of_set(self, pending: EventRanges) -> Share:
        """Cut work whose units do not depend on each other: the newest are taken."""
        old = pending.below(self.since)
        young = pending.subtract(old)
        now = young if self.budget is None else _newest(young, self.budget, self.grain)
        return Share(now=now, old=old, beyond=young.subtract(now))

    def in_order(self, pending: EventRanges, end: dt.datetime | None) -> Share:
        """Cut work in which every unit depends on those before: one range, from the first one that is not too old.

        The oldest units of it are taken. Newer ones without them would be computed on a state that is not right yet, and all over
        again when it is; this way a run goes on where the last one stopped.
        """
        old = pending.below(self.since)
        span = pending.subtract(old).span()
        if span is None or end is None:
            return Share(old=old)
        whole = EventRanges((TimeRange(span.start, end),))
        now = whole if self.budget is None else _oldest(span.start, end, self.budget, self.grain)
        return Share(now=now, old=old, beyond=whole.subtract(now))

    def kept(self, share: Share, *, below: dt.datetime | None = None) -> EventRanges:
        """Return what the watermark keeps as skipped.

        :param below: what is at or past it is pending by itself, and need not be kept.
        :raises WorkCutOff: something is cut off, and the process does not ask to keep it.
        """
        if self.on_skipped == "fail" and (share.old or share.beyond):
            raise self._cut_off(share)
        beyond = share.beyond if below is None else share.beyond.below(below)
        skipped = share.old.union(beyond)
        if self.exact and len(skipped.ranges) > SKIPPED_RANGES:
            raise WorkCutOff(
                f"{len(skipped.ranges)} separate ranges of process {self.process!r} would be skipped: {skipped.coalesce(3)}, "
                "joined to fewer, and the rows between them that the target was adopted with would be lost when they are computed",
                expected=f"at most {SKIPPED_RANGES} ranges of an adopted target",
                hint="raise max_lookback or budget for this run",
            )
        return skipped.coalesce(SKIPPED_RANGES)

    def _cut_off(self, share: Share) -> WorkCutOff:
        why = []
        if share.old and self.since is not None:
            why.append(
                f"{self._count(share.old)} older than max_lookback={self.max_lookback}, that is before {format_time(self.since)} "
                f"({share.old.coalesce(3)})"
            )
        if share.beyond:
            why.append(f"{self._count(share.beyond)} more than budget={self.budget} ({share.beyond.coalesce(3)})")
        return WorkCutOff(
            f"a threshold would cut off pending work of process {self.process!r}: {' and '.join(why)}",
            expected="all that is pending within max_lookback and budget; nothing was changed",
            hint="raise the threshold for this run, or set on_skipped='keep': what is cut off is kept in the watermark as skipped, "
            "and caught up on as soon as the threshold allows",
        )

    def _count(self, ranges: EventRanges) -> str:
        number = ranges.count(self.grain)
        return f"{number:,} {self.grain.value}{'' if number == 1 else 's'}"


def _newest(pending: EventRanges, most: int, grain: Grain) -> EventRanges:
    """Return the last ``most`` units of a set of whole units; rows without an event time count as one, and as new."""
    left, found = most - pending.nulls, list[TimeRange]()
    for item in reversed(pending.ranges):
        if left <= 0:
            break
        start, taken = item.end, 0
        while start > item.start and taken < left:
            start, taken = max(grain.before(start), item.start), taken + 1
        found.append(TimeRange(start, item.end))
        left -= taken
    return EventRanges(tuple(found), nulls=pending.nulls)


def _oldest(start: dt.datetime, end: dt.datetime, most: int, grain: Grain) -> EventRanges:
    """Return the first ``most`` units of a range."""
    stop = start
    for _ in range(most):
        if stop >= end:
            break
        stop = grain.after(stop)
    return EventRanges((TimeRange(start, min(stop, end)),))
