"""What planning has to know of each source: its head, what changed since the watermark, and up to where it is complete."""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.declared import check_source_declared
from airflow_incremental.core.errors import ArgumentError, WatermarkLost
from airflow_incremental.core.parts import SourceFacts, latest_of
from airflow_incremental.core.ranges import UTC, Grain
from airflow_incremental.core.watermark import Published, SourcePosition
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.change_bounds import Bounds, change_bounds
from airflow_incremental.iceberg.changed_rows import changed_tasks
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.completeness import rule_of, told_through
from airflow_incremental.iceberg.event_times import count_before
from airflow_incremental.iceberg.lineage import SnapshotIndex, head_of, position_of, snapshot_at
from airflow_incremental.iceberg.reads import schema_at

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from airflow_incremental.core.spec import ProcessSpec
    from airflow_incremental.sessions.process import Process

log = logging.getLogger(__name__)

#: Iceberg's default for how long snapshots are kept, where the source does not say (milliseconds).
_DEFAULT_SNAPSHOT_AGE_MS = 5 * 24 * 3600 * 1000


def source_facts(
    process: Process, name: str, last: Published | None, grain: Grain | None, *, reset: bool
) -> SourceFacts:
    """Look at one source: its head, and what changed since the watermark (or since where a first run starts)."""
    spec = process.spec
    source = spec.sources[name]
    table = load_table(process.catalog, source.table, role="source")
    event_field = EventColumn.of(table, source.event_time).field_id if source.event_time is not None else None
    head = head_of(table, source.branch)
    pinned = attrs.evolve(position_of(table, head), event_field=event_field)
    if source.role == "lookup":
        return SourceFacts(base=None, pinned=pinned, changes=ChangeSet(derivation="unchanged"))
    rule = rule_of(table, source.complete_through)
    if spec.mode == "stateful" and source.complete_through is None and rule.rule != "published":
        raise ArgumentError(
            f"driver {name!r} ({source.table}) of the stateful process {spec.process!r} does not say how far it is complete",
            expected="a rule: no process of this package loads the table, so none publishes it",
            hint="write IcebergSource(complete_through=CompleteThrough.latest_event(lateness=...)), .arrival(lateness=...) or "
            ".property(name)",
        )
    told = told_through(table, source.branch, head, rule)
    base = None
    if last is not None and not reset:
        base = last.watermark.positions.get(name)
        check_source_declared(spec, name, base, event_field)
        if base is None and spec.mode == "append":
            raise WatermarkLost(
                f"the watermark of process {spec.process!r} knows the sources {', '.join(last.watermark.positions)}, not {name!r}",
                expected="the same source name as before: in mode 'append' a renamed source would be loaded twice",
                hint=f"name the source {', '.join(last.watermark.positions)} again. A driver that is added gets a process of its "
                "own, or set on_lost_watermark='reload' for one run to load all of them from the start",
            )
    elif not reset:
        position = spec.initial.position
        if position == "current":
            return attrs.evolve(_from_now(process, name, table, pinned, grain), rule=rule, told_through=told)
        if position != "all":
            start = _start(process, name, table)
            base = None if start is None else attrs.evolve(position_of(table, start), event_field=event_field)
            if base is not None and rule.rule == "latest_event":
                base = _with_latest(process, name, table, base)
    changes = _detect(process, name, table, base=base, head=pinned.snapshot_id, grain=grain)
    through = last.watermark.complete_through if last is not None and not reset else None
    late = 0
    if through is not None and source.event_time is not None and changes.added:
        late = sum(count_before(table, change, through, source.event_time) for change in changes.added)
    return SourceFacts(
        base=base,
        pinned=pinned,
        changes=changes,
        bounds=bounds_between(spec, name, table, base, pinned, changes),
        rows_late=late,
        position_is_old=_is_old(table, base, pinned),
        rule=rule,
        told_through=told,
    )


