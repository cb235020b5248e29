"""What one source contributes to a plan: its changes under the policies, and up to where it is consumed and complete then."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import attrs

from airflow_incremental.core.changes import ChangeSet, FileChange, unknown_range
from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import NullEventTime, SourceRewritten
from airflow_incremental.core.plan import Derivation, SourcePlan
from airflow_incremental.core.ranges import MICROSECOND, EventRanges, Grain
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.watermark import SourcePosition


@attrs.frozen(kw_only=True)
class SourceFacts:
    """What planning needs to know of one source: the head that is pinned and what changed since ``base``."""

    base: SourcePosition | None
    pinned: SourcePosition
    changes: ChangeSet
    #: Rows added below what was complete before; counted exactly where bounds cannot tell.
    rows_late: int = 0
    #: Whether the old position may soon be expired from the source, so that it has to be moved although nothing changed.
    position_is_old: bool = False
    #: How the source tells up to where it is complete, and what it told (for ``latest_event`` planning knows by itself).
    rule: CompleteThrough = attrs.field(factory=CompleteThrough.latest_event)
    told_through: dt.datetime | None = None
    #: In ``merge``: live files that may hold rows of changed keys, and the bytes of their key columns.
    scan_files: int = 0
    scan_bytes: int = 0
    #: Column -> least and greatest value among the changed rows.
    bounds: Mapping[str, list[Any] | None] = attrs.field(factory=dict)
    #: Start from here without loading anything (``initial='current'`` and its like).
    from_now: bool = False


@attrs.frozen(kw_only=True)
class SourcePart:
    """What one source contributes: its part of the plan, the event times it affects and those that are replaced."""

    plan: SourcePlan
    affected: EventRanges
    replaced: EventRanges


def source_part(spec: ProcessSpec, name: str, facts: SourceFacts, grain: Grain) -> SourcePart:
    """Apply the policies to one source's changes.

    :raises SourceRewritten: see ``on_rewrite``.
    :raises NullEventTime: see ``on_null_event_time``.
    """
    source = spec.sources[name]
    changes, replaced, ignored = facts.changes, EventRanges(), 0
    has_time = source.event_time is not None
    if facts.from_now:
        changes = ChangeSet(derivation="unchanged")
    if spec.mode == "append" and changes.rewrites:
        if spec.on_rewrite == "fail":
            raise _rewritten(spec, name, changes)
        if spec.on_rewrite == "overwrite":
            _check_nulls(spec, name, tuple(f for r in changes.rewrites.values() for f in r.added))
            replaced = changes.rewrite_ranges().align(grain)
        changes, added, removed = changes.without_rewrites()
        ignored = added + removed if spec.on_rewrite == "ignore" else 0
    if has_time:
        _check_nulls(spec, name, changes.added)
        # Removed rows without event time count only if they were ever taken.
        counted = (*changes.added, *changes.removed, *changes.deletes) if spec.mode != "append" else changes.added
        unknown = next((f for f in counted if f.ranges is None), None)
        if unknown is not None and spec.mode != "append":
            raise unknown_range(unknown.path)
        changed = ranges_of(counted, nulls=spec.on_null_event_time == "own_range")
    else:
        changed = EventRanges()
    if spec.mode == "append":
        affected = changed.union(replaced)
        if spec.keeps_event_time:
            affected = affected.align(grain)
    else:
        affected = changed.align(grain)
        replaced = affected if spec.replaces_ranges else EventRanges()
    derivation: Derivation = "from_now" if facts.from_now else changes.derivation
    return SourcePart(
        plan=SourcePlan(
            name=name,
            table=source.table,
            base=facts.base,
            pinned=facts.pinned,
            derivation=derivation,
            changed=changed,
            files_added=len(changes.added),
            rows_added=changes.rows_added,
            files_removed=len(changes.removed) + len(changes.deletes),
            rows_removed=changes.rows_removed,
            rows_late=facts.rows_late,
            rows_ignored=ignored,
            digest=changes.digest,
            scan_files=facts.scan_files,
            scan_bytes=facts.scan_bytes,
            bounds=facts.bounds,
        ),
        affected=affected,
        replaced=replaced,
    )


def ranges_of(files: tuple[FileChange, ...] | list[FileChange], *, nulls: bool) -> EventRanges:
    """Return the event times the rows of some files can have; ``nulls`` says whether rows without one count."""
    found = EventRanges.union_of(f.ranges for f in files if f.ranges is not None)
    return EventRanges(found.ranges, nulls=nulls and any(f.nulls != 0 for f in files))


def latest_of(added: tuple[FileChange, ...]) -> dt.datetime | None:
    """Return the latest event time that some files tell of."""
    return _last(ranges_of(added, nulls=False))


def _last(ranges: EventRanges) -> dt.datetime | None:
    span = ranges.span()
    return None if span is None else span.end - MICROSECOND


def _check_nulls(spec: ProcessSpec, name: str, added: tuple[FileChange, ...]) -> None:
    if spec.on_null_event_time == "own_range":
        return
    with_nulls = [f for f in added if f.nulls]
    if with_nulls:
        raise NullEventTime(
            f"{sum(f.nulls or 0 for f in with_nulls):,} new rows of source {name!r} ({spec.sources[name].table}) have no "
            f"{spec.sources[name].event_time!r}, in {len(with_nulls)} files such as {with_nulls[0].path}",
            expected="an event time in every row",
            hint="repair the rows in the source, or set on_null_event_time='own_range' to load them as a range of their own",
        )


def _rewritten(spec: ProcessSpec, name: str, changes: ChangeSet) -> SourceRewritten:
    snapshots = ", ".join(f"{i} ({changes.operations.get(i, '?')})" for i in changes.rewrites)
    rows = sum(f.rows for r in changes.rewrites.values() for f in (*r.removed, *r.deletes))
    return SourceRewritten(
        f"source {name!r} ({spec.sources[name].table}) of process {spec.process!r} was rewritten in snapshots {snapshots}: "
        f"{rows:,} rows that were loaded before are gone or changed",
        expected="a source that only gets new rows, because mode 'append' cannot take rows back",
        hint="choose on_rewrite='overwrite' (recompute the ranges concerned), on_rewrite='ignore' (leave both sides of such "
        "snapshots out), or mode='overwrite'",
    )


def position_in(facts: SourceFacts, plan: SourcePlan, grain: Grain) -> SourcePosition:
    """Return the pinned position with the latest event time seen so far, and up to where the source is complete there."""
    seen = _last(plan.changed) if plan.rows_added else None
    if facts.from_now:
        seen = latest_of(facts.changes.added)
    # Seen by another column, an event time says nothing of this one.
    same = facts.base is not None and facts.base.event_field == facts.pinned.event_field
    before = facts.base.latest_event if facts.base is not None and same else None
    known = [m for m in (seen, before) if m is not None]
    latest = max(known) if known else None
    through = latest if facts.rule.rule == "latest_event" else facts.told_through
    return attrs.evolve(
        facts.pinned,
        latest_event=latest,
        complete_through=None if through is None else grain.floor(facts.rule.before(through)),
    )


def lookup_part(spec: ProcessSpec, name: str, pinned: SourcePosition) -> SourcePlan:
    """Return what a lookup contributes: the snapshot that is read, and nothing to do."""
    return SourcePlan(name=name, table=spec.sources[name].table, base=None, pinned=pinned, derivation="lookup")
