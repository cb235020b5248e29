"""A cleared run computes again what its session wrote, where that can be said in ranges and takes no other rows with it."""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

from airflow_incremental.core.declared import check_target_declared
from airflow_incremental.core.errors import WatermarkLost
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.planning import TargetFacts, make_restatement
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.core.spec import Initial, ProcessSpec
from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.lineage import SnapshotIndex, head_of, position_of
from airflow_incremental.iceberg.seal import SUMMARY_RANGES
from airflow_incremental.iceberg.sharing import has_others
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions.process import Process

if TYPE_CHECKING:
    from pyiceberg.table import Table

log = logging.getLogger(__name__)


def restatement(process: Process, target: Table, facts: TargetFacts, mine: Published, now: dt.datetime) -> Plan | None:
    """Plan what a cleared run asks for: to compute again what its session wrote. None if that cannot be expressed."""
    spec = process.spec
    try:
        last = published(target, spec.process)
        if last is not None:
            check_target_declared(spec, last, facts.event_field)
    except WatermarkLost:
        return None  # the plan that is made instead says so, or reloads
    ranges = EventRanges.from_json(mine.ranges)
    if last is None or not ranges or not spec.keeps_event_time or facts.grain is None:
        log.warning(
            "this run was cleared, but what session %s wrote cannot be computed again by range; planning anew",
            mine.session,
        )
        return None
    if any(name not in last.watermark.positions for name in spec.drivers):
        log.warning("this run was cleared, but a source was added since; planning anew")
        return None
    if _holds_other_rows(target, spec, ranges):
        log.warning(
            "this run was cleared, but what it wrote lies among rows that cannot be computed again from the sources as they are; "
            "planning anew"
        )
        return None
    pinned = {}
    for name, source in spec.sources.items():
        table = load_table(process.catalog, source.table, role="source")
        if source.role == "lookup":
            pinned[name] = position_of(table, head_of(table, source.branch))
            continue
        pinned[name] = last.watermark.positions[name]
        if pinned[name].snapshot_id is not None and SnapshotIndex(table.metadata).get(pinned[name].snapshot_id) is None:
            if spec.mode == "append":
                log.warning(
                    "the source snapshot of the watermark is expired, so nothing can be computed again as of it; planning anew"
                )
                return None
            pinned[name] = position_of(table, head_of(table, source.branch))
    return make_restatement(
        spec,
        target=facts,
        published=last,
        pinned=pinned,
        ranges=ranges,
        owner=process.owner,
        now=now,
        reason=f"the run was cleared: what session {mine.session} wrote is computed again",
    )


def _holds_other_rows(target: Table, spec: ProcessSpec, ranges: EventRanges) -> bool:
    """Say whether ranges of the target may hold rows that no source row of theirs stands for, and that must stay."""
    if spec.mode != "append":
        # Its ranges are its own; but adopted rows lie between them, and what was merged to be kept short covers those too.
        return spec.initial.adopt and len(ranges.ranges) >= SUMMARY_RANGES and not ranges.is_everything
    # Rows that the source has dropped since stay in the target under policies that do not follow it.
    kept = spec.on_rewrite == "ignore" or spec.on_lost_watermark == "added_only"
    return kept or spec.initial != Initial(position="all") or has_others(target, spec.process)
