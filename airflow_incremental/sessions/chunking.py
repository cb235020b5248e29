"""Where a large plan is cut into chunks: by the bytes of the files that it reads, from metadata."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.core.chunks import CUT_MODES, TIMES_READ, cuts_of, times_read
from airflow_incremental.core.planning import DEFAULT_GRAIN
from airflow_incremental.core.ranges import MAX_TIME, EventRanges
from airflow_incremental.core.spark_job import SparkRunner
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.lineage import SnapshotIndex
from airflow_incremental.iceberg.scan import lies_in, live_tasks
from airflow_incremental.sessions.reading import source_table

if TYPE_CHECKING:
    from airflow_incremental.core.parts import SourceFacts
    from airflow_incremental.core.plan import Plan, SourcePlan
    from airflow_incremental.sessions.process import Process

#: Iceberg's words for the bytes of all files of a snapshot.
_TOTAL = "total-files-size"


def with_cuts(process: Process, plan: Plan, sources: Mapping[str, SourceFacts]) -> Plan:
    """Return the plan cut into chunks, if it reads so much that this is worth it.

    Not cut is what is computed in order or by key, what the author's own tasks write, and what runs on Spark, which shares its work
    out by itself.

    :param sources: what planning has found of the sources; what it has not looked at is looked up.
    """
    drivers = process.spec.drivers.values()
    alone = plan.mode in CUT_MODES and all(source.event_time is not None for source in drivers)
    if not (alone and plan.has_work) or process.transform is None or isinstance(process.transform, SparkRunner):
        return plan
    unit = plan.grain or DEFAULT_GRAIN
    work = plan.affected if plan.reads_added_rows else plan.read
    # The usual case, without a look at any file: an hour or a day of it.
    if process.chunking.most == 1 or (not work.is_everything and work.count(unit) <= 1):
        return plan
    files = [
        file
        for source in plan.sources
        if source.derivation != "lookup"
        for file in _files(process, plan, source, sources.get(source.name))
    ]
    latest = max((s.pinned.committed_at for s in plan.sources if s.pinned.committed_at is not None), default=MAX_TIME)
    cuts = cuts_of(work, files, unit, process.chunking, latest=latest)
    # Of files that lie anywhere in time, each chunk reads all.
    while len(cuts) >= TIMES_READ and (times := times_read(files, cuts)) > TIMES_READ:
        most = min(len(cuts), max(TIMES_READ, int((len(cuts) + 1) * TIMES_READ / times)))
        cuts = cuts_of(work, files, unit, attrs.evolve(process.chunking, most=most), latest=latest)
    return attrs.evolve(plan, cuts=cuts).fitted() if cuts else plan


def _files(
    process: Process, plan: Plan, source: SourcePlan, facts: SourceFacts | None
) -> Iterator[tuple[EventRanges | None, int]]:
    """Yield event times and bytes of the files of a driver that are read; none if they are too few to matter."""
    if facts is not None and (plan.reads_added_rows or facts.base is None):
        again = plan.replaced if plan.reads_added_rows else EventRanges()
        for change in facts.changes.added:
            if not (again and lies_in(change.ranges, change.nulls, again)):
                yield change.ranges, change.handle.file_size_in_bytes
        # Where rows were rewritten, all of their ranges are read, not only what was added there.
        if not again:
            return
    table = source_table(process, plan, source)
    snapshot = SnapshotIndex(table.metadata).get(source.pinned.snapshot_id)
    if snapshot is None:
        return
    words = {} if snapshot.summary is None else snapshot.summary.additional_properties
    # Sources that are not worth cutting, all together, are not looked into.
    if float(words.get(_TOTAL, math.inf)) * len(plan.sources) <= process.chunking.bytes:
        return
    column = EventColumn.of(table, process.spec.sources[source.name].event_time or "")
    for task in live_tasks(table, snapshot, column=column, keep=None if plan.read.is_everything else plan.read):
        yield column.ranges(task.file, task.file.spec_id), task.file.file_size_in_bytes
