"""Up to which event time a source counts as complete: a rule per source, stated by the author or known from who wrote it.

Lateness has no natural end, so completeness is a convention, and each source says which (Netflix's Psyberg calls the result the
valid-to timestamp, VTTS). Being complete does not mean that nothing comes any more: what still comes is late, and is loaded too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal, get_args

import attrs

from airflow_incremental.core.errors import ArgumentError

Rule = Literal["published", "latest_event", "arrival", "property"]
_ALLOWED = (
    "'published', 'latest_event', 'arrival', or CompleteThrough.latest_event(lateness=...), .arrival(lateness=...) "
    "or .property(name)"
)


@attrs.frozen(kw_only=True)
class CompleteThrough:
    """How a source tells up to which event time it is complete. Make one with a class method; all results are cut to whole units.

    :param rule: ``published``: what the processes that load the table published for it, the least of them. ``latest_event``: the
        latest event time seen so far, minus ``lateness``. ``arrival``: the commit time of the snapshot that is read, minus
        ``lateness``. ``property``: the table property ``name``, an ISO 8601 time with zone, or a date (UTC).
    :param lateness: seconds that events may take to arrive.
    :param name: table property.
    """

    rule: Rule
    lateness: float = 0.0
    name: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ArgumentError(f"complete_through has the rule {self.rule!r}", expected=_ALLOWED)
        if isinstance(self.lateness, bool) or not isinstance(self.lateness, (int, float)) or self.lateness < 0:
            raise ArgumentError(
                f"the lateness of complete_through is {self.lateness!r}",
                expected="a timedelta, or seconds, of 0 or more",
            )
        if (self.rule == "property") != bool(self.name):
            raise ArgumentError(
                f"complete_through has the rule {self.rule!r} and the property name {self.name!r}",
                expected="a name for the rule 'property', and only there",
                hint="write CompleteThrough.property('landing.complete-through')",
            )

    @classmethod
    def published(cls) -> CompleteThrough:
        """As complete as the processes that load the table say it is."""
        return cls(rule="published")

    @classmethod
    def latest_event(cls, *, lateness: dt.timedelta | float = 0.0) -> CompleteThrough:
        """Complete up to the latest event seen, minus the time that events may take to arrive."""
        return cls(rule="latest_event", lateness=_seconds(lateness))

    @classmethod
    def arrival(cls, *, lateness: dt.timedelta | float = 0.0) -> CompleteThrough:
        """Complete up to when the snapshot was committed, minus the time that events may take to arrive."""
        return cls(rule="arrival", lateness=_seconds(lateness))

    @classmethod
    def property(cls, name: str) -> CompleteThrough:
        """Complete up to what somebody writes into a property of the table."""
        return cls(rule="property", name=name)

    @classmethod
    def parse(cls, value: Any) -> CompleteThrough | None:
        """Read what an author wrote: one of these, a rule's name, or the plain form of one."""
        if value is None or isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(rule=value)  # type: ignore[arg-type]
        if isinstance(value, Mapping) and "rule" in value and value.keys() <= {"rule", "lateness", "name"}:
            return cls(**value)
        raise ArgumentError(f"complete_through is {value!r}", expected=_ALLOWED)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, the form Airflow can template and serialise."""
        return attrs.asdict(self)

    def before(self, moment: dt.datetime) -> dt.datetime:
        """Return a moment less the allowed lateness."""
        return moment - dt.timedelta(seconds=self.lateness)


def _seconds(lateness: dt.timedelta | float) -> float:
    return lateness.total_seconds() if isinstance(lateness, dt.timedelta) else lateness
