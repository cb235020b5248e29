"""From a pinned plan to the rows each source name stands for; a plan whose snapshots or files are gone does not go on."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.core.errors import PlanExpired, WatermarkLost
from airflow_incremental.core.plan import Plan, SourcePlan
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.core.reads import INTERNAL_PREFIX, ChangedRows, Changes, SourceRead
from airflow_incremental.iceberg.changed_rows import read_changed
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.reads import AddedFiles, SnapshotFiles, read_keys
from airflow_incremental.sessions.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyiceberg.table import Table

    from airflow_incremental.core.changes import ChangeSet
    from airflow_incremental.core.spec import ProcessSpec
    from airflow_incremental.iceberg.keys import KeySet


@attrs.define(kw_only=True)
class PlanReader:
    """What each source name is bound to, exactly as the plan says: at once, or part by part, for which a source is looked up once.

    :param keys: the keys that are computed, for a plan that replaces rows by key.
    :param within: event times that hold all parts that will be read; None for all that is planned.
    """

    process: Process
    plan: Plan
    keys: KeySet | None = None
    within: EventRanges | None = None
    _sources: dict[str, Callable[[EventRanges], SourceRead]] = attrs.field(factory=dict, init=False)
    _changes: list[Changes] | None = attrs.field(default=None, init=False)

    def reads(self, part: EventRanges | None = None) -> list[SourceRead]:
        """Return the reads of the sources.

        :param part: event times that are computed; None for all that is planned.
        :raises PlanExpired: a pinned snapshot is gone, or what changed until it reads differently now.
        """
        part = EventRanges.everything() if part is None else part
        for source in self.plan.sources:
            if source.name not in self._sources:
                self._sources[source.name] = self._look_up(source)
        return [self._sources[source.name](part) for source in self.plan.sources]

    def changes(self, part: EventRanges | None = None) -> list[Changes]:
        """Return what the transform may ask of the drivers besides their rows; each is looked for once, when it asks.

        :param part: event times that are computed; None for all that is planned.
        """
        if self._changes is None:
            self._changes = source_changes(self.process, self.plan)
        return [changes if part is None else changes.within(part) for changes in self._changes]

    def _look_up(self, source: SourcePlan) -> Callable[[EventRanges], SourceRead]:
        process, plan = self.process, self.plan
        table = source_table(process, plan, source)
        if source.derivation == "lookup":
            return _always(_files(process, source, table, None).read(source.name, None))
        # On a first run all rows of the snapshot are added ones, and nobody has to look for what changed.
        if plan.reads_added_rows and source.derivation != "first_run":
            return self._look_up_added(source)
        if self.keys is not None:
            return _always(_of_keys(process, plan, source, table, self.keys))
        whole = EventRanges.everything() if plan.reads_added_rows else plan.read
        looked = self._within(whole)
        files = _files(process, source, table, None if looked.is_everything else looked)

        def read(part: EventRanges) -> SourceRead:
            keep = whole.intersect(part)
            return files.read(source.name, None if keep.is_everything else keep)

        return read

    def _look_up_added(self, source: SourcePlan) -> Callable[[EventRanges], SourceRead]:
        """Look up added rows; where ranges are recomputed as well, the rows of those ranges come whole instead."""
        changes, table = pinned_changes(self.process, self.plan, source)
        event_time = self.process.spec.sources[source.name].event_time
        added = AddedFiles.of(table, source, changes, event_time=event_time)
        again = self._within(self.plan.replaced)
        files = _files(self.process, source, table, again) if again else None

        def read(part: EventRanges) -> SourceRead:
            whole = self.plan.replaced.intersect(part)
            found = added.read(keep=None if part.is_everything else part, drop=whole or None)
            return found.joined(files.read(source.name, whole)) if files is not None and whole else found

        return read

    def _within(self, ranges: EventRanges) -> EventRanges:
        return ranges if self.within is None else ranges.intersect(self.within)


def _always(read: SourceRead) -> Callable[[EventRanges], SourceRead]:
    return lambda _: read


def source_changes(process: Process, plan: Plan) -> list[Changes]:
    """Return what the transform may ask of the drivers besides their rows; each is looked for once, when it asks."""
    return [
        Changes(
            name=source.name,
            find=cache(partial(changed_rows, process, plan, source)),
            ranges=source.changed,
            bounds=source.bounds,
        )
        for source in plan.sources
        if source.derivation != "lookup"
    ]


def changed_rows(process: Process, plan: Plan, source: SourcePlan) -> ChangedRows:
    """Return the rows of a driver that came and went.

    :raises PlanExpired: a snapshot or file of the plan is gone.
    """
    event_time = process.spec.sources[source.name].event_time
    if source.derivation != "restatement":
        changes, table = pinned_changes(process, plan, source)
        return read_changed(table, source, changes, event_time=event_time)
    # What is computed again on purpose counts as changed, whole.
    again = plan.restated(source)
    files = _files(process, source, source_table(process, plan, source), None if again.is_everything else again)
    whole = files.read(source.name, None if again.is_everything else again)
    return ChangedRows(
        added=attrs.evolve(whole, name=f"{INTERNAL_PREFIX}{source.name}_added"),
        removed=attrs.evolve(whole, name=f"{INTERNAL_PREFIX}{source.name}_removed", parts=(), rows=0, bytes=0, files=0),
    )


def key_columns(spec: ProcessSpec, name: str) -> tuple[str, ...]:
    """Return the columns of a source that hold the process's keys."""
    return spec.sources[name].key_columns or spec.keys


