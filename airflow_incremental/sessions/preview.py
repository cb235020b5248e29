"""What a run would do, from the very plan that it would execute, and from metadata alone: nothing is written anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from airflow_incremental.core.plan import Plan, SourcePlan
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.lineage import SnapshotIndex
from airflow_incremental.iceberg.locks import read_lock
from airflow_incremental.iceberg.replace import RowSet
from airflow_incremental.iceberg.scan import live_tasks
from airflow_incremental.iceberg.targets import ddl, find_target
from airflow_incremental.sessions.creating import columns_of_new, draft_everything, draft_new, no_target
from airflow_incremental.sessions.output import parts_of
from airflow_incremental.sessions.planner import draft
from airflow_incremental.sessions.reading import pinned_changes, source_table

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from airflow_incremental.sessions.process import Process


@attrs.frozen(kw_only=True)
class Reading:
    """What of a source is read: files whose bounds allow rows of the plan, so at most these rows and bytes."""

    name: str
    table: str
    snapshot_id: int | None
    files: int
    rows: int
    bytes: int


@attrs.frozen(kw_only=True)
class Preview:
    """What a run would do.

    :param plan: None if there is nothing to do.
    :param reason: why there is something to do, or nothing.
    :param busy: who holds the process now, so that a run would wait; None if nobody does.
    :param reads: of each source.
    :param units: units of the target's partitioning that are computed; None where that cannot be told.
    :param parts: how often the transform runs: once for each chunk or step.
    :param files_replaced: live files of the target that hold, or may hold, rows that are replaced; None where keys tell.
    :param rows_replaced: rows in these files.
    :param creates: how the target is created, which does not exist yet: the statement, if it is known; None if it exists.
    """

    plan: Plan | None
    reason: str
    busy: str | None
    reads: tuple[Reading, ...] = ()
    units: int | None = None
    parts: int = 0
    files_replaced: int | None = None
    rows_replaced: int | None = None
    creates: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **attrs.asdict(self, filter=lambda field, _: field.name not in ("plan", "reads")),
            "plan": None if self.plan is None else self.plan.to_json(),
            "reads": [attrs.asdict(reading) for reading in self.reads],
        }

    def describe(self) -> str:
        """Return what people read."""
        lines = ["preview: nothing is written"]
        if self.busy is not None:
            lines.append(f"  a run would wait until its run is over: {self.busy}")
        if self.creates is not None:
            lines.append(f"  the target does not exist; the run would create it first: {self.creates}")
        if self.plan is None:
            return "\n".join([*lines, f"nothing to do: {self.reason}"])
        lines.append(self.plan.describe())
        lines += [
            f"  at most {r.rows:,} rows in {r.files:,} files ({r.bytes:,} bytes) of {r.name} are read"
            for r in self.reads
        ]
        if self.files_replaced is not None:
            lines.append(
                f"  {self.files_replaced:,} files of {self.plan.target} with {self.rows_replaced:,} rows are touched"
            )
        if self.parts > 1:
            lines.append(f"  the transform runs {self.parts:,} times")
        return "\n".join(lines)


def preview(process: Process) -> Preview:
    """Return what a run of a process would do now.

    :raises TableError: the target does not exist, and a run would not create it.
    :raises IncrementalError: what would fail the plan.
    """
    spec = process.spec
    target = find_target(process.catalog, spec.target)
    if target is None:
        return _first(process)
    lock = read_lock(target, spec.process)
    mine = lock is not None and lock.plan.owner.same_task(process.owner)
    busy = None if lock is None or mine else f"session {lock.plan.session} of {lock.plan.owner} is open"
    plan = draft(process, target)
    if not isinstance(plan, Plan):
        return Preview(plan=None, reason=plan.reason, busy=busy)
    if not plan.has_work:
        return Preview(plan=plan, reason=plan.reason, busy=busy)
    touched = None
    if not plan.keys:
        rows = RowSet.of(target, event_time=spec.target.event_time, ranges=plan.replaced, scope=plan.scope)
        touched = [t.live.file for t in rows.live()]
    return attrs.evolve(
        _work(process, plan),
        busy=busy,
        files_replaced=None if touched is None else len(touched),
        rows_replaced=None if touched is None else sum(file.record_count for file in touched),
    )


def _first(process: Process) -> Preview:
    """Return what the run would do that creates the target; what a function returns is not known before it runs."""
    target = process.spec.target
    everything = draft_everything(process)
    schema = columns_of_new(process, everything) if isinstance(process.transform, str) else None
    if not target.create:
        raise no_target(process, schema)
    creates = "from what the function returns" if schema is None else ddl(target, schema)
    plan = draft_new(process)
    if not isinstance(plan, Plan):
        return Preview(plan=None, reason=plan.reason, busy=None, creates=creates)
    return attrs.evolve(_work(process, plan), creates=creates)


def _work(process: Process, plan: Plan) -> Preview:
    """Return what a plan reads and computes."""
    if not plan.has_work:
        return Preview(plan=plan, reason=plan.reason, busy=None)
    known = plan.grain is not None and not plan.affected.is_everything and not plan.keys
    return Preview(
        plan=plan,
        reason=plan.reason,
        busy=None,
        reads=tuple(_reading(process, plan, source) for source in plan.sources),
        units=plan.affected.count(plan.grain) if known and plan.grain is not None else None,
        parts=len(parts_of(process, plan)),
    )


def _reading(process: Process, plan: Plan, source: SourcePlan) -> Reading:
    table = source_table(process, plan, source)
    if source.derivation == "lookup":
        files = _live(process, table, source, None)
    elif source.derivation == "restatement":
        files = _live(process, table, source, plan.restated(source))
    elif plan.keys:
        return _sized(source, source.scan_files, source.rows_added, source.scan_bytes)
    elif plan.reads_added_rows:
        changes, _ = pinned_changes(process, plan, source)
        again = _live(process, table, source, plan.replaced) if plan.replaced else []
        files = [*(change.handle for change in changes.added), *again]
    else:
        files = _live(process, table, source, plan.read)
    return _sized(source, len(files), sum(f.record_count for f in files), sum(f.file_size_in_bytes for f in files))


def _sized(source: SourcePlan, files: int, rows: int, size: int) -> Reading:
    return Reading(
        name=source.name, table=source.table, snapshot_id=source.pinned.snapshot_id, files=files, rows=rows, bytes=size
    )


def _live(process: Process, table: Table, source: SourcePlan, keep: EventRanges | None) -> list[Any]:
    snapshot = SnapshotIndex(table.metadata).get(source.pinned.snapshot_id)
    if snapshot is None:
        return []
    event_time = process.spec.sources[source.name].event_time
    column = None if event_time is None else EventColumn.of(table, event_time)
    everything = keep is None or keep.is_everything
    return [t.file for t in live_tasks(table, snapshot, column=column, keep=None if everything else keep)]
