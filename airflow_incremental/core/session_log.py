"""What the session log keeps of processes and sessions, and the signal that a session's publish is.

The log is for people and their SQL. Nothing is ever decided by it, and what is in the tables that are loaded makes it again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from airflow_incremental.core.plan import Owner, Plan
from airflow_incremental.core.ranges import EventRanges, parse_time
from airflow_incremental.core.signal_values import Value
from airflow_incremental.core.watermark import Watermark

#: Who emits signals of sessions, and their parameter that says whose session it was.
SOURCE = "session"
PROCESS_PARAM = "process"

SessionState = Literal["planned", "loaded", "audited", "published", "failed", "ended"]


@attrs.frozen(kw_only=True)
class LoadKey:
    """Which load: its process, on which table of which catalog."""

    iceberg_conn_id: str
    target: str
    process: str


@attrs.frozen(kw_only=True)
class SessionEntry:
    """What is known of a session at one of its steps; None is what this step does not know.

    The fields are the columns of the table ``session``, which says what they mean.
    """

    session: str
    state: SessionState
    mode: str
    kind: str
    owner: Owner
    reason: str | None = None
    error: str | None = None
    plan: Mapping[str, Any] | None = None
    ranges: Sequence[str] | None = None
    late_ranges: Sequence[str] | None = None
    chunks: int | None = None
    chunks_done: int | None = None
    rows: int | None = None
    late_rows: int | None = None
    quarantined_rows: int | None = None
    verdict: str | None = None
    snapshot_id: int | None = None
    complete_through: dt.datetime | None = None
    watermark: Mapping[str, Any] | None = None
    previous_watermark: Mapping[str, Any] | None = None
    planned_at: dt.datetime | None = None
    loaded_at: dt.datetime | None = None
    audited_at: dt.datetime | None = None
    published_at: dt.datetime | None = None
    rebuilt: bool = False


@attrs.frozen(kw_only=True)
class ProcessEntry:
    """How far a process is: its last publish. The fields are the columns of the table ``process``."""

    mode: str
    session: str
    snapshot_id: int
    watermark: Watermark
    previous_watermark: Mapping[str, Any] | None
    published_at: dt.datetime


@attrs.frozen(kw_only=True)
class PublishedFacts:
    """What the signal of a session says.

    :param ranges: event times whose rows changed, as ``EventRanges.to_json`` gives them.
    :param complete_through: event time (exclusive) up to which the target is complete now; it may have fallen.
    :param details: for the payload: rows, late rows and the like.
    """

    session: str
    snapshot_id: int
    kind: str
    ranges: Sequence[str]
    complete_through: dt.datetime | None
    details: Mapping[str, Any] = attrs.field(factory=dict)


def planned(plan: Plan) -> SessionEntry:
    """Return the entry of a session that was planned."""
    return SessionEntry(
        session=plan.session,
        state="planned",
        mode=plan.mode,
        kind=plan.kind,
        owner=plan.owner,
        reason=plan.reason,
        plan=plan.to_json(),
        ranges=plan.affected.to_json(),
        late_ranges=plan.late.to_json(),
        chunks=len(plan.chunks) if plan.cuts else None,
        late_rows=plan.rows_late,
        complete_through=plan.watermark.complete_through,
        watermark=plan.watermark.to_json(),
        previous_watermark={s.name: None if s.base is None else s.base.to_json() for s in plan.sources},
        planned_at=plan.created_at,
    )


def session_signal(key: LoadKey, facts: PublishedFacts) -> tuple[dict[str, Value], dict[str, Any]]:
    """Return parameters and payload of a session's signal, whose name is the target and whose identity is the session.

    Parameters: ``process``, ``iceberg_conn_id``, ``kind`` (load, positions, reload, restatement; by hand: rollback, set, reset),
    ``snapshot_id``, ``complete_through`` and, if rows changed, ``changed_from`` and ``changed_to``, the span of their event times
    (half-open). So a late republish is a new fact, and so is a fall of complete-through. What is not known is left out.
    """
    span = EventRanges.from_json(list(facts.ranges)).span()
    params: dict[str, Value | None] = {
        PROCESS_PARAM: key.process,
        "iceberg_conn_id": key.iceberg_conn_id,
        "kind": facts.kind,
        "snapshot_id": facts.snapshot_id,
        "complete_through": facts.complete_through,
        "changed_from": None if span is None else span.start,
        "changed_to": None if span is None else span.end,
    }
    payload = {"session": facts.session, "ranges": list(facts.ranges), **facts.details}
    return {name: value for name, value in params.items() if value is not None}, payload


def published_facts(summary: Mapping[str, Any]) -> PublishedFacts:
    """Return what a load's summary (see ``operators.reports``) says of the last publish."""
    through = summary["complete_through"]
    return PublishedFacts(
        session=summary["session"],
        snapshot_id=summary["snapshot_id"],
        kind=summary["kind"] or "load",
        ranges=summary["ranges"],
        complete_through=None if through is None else parse_time(through),
        details={name: summary[name] for name in ("mode", "rows", "late_rows", "quarantined_rows", "skipped")},
    )
