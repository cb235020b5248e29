"""A cleared run computes again what its session wrote, where that can be said in ranges and takes no other rows with it."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.core.declared import check_target_declared
from airflow_incremental.core.errors import PlanExpired, TableError, WatermarkLost
from airflow_incremental.core.facts import TargetFacts
from airflow_incremental.core.parts import SourceFacts
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.planning import make_restatement
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.core.spec import Initial, ProcessSpec
from airflow_incremental.core.watermark import Published, SourcePosition
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.change_bounds import Bounds, range_bounds
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.lineage import SnapshotIndex, head_of, position_of
from airflow_incremental.iceberg.seal import SUMMARY_RANGES
from airflow_incremental.iceberg.sharing import has_others
from airflow_incremental.iceberg.state import publish_of_session, published, publishes_of_owner
from airflow_incremental.sessions.facts import facts_between
from airflow_incremental.sessions.keys import with_key_scans
from airflow_incremental.sessions.process import Process

if TYPE_CHECKING:
    from pyiceberg.table import Table

log = logging.getLogger(__name__)


def restatement(process: Process, target: Table, facts: TargetFacts, mine: Published, now: dt.datetime) -> Plan | None:
    """Plan what a cleared run asks for: to compute again what its session wrote. None if that cannot be expressed."""
    try:
        last = published(target, process.spec.process)
        if last is not None:
            check_target_declared(process.spec, last, facts)
    except WatermarkLost:
        return None  # the plan that is made instead says so, or reloads
    if last is None:
        return None
    cleared = _Cleared(process=process, target=target, facts=facts, mine=mine, last=last, now=now)
    return cleared.of_keys() if process.spec.mode == "merge" else cleared.of_ranges()


@attrs.frozen(kw_only=True)
class _Cleared:
    process: Process
    target: Table
    facts: TargetFacts
    #: What the run published, and where the process stands.
    mine: Published
    last: Published
    now: dt.datetime

    @property
    def spec(self) -> ProcessSpec:
        return self.process.spec

    @property
    def reason(self) -> str:
        return f"the run was cleared: what session {self.mine.session} wrote is computed again"

    def of_ranges(self) -> Plan | None:
        """Plan the ranges that were written, as of the watermark."""
        spec, ranges = self.spec, EventRanges.from_json(self.mine.ranges)
        if not ranges or not spec.keeps_event_time or self.facts.grain is None:
            return self._anew(f"what session {self.mine.session} wrote cannot be computed again by range")
        if any(name not in self.last.watermark.positions for name in spec.drivers):
            return self._anew("a source was added since")
        if _holds_other_rows(self.target, spec, ranges):
            return self._anew(
                "what it wrote lies among rows that cannot be computed again from the sources as they are"
            )
        pinned: dict[str, SourcePosition] = {}
        for name, source in spec.sources.items():
            table = load_table(self.process.catalog, source.table, role="source")
            if source.role == "driver":
                pinned[name] = self.last.watermark.positions[name]
                snapshot_id = pinned[name].snapshot_id
                if snapshot_id is None or SnapshotIndex(table.metadata).get(snapshot_id) is not None:
                    continue
                if spec.mode == "append":
                    return self._anew(
                        "the source snapshot of the watermark is expired, so nothing can be computed as of it"
                    )
            pinned[name] = position_of(table, head_of(table, source.branch))
        return with_bounds(self.process, self._plan(pinned, ranges))

    def of_keys(self) -> Plan | None:
        """Plan the keys that changed since before the session, as of the watermark: those it wrote, and what changed since."""
        spec, before = self.spec, None
        # A run that is cleared again computed keys again; which, the session says that it was cleared for the first time.
        made = publishes_of_owner(self.target, spec.process, self.process.owner)
        first = next((p for p in made if p.summary.get(naming.KIND) != "restatement"), None)
        if first is None:
            return self._anew("what it wrote before it was cleared for the first time is expired")
        base_session = first.summary.get(naming.BASE_SESSION)
        if base_session:
            before = publish_of_session(self.target, spec.process, base_session)
            if before is None:
                return self._anew("where it started from is expired")
        positions = {} if before is None else before.watermark.positions
        try:
            changes = {
                name: facts_between(
                    self.process, name, base=positions.get(name), pinned=self.last.watermark.positions.get(name)
                )
                for name in spec.sources
            }
            changes = with_key_scans(self.process, self.target, changes)
        except (PlanExpired, TableError, WatermarkLost) as error:
            return self._anew(f"the keys it wrote cannot be found any more ({error.found})")
        drivers = [changes[name].changes for name in spec.drivers]
        if not any(drivers):
            return self._anew("nothing had changed in its sources")
        ranges = EventRanges.union_of(c.changed for c in drivers)
        return self._plan({name: found.pinned for name, found in changes.items()}, ranges, changes)

    def _plan(
        self,
        pinned: Mapping[str, SourcePosition],
        ranges: EventRanges,
        changes: Mapping[str, SourceFacts] | None = None,
    ) -> Plan:
        return make_restatement(
            self.spec,
            target=self.facts,
            published=self.last,
            pinned=pinned,
            ranges=ranges,
            owner=self.process.owner,
            now=self.now,
            reason=self.reason,
            changes=changes,
        )

    @staticmethod
    def _anew(why: str) -> None:
        log.warning("this run was cleared, but %s; planning anew", why)


def with_bounds(process: Process, plan: Plan) -> Plan:
    """Return the plan with the bounds that are asked for, of all rows that are computed again."""
    sources = []
    for source in plan.sources:
        declared = process.spec.sources[source.name]
        bounds: Bounds = {}
        if declared.change_bounds:
            table = load_table(process.catalog, source.table, role="source")
            again = plan.restated(source)
            bounds = range_bounds(
                table,
                source.pinned.snapshot_id,
                declared.change_bounds,
                event_time=declared.event_time,
                keep=None if again.is_everything else again,
            )
        sources.append(attrs.evolve(source, bounds=bounds))
    return attrs.evolve(plan, sources=tuple(sources))


def _holds_other_rows(target: Table, spec: ProcessSpec, ranges: EventRanges) -> bool:
    """Say whether ranges of the target may hold rows that no source row of theirs stands for, and that must stay."""
    if spec.mode != "append":
        # Its ranges are its own; but adopted rows lie between them, and what was merged to be kept short covers those too.
        return spec.initial.adopt and len(ranges.ranges) >= SUMMARY_RANGES and not ranges.is_everything
    # Rows that the source has dropped since stay in the target under policies that do not follow it.
    kept = spec.on_rewrite == "ignore" or spec.on_lost_watermark == "added_only"
    return kept or spec.initial != Initial(position="all") or has_others(target, spec.process)
