"""What a session tells the outside: the values of its plan for other tasks, and the summary of its end for events, XCom and people.

Plain values only, and of bounded size but for the ranges of a plan, which a task that writes by itself must know exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_incremental.core.ranges import EventRanges, Grain, format_time

if TYPE_CHECKING:
    from airflow_incremental.core.plan import Plan
    from airflow_incremental.core.watermark import Published, Watermark
    from airflow_incremental.sessions.process import Finished

#: Ranges in a summary; more are coalesced, because asset events are stored for good and read by people.
RANGES_IN_SUMMARY = 50

#: What ``IncrementalLoad.session`` holds, and how it is described.
SESSION_VALUES = {
    "session": "id of the session",
    "process": "name of the process",
    "target": "identifier of the target",
    "branch": "branch of the target that own writes go to",
    "kind": "'load', 'reload' or 'restatement'",
    "reason": "why there is a session, in a sentence",
    "ranges": "event times to compute, as a list of 'start/end' (half-open, UTC; 'null' stands for rows without event time)",
    "range_start": "start of the first range, or None",
    "range_end": "end of the last range (exclusive), or None",
    "late_ranges": "the part of the ranges below what was already complete",
    "snapshots": "source name -> snapshot id to read",
    "base_snapshots": "source name -> snapshot id consumed before, or None",
    "bounds": "source name -> column of its change_bounds -> [least, greatest] value among the changed rows, or None",
    "complete_through": "event time up to which the target will be complete, or None",
}


def session_values(plan: Plan, *, branch: str) -> dict[str, Any]:
    """Return what tasks of the author's own need to know of a session; all keys of ``SESSION_VALUES``."""
    ranges = plan.replaced or plan.affected
    span = ranges.span()
    return {
        "session": plan.session,
        "process": plan.process,
        "target": plan.target,
        "branch": branch,
        "kind": plan.kind,
        "reason": plan.reason,
        "ranges": ranges.to_json(),
        "range_start": None if span is None else format_time(span.start),
        "range_end": None if span is None else format_time(span.end),
        "late_ranges": plan.late.to_json(),
        "snapshots": {s.name: s.pinned.snapshot_id for s in plan.sources},
        "base_snapshots": {s.name: None if s.base is None else s.base.snapshot_id for s in plan.sources},
        "bounds": {s.name: dict(s.bounds) for s in plan.sources},
        "complete_through": _time(plan.watermark),
    }


def name_of_chunk(plan: Plan, chunk: EventRanges) -> str:
    """Return the event times of a chunk (UTC), as short as people read them."""
    span = plan.only(chunk).affected.span()
    if span is None or chunk.is_everything:
        return "all"
    form = "%Y-%m-%d" if span == span.align(Grain.DAY) else "%Y-%m-%d %H:%M"
    return f"{span.start:{form}} to {span.end:{form}}"


def no_session() -> dict[str, Any]:
    """Return the values of a session that there is not."""
    return dict.fromkeys(SESSION_VALUES)


def summarise(finished: Finished, *, process: str, target: str) -> dict[str, Any]:
    """Return the summary of how a load ended: the ``extra`` of its asset event, and the result of its last task.

    ``published`` says whether the target's watermark moved (with or without rows); ``snapshot_id`` is then the snapshot on
    ``main``. If nothing was published, they tell of the last publish, so that whoever missed its event learns of it now.
    """
    from airflow_incremental.iceberg import naming
    from airflow_incremental.iceberg.seal import quarantined_in

    last, plan = finished.published, finished.plan
    stored: Mapping[str, str] = last.summary if last is not None else {}
    aside = quarantined_in(stored)
    moved = finished.did_publish or plan is not None
    ranges = EventRanges.from_json(json.loads(stored.get(naming.RANGES, "[]")))
    return {
        "process": process,
        "target": target,
        "outcome": finished.outcome,
        "reason": finished.reason,
        "published": moved,
        "session": None if last is None else last.session,
        "snapshot_id": None if last is None else last.snapshot_id,
        "mode": stored.get(naming.MODE),
        "kind": stored.get(naming.KIND),
        "ranges": ranges.coalesce(RANGES_IN_SUMMARY).to_json(),
        "rows": int(stored.get(naming.ROWS, 0)),
        "quarantined_rows": 0 if aside is None else aside.rows,
        "quarantine_table": None if aside is None else aside.table,
        "late_rows": int(stored.get(naming.LATE_ROWS, 0)),
        "audits": finished.verdict,
        "approval": None if finished.decision is None else str(finished.decision),
        "complete_through": None if last is None else _time(last.watermark),
        "skipped": [] if last is None else last.watermark.skipped.to_json(),
        "watermark": None if last is None else _positions(last),
        "previous_watermark": None
        if plan is None
        else {s.name: None if s.base is None else s.base.snapshot_id for s in plan.sources},
    }


def describe(summary: Mapping[str, Any]) -> str:
    """Return a summary as people read it on the task's page."""
    if summary["outcome"] == "nothing_to_do":
        text = f"nothing to do: {summary['reason']}"
        if summary["session"] is not None:
            text += f"\nlast publish: session {summary['session']}, snapshot {summary['snapshot_id']}"
    else:
        text = (
            f"published {summary['rows']:,} rows ({summary['late_rows']:,} late) to {summary['target']} as snapshot "
            f"{summary['snapshot_id']}, session {summary['session']}\naudits: {summary['audits']}"
        )
        if summary["quarantined_rows"]:
            text += f"\nput {summary['quarantined_rows']:,} rows aside in {summary['quarantine_table']}"
        if summary.get("approval"):
            text += f"\n{summary['approval']}"
    text += f"\ncomplete through: {summary['complete_through'] or 'not known'}"
    return text + (f"\nskipped, and kept for later: {', '.join(summary['skipped'])}" if summary["skipped"] else "")


def _time(watermark: Watermark) -> str | None:
    return None if watermark.complete_through is None else format_time(watermark.complete_through)


def _positions(published: Published) -> dict[str, int | None]:
    return {name: position.snapshot_id for name, position in published.watermark.positions.items()}
