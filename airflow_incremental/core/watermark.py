"""Watermarks: how far a process has consumed its sources, in a form that people can read in a table property.

One watermark per (process, source) is a position in the source's history, not a clock: snapshot id, sequence number, commit time,
table uuid. (Psyberg keeps one commit time per process; a position cannot skip a snapshot that lands late.)
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from airflow_incremental.core.ranges import EventRanges, format_time, parse_time
from airflow_incremental.core.tables import ScopeValue


@attrs.frozen(kw_only=True)
class SourcePosition:
    """A snapshot of a source that was consumed, with what is needed to recognise it after it expired.

    ``snapshot_id`` and ``sequence_number`` are None for a source that had no snapshot yet.
    """

    snapshot_id: int | None
    sequence_number: int | None
    committed_at: dt.datetime | None
    table_uuid: str
    #: Latest event time seen up to here.
    latest_event: dt.datetime | None = None
    #: Event time (exclusive) up to which the source counted as complete here, by its rule; the start of a unit of the target.
    complete_through: dt.datetime | None = None
    #: Field id of the column the event times were read from: renamed, it is still the same.
    event_field: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a summary or a property."""
        return {
            "snapshot": self.snapshot_id,
            "sequence": self.sequence_number,
            "committed": _text(self.committed_at),
            "uuid": self.table_uuid,
            "latest_event": _text(self.latest_event),
            "complete_through": _text(self.complete_through),
            "event_field": self.event_field,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SourcePosition:
        """Read what ``to_json`` wrote."""
        return cls(
            snapshot_id=value["snapshot"],
            sequence_number=value["sequence"],
            committed_at=_time(value["committed"]),
            table_uuid=value["uuid"],
            latest_event=_time(value["latest_event"]),
            complete_through=_time(value["complete_through"]),
            event_field=value["event_field"],
        )


@attrs.frozen(kw_only=True)
class Watermark:
    """What a process's last publish stands for.

    :param positions: source table name as declared in ``sources`` -> position consumed.
    :param complete_through: event time (exclusive) up to which the target is complete: the least of its sources, None until each of
        them says. It may fall. (Netflix calls it the valid-to timestamp, VTTS.)
    :param processed_through: event time (exclusive) up to which a ``stateful`` target has been computed; None in other modes.
    :param scope: the rows of the target it speaks of; None is the whole table.
    :param skipped: event times that are affected by what was consumed and were not computed, because a threshold cut them off.
    :param event_field: field id of the target's column whose ranges are replaced; None where none are.
    :param key_fields: field ids of the target's columns by whose values rows are replaced (mode ``merge``).
    """

    positions: Mapping[str, SourcePosition]
    complete_through: dt.datetime | None = None
    processed_through: dt.datetime | None = None
    skipped: EventRanges = EventRanges()
    scope: Mapping[str, Sequence[ScopeValue]] | None = None
    event_field: int | None = None
    key_fields: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a summary or a property."""
        return {
            "positions": {name: p.to_json() for name, p in sorted(self.positions.items())},
            "complete_through": _text(self.complete_through),
            "processed_through": _text(self.processed_through),
            "skipped": self.skipped.to_json(),
            "scope": None if self.scope is None else {k: list(v) for k, v in self.scope.items()},
            "event_field": self.event_field,
            "key_fields": list(self.key_fields),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Watermark:
        """Read what ``to_json`` wrote."""
        scope = value["scope"]
        return cls(
            positions={name: SourcePosition.from_json(p) for name, p in value["positions"].items()},
            complete_through=_time(value["complete_through"]),
            processed_through=_time(value["processed_through"]),
            skipped=EventRanges.from_json(value.get("skipped", ())),
            scope=None if scope is None else {k: tuple(v) for k, v in scope.items()},
            event_field=value["event_field"],
            key_fields=tuple(value.get("key_fields", ())),
        )

    def dumps(self) -> str:
        """Return compact, stable JSON."""
        return json.dumps(self.to_json(), separators=(",", ":"), sort_keys=True)


@attrs.frozen(kw_only=True)
class Published:
    """The last publish of a process that is still part of the target's ``main``: where the next session starts."""

    session: str
    snapshot_id: int
    watermark: Watermark
    #: Who ran it, see ``core.plan.Owner``; empty for one set by hand.
    owner: Mapping[str, Any] = attrs.field(factory=dict)
    #: Ranges written, as ``EventRanges.to_json`` gives them.
    ranges: tuple[str, ...] = ()
    #: Everything the summary says of the session (rows, late rows, files), for reports.
    summary: Mapping[str, str] = attrs.field(factory=dict, eq=False)
    #: Whether the kept history of ``main`` shows the snapshot. If not, it had to be proven from what the next compaction or
    #: clean-up may take away, so the watermark should be published again.
    anchored: bool = attrs.field(default=True, eq=False)


def _text(moment: dt.datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


def _time(text: str | None) -> dt.datetime | None:
    return None if text is None else parse_time(text)
