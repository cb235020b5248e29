"""What a ``stateful`` process computes: from the first event time that is affected through all that is complete.

Psyberg's rule for output that depends on the order of events, made exact: with B the least complete-through of the drivers, P the
event time processed so far and A the affected event times below max(P, B), the range is [min(A and, if B > P, P), max(P, B)).
Everything at or past P is unprocessed by definition, so there is no list of pending work; what changes at or past B waits there.

Where no state carries over from one unit to the next (``catch_up="missed"``), only A and [P, B) are computed.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Literal

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import EventRanges, Grain, TimeRange

#: Name under which a transform reads the target's state before the step.
STATE = "state"
#: ``whole_range``: everything from the first change on. ``missed``: only the units that changed or are newly complete.
CatchUp = Literal["whole_range", "missed"]
_LATEST_BY = re.compile(r"latest_by\(\s*(\w+(?:\s*,\s*\w+)*)\s*\)")


@attrs.frozen(kw_only=True)
class State:
    """What a transform sees of the target before the step it computes.

    :param kind: ``previous_step``: the rows of the step (or unit of the target) right before. ``latest_by``: of each key the row
        with the latest event time before.
    :param keys: columns of the target that make up a key.
    """

    kind: Literal["previous_step", "latest_by"]
    keys: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: Any) -> State | None:
        """Read ``"previous_step"``, ``"latest_by(column, ...)"`` or None."""
        if text is None or isinstance(text, cls):
            return text
        if text == "previous_step":
            return cls(kind="previous_step")
        match = _LATEST_BY.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ArgumentError(
                f"state is {text!r}", expected="'previous_step', 'latest_by(<key column>, ...)', or None for no state"
            )
        return cls(kind="latest_by", keys=tuple(k.strip() for k in match[1].split(",")))

    def __str__(self) -> str:
        return self.kind if self.kind == "previous_step" else f"latest_by({', '.join(self.keys)})"


def end_of(*, complete: dt.datetime | None, processed: dt.datetime | None) -> dt.datetime | None:
    """Return max(P, B), up to which a session may compute; None while neither is known."""
    return max((m for m in (complete, processed) if m is not None), default=None)


def pending(affected: EventRanges, *, complete: dt.datetime | None, processed: dt.datetime | None) -> EventRanges:
    """Return what waits to be computed: A, and what is complete and was never processed.

    :param affected: event times of the drivers' changes, in whole units of the target.
    :param complete: B, up to which all drivers are complete; None while one of them does not say.
    :param processed: P, up to which the target has been computed; None on a first run, which starts at the first event.
    """
    found = affected.below(end_of(complete=complete, processed=processed))
    span = found.span()
    since = processed if processed is not None or span is None else span.start
    if since is not None and complete is not None and complete > since:
        found = found.union(EventRanges((TimeRange(since, complete),)))
    return found


def _cut(range_: TimeRange, step: Grain | None) -> tuple[TimeRange, ...]:
    """Return a range in steps of whole units, in order; all of it at once without a step."""
    if step is None:
        return (range_,)
    found, start = [], range_.start
    while start < range_.end:
        end = min(step.after(start), range_.end)
        found.append(TimeRange(start, end))
        start = end
    return tuple(found)


def steps_of(ranges: EventRanges, step: Grain | None) -> tuple[TimeRange, ...]:
    """Return the steps in which ranges are computed, in order."""
    return tuple(part for whole in ranges.ranges for part in _cut(whole, step))
