"""A restatement that somebody asks for: the plan of given event times, at the sources as they are now, whatever the watermark.

The watermark stays. So what a mode that replaces rows sees early of its sources is computed once more when it is due, and is right
both times. ``append`` would load it twice: it reads its drivers as of the watermark.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.core.declared import check_source_declared, check_target_declared
from airflow_incremental.core.errors import ArgumentError, PlanExpired, TableError
from airflow_incremental.core.facts import TargetFacts
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.planning import make_restatement
from airflow_incremental.core.ranges import EventRanges, format_time
from airflow_incremental.core.requests import RestateRequest
from airflow_incremental.core.watermark import Published, SourcePosition
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.lineage import SnapshotIndex, head_of, position_of
from airflow_incremental.iceberg.replace import RowSet
from airflow_incremental.iceberg.scan import live_tasks
from airflow_incremental.iceberg.sharing import check_scopes
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions.process import Finished, Process
from airflow_incremental.sessions.restating import with_bounds

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from airflow_incremental.core.spec import ProcessSpec

log = logging.getLogger(__name__)


def requested(
    process: Process, target: Table, facts: TargetFacts, request: RestateRequest, now: dt.datetime
) -> Plan | Finished:
    """Plan what was asked for, or find that there is nothing in it.

    :raises ArgumentError: it cannot be computed again by event time, or holds nothing that is loaded.
    :raises TableError: a source is another table than the one that was loaded.
    :raises PlanExpired: the snapshots that have to be read are expired.
    :raises WatermarkLost: where the process stands is not known.
    """
    spec = process.spec
    _check_declared(spec, facts)
    last = published(target, spec.process)
    if last is None:
        raise nothing_to_restate(spec)
    check_target_declared(spec, last, facts)
    check_scopes(target, spec, replaces=True)
    ranges = EventRanges((request.range,))
    if facts.grain is not None:
        ranges = ranges.align(facts.grain)
    if spec.mode == "stateful":
        ranges = ranges.below(last.watermark.processed_through)
        if not ranges:
            return _nothing(request, last, f"it is processed through {_shown(last.watermark.processed_through)} only")
    pinned = {name: _pinned(process, name, last) for name in spec.sources}
    if not _holds_rows(process, target, pinned, ranges):
        return _nothing(request, last, f"neither its sources nor {spec.target.table} hold rows of {ranges}")
    plan = make_restatement(
        spec,
        target=facts,
        published=last,
        pinned=pinned,
        ranges=ranges,
        owner=process.owner,
        now=now,
        reason=str(request),
    )
    return with_bounds(process, plan)


def nothing_to_restate(spec: ProcessSpec) -> ArgumentError:
    """Return the error for a process that has loaded nothing, or whose watermark was taken away."""
    return ArgumentError(
        f"process {spec.process!r} has no watermark on {spec.target.table}, so there is nothing to restate",
        expected="a process that has been loaded",
        hint="trigger the DAG without a range, or let its schedule do it: a first run loads what initial= says",
    )


def _check_declared(spec: ProcessSpec, facts: TargetFacts) -> None:
    """Refuse loads whose rows cannot be told by the event times of their sources."""
    untold = [name for name, source in spec.drivers.items() if source.event_time is None]
    if untold:
        raise ArgumentError(
            f"process {spec.process!r} cannot restate a range: its source {untold[0]!r} has no event time",
            expected="IcebergSource(table, event_time=<column>) for each driver",
        )
    if spec.mode != "append":
        return
    if not spec.keeps_event_time:
        raise ArgumentError(
            f"process {spec.process!r} cannot restate a range: its target's event time is not that of its sources, so nobody knows "
            "which of its rows stand for the range",
            expected="the same event_time column in sources and target, carried through unchanged by the transform",
            hint="declare the same event_time for the target, or load everything again: drop the target's rows and its watermark",
        )
    if facts.grain is None:
        raise ArgumentError(
            f"process {spec.process!r} cannot restate a range: {spec.target.table} is not partitioned by its event time "
            f"{spec.target.event_time!r}",
            expected="partitioning by hour, day, month or year of the event time, whose partitions are replaced",
            hint=f"ALTER TABLE {spec.target.table} ADD PARTITION FIELD day({spec.target.event_time})",
        )


def _pinned(process: Process, name: str, last: Published) -> SourcePosition:
    """Return the position at which a source is read."""
    spec = process.spec
    source = spec.sources[name]
    table = load_table(process.catalog, source.table, role="source")
    head = position_of(table, head_of(table, source.branch))
    if source.role == "lookup":
        return head
    base = last.watermark.positions.get(name)
    if source.event_time is not None:
        head = attrs.evolve(head, event_field=EventColumn.of(table, source.event_time).field_id)
    check_source_declared(spec, name, base, head.event_field)
    if base is not None and base.table_uuid != head.table_uuid:
        raise TableError(
            f"source {name!r} ({source.table}) is another table than the one that process {spec.process!r} has loaded",
            expected=f"the table with uuid {base.table_uuid}",
            hint="let a run without a range settle that first (on_lost_watermark says how), then restate",
        )
    if spec.mode != "append":
        return head
    if base is None:
        raise ArgumentError(
            f"process {spec.process!r} has not loaded source {name!r} ({source.table}) yet",
            expected="a source up to whose watermark the range can be computed again",
            hint="let a run without a range load it first, then restate",
        )
    if base.snapshot_id is not None and SnapshotIndex(table.metadata).get(base.snapshot_id) is None:
        raise PlanExpired(
            f"snapshot {base.snapshot_id} of source {name!r} ({source.table}), up to which process {spec.process!r} has loaded it, "
            "is expired, so the range cannot be computed as of it",
            expected="the snapshot of the watermark: mode 'append' would load newer rows twice",
            hint="run the DAG without a range, which moves the watermark on, then restate. IcebergSource(pin=True) keeps the "
            "snapshot from being expired",
        )
    return base


def _holds_rows(process: Process, target: Table, pinned: dict[str, SourcePosition], ranges: EventRanges) -> bool:
    """Say whether a driver or the target may hold rows in the ranges, as their metadata tells."""
    spec = process.spec
    for name, source in spec.drivers.items():
        table = load_table(process.catalog, source.table, role="source")
        snapshot = SnapshotIndex(table.metadata).get(pinned[name].snapshot_id)
        column = None if source.event_time is None else EventColumn.of(table, source.event_time)
        if snapshot is not None and live_tasks(table, snapshot, column=column, keep=ranges):
            return True
    if spec.target.event_time is None:
        return False
    rows = RowSet.of(target, event_time=spec.target.event_time, ranges=ranges, scope=spec.target.scope)
    return any(True for _ in rows.live())


def _nothing(request: RestateRequest, last: Published, why: str) -> Finished:
    """End a backfill's run that finds nothing, as most hours of a sparse table do; refuse what a person has mistyped."""
    if request.cause == "backfill":
        return Finished(outcome="nothing_to_do", reason=f"nothing is in the {request}: {why}", published=last)
    through = last.watermark.complete_through
    raise ArgumentError(
        f"nothing is in the {request}: {why}",
        expected="a range of event times that was loaded"
        + ("" if through is None else f"; what is loaded is complete through {format_time(through)}"),
        hint=f"correct {' and '.join(request.ends)}; both are event times, in the zone written with them, not dates of the DAG",
    )


def _shown(moment: dt.datetime | None) -> str:
    return "nothing" if moment is None else format_time(moment)