def facts_between(
    process: Process, name: str, *, base: SourcePosition | None, pinned: SourcePosition | None
) -> SourceFacts:
    """Return what changed in a source between two positions that were consumed.

    :param pinned: None reads up to the head, as lookups and sources that were added since are read.
    :raises WatermarkLost: the first cannot be tied to the second.
    :raises PlanExpired: the second is gone.
    """
    source = process.spec.sources[name]
    table = load_table(process.catalog, source.table, role="source")
    found = position_of(table, head_of(table, source.branch)) if pinned is None else pinned
    if source.role == "lookup":
        return SourceFacts(base=None, pinned=found, changes=ChangeSet(derivation="unchanged"))
    changes = _detect(process, name, table, base=base, head=found.snapshot_id, grain=None)
    bounds = bounds_between(process.spec, name, table, base, found, changes)
    return SourceFacts(base=base, pinned=found, changes=changes, bounds=bounds)


def bounds_between(  # noqa: PLR0917
    spec: ProcessSpec,
    name: str,
    table: Table,
    base: SourcePosition | None,
    pinned: SourcePosition,
    changes: ChangeSet,
) -> Bounds:
    """Return the bounds that are asked for of the rows that changed between two positions."""
    columns = spec.sources[name].change_bounds
    if not columns:
        return {}
    if spec.mode == "append":
        changes, _, _ = changes.without_rewrites()
    came, went = changed_tasks(table, base, pinned, changes)
    return change_bounds(table, schema_at(table, pinned.snapshot_id), columns, [*came, *went])


def _start(process: Process, name: str, table: Table) -> Snapshot | None:
    """Return the snapshot a first run starts after, as ``initial`` names it by id or by time."""
    source = process.spec.sources[name]
    position = process.spec.initial.position
    if isinstance(position, dt.datetime):
        return snapshot_at(table, source.branch, position)
    head = head_of(table, source.branch)
    for snapshot in SnapshotIndex(table.metadata).ancestry(None if head is None else head.snapshot_id):
        if snapshot.snapshot_id == position:
            return snapshot
    raise ArgumentError(
        f"initial names snapshot {position}, which is not on branch {source.branch!r} of source {name!r} ({source.table})",
        expected="a snapshot that the branch descends from and that is still kept",
        hint="name another snapshot or a time, or start from 'all' or 'current'",
    )


def _with_latest(process: Process, name: str, table: Table, start: SourcePosition) -> SourcePosition:
    """Return where a first run starts with the latest event there is: those that follow may all be late."""
    if start.event_field is None:
        return start
    changes = _detect(process, name, table, base=None, head=start.snapshot_id, grain=None)
    return attrs.evolve(start, latest_event=latest_of(changes.added))


def _from_now(process: Process, name: str, table: Table, pinned: SourcePosition, grain: Grain | None) -> SourceFacts:
    changes = _detect(process, name, table, base=None, head=pinned.snapshot_id, grain=grain)
    return SourceFacts(base=None, pinned=pinned, changes=changes, from_now=True)


def _detect(
    process: Process, name: str, table: Table, *, base: SourcePosition | None, head: int | None, grain: Grain | None
) -> ChangeSet:
    spec = process.spec
    # A first run into an empty target may take everything between the ends; adopted rows must not be replaced by chance.
    exact = grain if (base is not None or spec.initial.adopt) and spec.replaces_ranges else None
    return detect(
        table,
        base,
        head,
        event_time=spec.sources[name].event_time,
        mode=spec.mode,
        on_lost_watermark=spec.on_lost_watermark,
        on_missing_bounds=spec.on_missing_bounds,
        grain=exact,
    )


def _is_old(table: Table, base: SourcePosition | None, pinned: SourcePosition) -> bool:
    """Say whether the source may soon expire the watermark's snapshot: past half of the age it keeps snapshots."""
    if base is None or base.committed_at is None or base.snapshot_id == pinned.snapshot_id:
        return False
    keep = int(table.metadata.properties.get("history.expire.max-snapshot-age-ms", _DEFAULT_SNAPSHOT_AGE_MS))
    return dt.datetime.now(UTC) - base.committed_at > dt.timedelta(milliseconds=keep) / 2
