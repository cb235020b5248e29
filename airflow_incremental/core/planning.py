"""From changes to a plan: the rules of the modes and policies, without any I/O.

What a preview shows and what a run executes both come from :func:`make_plan`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import attrs

from airflow_incremental.core.declared import narrowed
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.facts import TargetFacts
from airflow_incremental.core.parts import SourceFacts, SourcePart, lookup_part, position_in, source_part
from airflow_incremental.core.plan import Owner, Plan, PlanKind, SourcePlan, new_session_id
from airflow_incremental.core.ranges import EventRanges, Grain, TimeRange
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.stateful import end_of, pending
from airflow_incremental.core.thresholds import Thresholds
from airflow_incremental.core.watermark import Published, SourcePosition, Watermark

#: Unit of "complete through" where the target has no event-time partitioning to take it from.
DEFAULT_GRAIN = Grain.HOUR


@attrs.frozen(kw_only=True)
class NothingToDo:
    """There is no work: no affected range, and the watermark is young enough to stay."""

    reason: str
    published: Published | None


def make_plan(
    spec: ProcessSpec,
    *,
    target: TargetFacts,
    published: Published | None,
    sources: Mapping[str, SourceFacts],
    owner: Owner,
    now: dt.datetime,
    reload: str | None = None,
) -> Plan | NothingToDo:
    """Decide what a session reads and writes.

    :param published: where the process stands; None on a first run.
    :param reload: why everything is computed again (a lost watermark under ``on_lost_watermark='reload'``), or None.
    :raises SourceRewritten: see ``on_rewrite``.
    :raises NullEventTime: see ``on_null_event_time``.
    """
    grain = target.grain or DEFAULT_GRAIN
    _check_step(spec, target.grain)
    drivers = {name: facts for name, facts in sources.items() if spec.sources[name].role == "driver"}
    parts = {name: source_part(spec, name, facts, grain) for name, facts in drivers.items()}
    positions = {name: position_in(facts, parts[name].plan, grain) for name, facts in drivers.items()}
    watermark = Watermark(
        positions=positions,
        complete_through=complete_through(positions),
        scope=spec.target.scope,
        event_field=target.event_field,
        key_fields=target.key_fields,
    )
    limits = Thresholds.of(
        spec, before=None if published is None else published.watermark.complete_through, grain=grain
    )
    # What was cut off before is still to be done; a reload does it with everything else.
    skipped = published.watermark.skipped.align(grain) if published is not None and reload is None else EventRanges()
    if spec.mode == "stateful":
        work, watermark = _stateful_work(
            spec, parts, watermark, before=published, reload=reload is not None, skipped=skipped, limits=limits
        )
    elif spec.mode == "merge":
        work = _merge_work(spec, parts, reload, first=published is None)
    else:
        work = _work(parts, reload)
        if spec.mode == "overwrite" and reload is None:
            work, watermark = _within(limits, work, watermark, skipped)
    less = narrowed(spec, published)
    kind: PlanKind = "load" if reload is None else "reload"
    if work is not None:
        reason = reload or _reason(published, [p.plan for p in parts.values()], skipped) + (f"; {less}" if less else "")
    else:
        moved = any(published is None or published.watermark.positions.get(n) != p for n, p in positions.items())
        old = any(f.position_is_old for f in drivers.values())
        # Where a first run is told to start is looked at once: the snapshot may be gone before anything changes.
        forced = published is None and any(f.from_now or f.base is not None for f in drivers.values())
        again = less or _again(published)
        # Before a stateful target has a first result its changes have to stay changes.
        waits = spec.mode == "stateful" and watermark.processed_through is None
        put_off = published is not None and watermark.skipped != published.watermark.skipped
        moves = moved and (old or forced or _completes(published, watermark))
        if waits or (again is None and not put_off and not moves):
            return NothingToDo(reason=_idle(published, drivers, waits=waits, skipped=skipped), published=published)
        again = again or ("only work that a threshold cuts off came" if put_off else None)
        work, kind, reason = _Work(), "positions", again or "only the watermark moves"
    affected, replaced = work.affected, work.replaced
    before = published.watermark.complete_through if published is not None and reload is None else None
    return Plan(
        process=spec.process,
        session=new_session_id(now),
        mode=spec.mode,
        kind=kind,
        reason=reason,
        target=spec.target.table,
        target_uuid=target.table_uuid,
        main=target.main,
        base_session=published.session if published else None,
        sources=tuple(
            attrs.evolve(parts[n].plan, pinned=positions[n]) if n in parts else lookup_part(spec, n, sources[n].pinned)
            for n in spec.sources
        ),
        replaced=replaced,
        may_replace=spec.replaces,
        affected=affected,
        late=work.changed.below(before),
        grain=target.grain,
        scope=spec.target.scope,
        keys=work.keys,
        watermark=watermark,
        owner=owner,
        created_at=now,
        declared=spec.digest,
    ).fitted()


def make_restatement(
    spec: ProcessSpec,
    *,
    target: TargetFacts,
    published: Published,
    pinned: Mapping[str, SourcePosition],
    ranges: EventRanges,
    owner: Owner,
    now: dt.datetime,
    reason: str,
    changes: Mapping[str, SourceFacts] | None = None,
) -> Plan:
    """Plan to compute given ranges, or keys, again; the watermark stays where it is.

    :param pinned: the snapshots that are read: those of the watermark, or newer ones where the mode replaces what it computes: what
        they see early is computed once more when it is due. ``append`` would load it twice.
    :param ranges: in ``merge`` the keys of all rows in these ranges are computed, unless ``changes`` says which.
    :param changes: ``merge`` only: what changed in each driver, up to the pinned snapshots, whose keys are computed.
    """
    whole = ranges if ranges.is_everything or target.grain is None else ranges.align(target.grain)
    span, processed = whole.span(), published.watermark.processed_through
    if spec.mode == "stateful" and spec.catch_up == "whole_range" and span is not None and processed is not None:
        # What comes after depends on it.
        whole = EventRanges((TimeRange(span.start, max(processed, span.end)),))
    return Plan(
        process=spec.process,
        session=new_session_id(now),
        mode=spec.mode,
        kind="restatement",
        reason=reason,
        target=spec.target.table,
        target_uuid=target.table_uuid,
        main=target.main,
        base_session=published.session,
        sources=tuple(
            source_part(spec, name, changes[name], target.grain or DEFAULT_GRAIN).plan
            if changes is not None and source.role == "driver"
            else SourcePlan(
                name=name,
                table=source.table,
                base=published.watermark.positions.get(name),
                pinned=pinned[name],
                derivation="restatement",
                changed=whole,
            )
            if source.role == "driver"
            else lookup_part(spec, name, pinned[name])
            for name, source in spec.sources.items()
        ),
        replaced=EventRanges() if spec.mode == "merge" else whole,
        may_replace=spec.replaces,
        affected=whole,
        late=whole.below(published.watermark.complete_through),
        grain=target.grain,
        scope=spec.target.scope,
        keys=spec.keys,
        watermark=attrs.evolve(
            published.watermark, scope=spec.target.scope, skipped=published.watermark.skipped.subtract(whole)
        ),
        owner=owner,
        created_at=now,
        declared=spec.digest,
    ).fitted()


def complete_through(positions: Mapping[str, SourcePosition]) -> dt.datetime | None:
    """Return up to where all sources are complete: the least of them, None while one of them does not say."""
    seen = [p.complete_through for p in positions.values()]
    known = [s for s in seen if s is not None]
    return min(known) if known and len(known) == len(seen) else None


@attrs.frozen(kw_only=True)
class _Work:
    """What there is to compute; by default nothing."""

    affected: EventRanges = EventRanges()
    replaced: EventRanges = EventRanges()
    #: The part of it in which a source changed.
    changed: EventRanges = EventRanges()
    #: Columns by whose values rows are replaced.
    keys: tuple[str, ...] = ()


def _work(parts: Mapping[str, SourcePart], reload: str | None) -> _Work | None:
    if reload is not None:
        return _Work(affected=EventRanges.everything(), replaced=EventRanges.everything())
    affected = EventRanges.union_of(p.affected for p in parts.values())
    if affected or any(p.plan.rows_added or p.plan.rows_removed for p in parts.values()):
        replaced = EventRanges.union_of(p.replaced for p in parts.values())
        return _Work(affected=affected, replaced=replaced, changed=affected)
    return None


def _merge_work(spec: ProcessSpec, parts: Mapping[str, SourcePart], reload: str | None, *, first: bool) -> _Work | None:
    work = _work(parts, reload)
    if work is None or reload is not None:
        return work
    if first and not spec.initial.adopt and all(p.plan.base is None for p in parts.values()):
        # The target is empty and every key is new: nothing has to be found.
        return attrs.evolve(work, replaced=EventRanges.everything())
    return attrs.evolve(work, keys=spec.keys)


def _within(
    limits: Thresholds, work: _Work | None, watermark: Watermark, skipped: EventRanges
) -> tuple[_Work | None, Watermark]:
    """Return what the thresholds leave of the work and of what was skipped before, and the watermark with the rest."""
    share = limits.of_set(skipped if work is None else work.replaced.union(skipped))
    kept = attrs.evolve(watermark, skipped=limits.kept(share))
    return (_Work(affected=share.now, replaced=share.now, changed=share.now) if share.now else None), kept


def _stateful_work(
    spec: ProcessSpec,
    parts: Mapping[str, SourcePart],
    watermark: Watermark,
    *,
    before: Published | None,
    reload: bool,
    skipped: EventRanges,
    limits: Thresholds,
) -> tuple[_Work | None, Watermark]:
    """Return the ranges to compute, and the watermark with how far the target is processed then."""
    complete = watermark.complete_through
    changed = EventRanges.union_of([skipped, *(p.affected for p in parts.values())])
    if before is None and any(p.plan.derivation == "from_now" for p in parts.values()):
        if complete is None:
            raise ArgumentError(
                f"process {spec.process!r} starts from now, but not all of its drivers say how far they are complete",
                expected="a time up to which nothing is computed, with initial='current'",
                hint="start with initial='all', or when every driver says it",
            )
        return None, attrs.evolve(watermark, processed_through=complete)
    processed = before.watermark.processed_through if before is not None and not reload else None
    waiting, end = (
        pending(changed, complete=complete, processed=processed),
        end_of(complete=complete, processed=processed),
    )
    if reload:
        # All of it goes, and what is complete comes again. Before anything is, the watermark stays lost.
        span = waiting.span()
        computed = EventRanges() if span is None or end is None else EventRanges((TimeRange(span.start, end),))
        work = _Work(affected=computed, replaced=EventRanges.everything())
        return (None if complete is None else work), attrs.evolve(watermark, processed_through=complete)
    share = limits.of_set(waiting) if spec.catch_up == "missed" else limits.in_order(waiting, end)
    # Computed in order, the last unit that is computed says how far; else what is left out below it is kept by itself.
    done = share.now.span()
    through = processed if done is None else max(done.end, processed or done.end)
    watermark = attrs.evolve(
        watermark,
        processed_through=through,
        complete_through=complete if through is None or complete is None else min(through, complete),
        skipped=limits.kept(share, below=through),
    )
    if done is None:
        return None, watermark
    return _Work(affected=share.now, replaced=share.now, changed=changed.intersect(share.now)), watermark


def _check_step(spec: ProcessSpec, grain: Grain | None) -> None:
    if spec.step is not None and grain is not None and not Grain(spec.step).divides(grain):
        raise ArgumentError(
            f"process {spec.process!r} computes in steps of a {spec.step}, and {spec.target.table} is partitioned by {grain.value}",
            expected=f"a step that divides the partitioning: a {grain.value} or less",
            hint=f"choose step='hour' or partition the target by {spec.step}",
        )


def _again(published: Published | None) -> str | None:
    """Say why a watermark has to be published again although no source changed; None if it need not be."""
    if published is not None and not published.anchored:
        return "expiry has cut the target's history, so the watermark is put on its head again"
    return None


def _completes(published: Published | None, watermark: Watermark) -> bool:
    return published is not None and published.watermark.complete_through != watermark.complete_through


def _reason(published: Published | None, plans: list[SourcePlan], skipped: EventRanges) -> str:
    if published is not None and not any(p.files_added or p.files_removed for p in plans):
        what = "work that was skipped is caught up on" if skipped else "more event time is complete"
        return f"{what}, since session {published.session}"
    added, removed = sum(p.rows_added for p in plans), sum(p.rows_removed for p in plans)
    what = " and ".join(
        text
        for text in (f"{added:,} rows added" if added else "", f"{removed:,} rows removed" if removed else "")
        if text
    )
    since = "first run" if published is None else f"since session {published.session}"
    return f"{what or 'row-level deletes'} in {', '.join(p.table for p in plans if p.files_added or p.files_removed)}, {since}"


def _idle(published: Published | None, sources: Mapping[str, SourceFacts], *, waits: bool, skipped: EventRanges) -> str:
    if waits:
        return "nothing is complete yet: a stateful process begins when all its drivers say up to where they are"
    if all(f.changes.derivation == "unchanged" for f in sources.values()):
        return "no source has a new snapshot" + (
            f"; a threshold keeps off what is skipped: {skipped}" if skipped else ""
        )
    if published is None and all(f.pinned.snapshot_id is None for f in sources.values()):
        return "no source has a row yet"
    return "the sources' new snapshots change no rows"