def _files(process: Process, source: SourcePlan, table: Table, keep: EventRanges | None) -> SnapshotFiles:
    event_time = process.spec.sources[source.name].event_time
    return SnapshotFiles.of(table, source.pinned.snapshot_id, event_time=event_time, keep=keep)


def source_table(process: Process, plan: Plan, source: SourcePlan) -> Table:
    """Return the table of a source.

    :raises PlanExpired: another one has its name now.
    """
    table = load_table(process.catalog, source.table, role="source")
    if str(table.metadata.table_uuid) != source.pinned.table_uuid:
        raise PlanExpired(
            f"source {source.name!r} ({source.table}) was replaced since session {plan.session} was planned",
            hint="retry the task; it plans anew",
        )
    return table


def _of_keys(process: Process, plan: Plan, source: SourcePlan, table: Table, keys: KeySet) -> SourceRead:
    """Return all rows of the keys; where their horizon is known, no file farther from the changes is looked into."""
    spec = process.spec
    return read_keys(
        table,
        source.name,
        source.pinned.snapshot_id,
        keys=keys,
        columns=key_columns(spec, source.name),
        event_time=spec.sources[source.name].event_time,
        within=changed_span(spec, plan),
    )


def changed_span(spec: ProcessSpec, plan: Plan) -> EventRanges | None:
    """Return the event times all rows of the changed keys are known to have; None if they may have any."""
    if spec.key_horizon is None:
        return None
    changed = EventRanges.union_of(s.changed for s in plan.sources if s.derivation != "lookup")
    return changed.widened(spec.key_horizon)


def pinned_changes(process: Process, plan: Plan, source: SourcePlan) -> tuple[ChangeSet, Table]:
    """Return what changed in a driver between the plan's two positions, and its table.

    :raises PlanExpired: it cannot be found any more, or it is something else than was planned.
    """
    spec, table = process.spec, source_table(process, plan, source)
    try:
        changes = detect(
            table,
            source.base,
            source.pinned.snapshot_id,
            event_time=spec.sources[source.name].event_time,
            mode=spec.mode,
            on_lost_watermark=spec.on_lost_watermark,
            on_missing_bounds=spec.on_missing_bounds,
            grain=None,
        )
    except WatermarkLost as error:
        raise PlanExpired(
            f"what session {plan.session} planned to read cannot be found any more: {error.found}",
            hint="retry the task; it plans anew",
        ) from error
    if plan.reads_added_rows:
        changes, _, _ = changes.without_rewrites()
    if changes.digest != source.digest:
        raise PlanExpired(
            f"source {source.name!r} ({source.table}) shows other files between the planned snapshots than when session "
            f"{plan.session} was planned",
            hint="retry the task; it plans anew",
        )
    return changes, table
