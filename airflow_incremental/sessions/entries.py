"""What a target tells of the sessions of its processes: enough to write the session log anew."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from airflow_incremental.core.plan import Owner
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.session_log import ProcessEntry, PublishedFacts, SessionEntry, planned
from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.audit_table import find_audit_table, verdicts_of
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.history import expired_lineage, main_lineage
from airflow_incremental.iceberg.locks import open_plans
from airflow_incremental.iceberg.seal import quarantined_in
from airflow_incremental.iceberg.state import is_reset, process_of, published_by, state_of, words_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot


@attrs.frozen(kw_only=True)
class TargetLog:
    """What one target tells: sessions oldest first, and per process where it is."""

    #: Each with its process.
    sessions: tuple[tuple[str, SessionEntry], ...]
    processes: Mapping[str, ProcessEntry]
    #: On ``main``, oldest first, each with its process.
    publishes: tuple[tuple[str, Published], ...]


def read_log(catalog: Catalog, table: Table, *, audit_table: str | None) -> TargetLog:
    """Read the sessions that a target tells of: published ones that are kept or known from earlier metadata, open and failed ones.

    :param audit_table: where results of audits are kept, for the verdicts; None if they are not.
    """
    found: dict[str, tuple[str, SessionEntry]] = {}
    processes: dict[str, ProcessEntry] = {}
    publishes: list[tuple[str, Published]] = []
    bases: dict[str, Published] = {}
    results = None if audit_table is None else find_audit_table(catalog, audit_table)
    verdicts = {} if results is None else verdicts_of(results)
    times = _times(table)
    for process, snapshot in reversed(list(_records(table))):
        if is_reset(snapshot):
            entry = attrs.evolve(reset_entry(snapshot), rebuilt=True)
            found[entry.session] = (process, entry)
            processes.pop(process, None)
            bases.pop(process, None)
            continue
        publish, at, base = published_by(snapshot), _published(snapshot, times), bases.get(process)
        entry = published_entry(publish, base=base, at=at)
        found[publish.session] = (process, attrs.evolve(entry, verdict=verdicts.get(publish.session), rebuilt=True))
        processes[process] = process_entry(publish, base=base, at=at)
        publishes.append((process, publish))
        bases[process] = publish
    for plan in open_plans(table):
        found[plan.session] = (plan.process, attrs.evolve(planned(plan), rebuilt=True))
    for process, snapshot in _failed(table):
        publish = published_by(snapshot)
        entry = attrs.evolve(
            published_entry(publish, base=None, at=None),
            state="failed",
            snapshot_id=None,
            loaded_at=_committed(snapshot),
            verdict=verdicts.get(publish.session),
            rebuilt=True,
        )
        found[publish.session] = (process, entry)
    return TargetLog(sessions=tuple(found.values()), processes=processes, publishes=tuple(publishes))


def published_entry(publish: Published, *, base: Published | None, at: dt.datetime | None) -> SessionEntry:
    """Return the entry of a published session, from its snapshot's words.

    :param base: the publish it started from, where that is known.
    :param at: when it was published.
    """
    words = publish.summary
    aside = quarantined_in(words)
    return SessionEntry(
        session=publish.session,
        state="published",
        mode=words.get(naming.MODE, ""),
        kind=words.get(naming.KIND, "load"),
        reason=by_hand(words) or words.get(naming.REASON),
        owner=Owner.from_json({"deployment": "", **publish.owner}),
        ranges=list(publish.ranges),
        rows=int(words.get(naming.ROWS, 0)),
        late_rows=int(words.get(naming.LATE_ROWS, 0)),
        quarantined_rows=0 if aside is None else aside.rows,
        snapshot_id=publish.snapshot_id,
        complete_through=publish.watermark.complete_through,
        watermark=publish.watermark.to_json(),
        previous_watermark=_previous(publish, base),
        published_at=at,
    )


def reset_entry(snapshot: Snapshot) -> SessionEntry:
    """Return the entry of a commit by which a process has no watermark any more."""
    words = words_of(snapshot)
    return SessionEntry(
        session=words[naming.SESSION],
        state="published",
        mode=words.get(naming.MODE, ""),
        kind=words[naming.KIND],
        owner=Owner.from_json({"deployment": "", **json.loads(words[naming.OWNER])}),
        reason=by_hand(words),
        ranges=json.loads(words[naming.RANGES]),
        rows=int(words[naming.ROWS]),
        snapshot_id=snapshot.snapshot_id,
        published_at=_committed(snapshot),
    )


def act_entries(snapshot: Snapshot) -> tuple[SessionEntry, ProcessEntry | None]:
    """Return the entries of what a person did; that of the process is None where it has no watermark any more."""
    if is_reset(snapshot):
        return reset_entry(snapshot), None
    publish, at = published_by(snapshot), _committed(snapshot)
    entry = attrs.evolve(published_entry(publish, base=None, at=at), verdict="none")
    return entry, process_entry(publish, base=None, at=at)


def ended_by_hand(table: Table, process: str, session: str, *, by: str, reason: str) -> SessionEntry:
    """Return the entry of a session that a person ended.

    :param table: the target as it was before that, which tells the plan.
    """
    plan = next((p for p in open_plans(table) if (p.process, p.session) == (process, session)), None)
    unknown = SessionEntry(session=session, state="ended", mode="", kind="", owner=Owner(deployment=""))
    entry = unknown if plan is None else attrs.evolve(planned(plan), state="ended", planned_at=None)
    return attrs.evolve(entry, error=f"ended by {by}: {reason}")


def by_hand(words: Mapping[str, str]) -> str | None:
    """Return who did by hand what, and why; None of what a load published."""
    if naming.BY not in words:
        return None
    said = {"set": "set the watermark", "reset": "reset the watermark"}
    done = said.get(words[naming.KIND], f"rolled back to before session {words.get(naming.UNDONE)}")
    return f"{words[naming.BY]} {done}: {words[naming.REASON]}"


def process_entry(publish: Published, *, base: Published | None, at: dt.datetime) -> ProcessEntry:
    """Return how far a process is after a publish."""
    return ProcessEntry(
        mode=publish.summary.get(naming.MODE, ""),
        session=publish.session,
        snapshot_id=publish.snapshot_id,
        watermark=publish.watermark,
        previous_watermark=_previous(publish, base),
        published_at=at,
    )


def entries_of(table: Table, process: str, snapshot_id: int) -> tuple[SessionEntry, ProcessEntry] | None:
    """Return what a target tells of a publish of a process, and of how far the process was by it; None if it is not there."""
    own = [snapshot for snapshot in main_lineage(table) if state_of(snapshot) == process]
    found = next((n for n, snapshot in enumerate(own) if snapshot.snapshot_id == snapshot_id), None)
    if found is None or is_reset(own[found]):
        return None
    publish, at = published_by(own[found]), _published(own[found], _times(table))
    before = own[found + 1] if found + 1 < len(own) else None
    base = None if before is None or is_reset(before) else published_by(before)
    return published_entry(publish, base=base, at=at), process_entry(publish, base=base, at=at)


def publishes_since(table: Table, process: str, session: str | None) -> list[Published]:
    """Return the publishes of a process after that of a session, oldest first; all that are kept, if that one is not.

    :param session: None for all of them.
    """
    found: list[Published] = []
    for snapshot in main_lineage(table):
        if process_of(snapshot) != process:
            continue
        publish = published_by(snapshot)
        if publish.session == session:
            break
        found.append(publish)
    return found[::-1]


def record_facts(snapshot: Snapshot) -> PublishedFacts:
    """Return what the signal of a publish or a reset says."""
    if not is_reset(snapshot):
        return facts_of(published_by(snapshot))
    entry = reset_entry(snapshot)
    return PublishedFacts(
        session=entry.session,
        snapshot_id=snapshot.snapshot_id,
        kind=entry.kind,
        ranges=entry.ranges or (),
        complete_through=None,
        details={"mode": entry.mode, "rows": entry.rows},
    )


def facts_of(publish: Published) -> PublishedFacts:
    """Return what the signal of a publish says."""
    entry = published_entry(publish, base=None, at=None)
    return PublishedFacts(
        session=publish.session,
        snapshot_id=publish.snapshot_id,
        kind=entry.kind,
        ranges=publish.ranges,
        complete_through=entry.complete_through,
        details={
            "mode": entry.mode,
            "rows": entry.rows,
            "late_rows": entry.late_rows,
            "quarantined_rows": entry.quarantined_rows,
            "skipped": publish.watermark.skipped.to_json(),
        },
    )


def _records(table: Table) -> Iterator[tuple[str, Snapshot]]:
    """Yield publishes and resets on ``main`` with their processes, newest first, also those known from earlier metadata alone."""
    for lineage in (main_lineage(table), expired_lineage(table)):
        for snapshot in lineage:
            process = state_of(snapshot)
            if process is not None:
                yield process, snapshot


def _failed(table: Table) -> Iterator[tuple[str, Snapshot]]:
    index = snapshot_index(table)
    for name, ref in table.metadata.refs.items():
        snapshot = index.get(ref.snapshot_id)
        process = None if snapshot is None else words_of(snapshot).get(naming.PROCESS)
        if name.startswith(naming.FAILED_PREFIX) and snapshot is not None and process is not None:
            yield process, snapshot


def _previous(publish: Published, base: Published | None) -> dict[str, Any]:
    """Return what was consumed before, of the sources that the process has now."""
    before = {} if base is None else base.watermark.positions
    return {name: before[name].to_json() if name in before else None for name in publish.watermark.positions}


def _times(table: Table) -> dict[int, int]:
    """Return when snapshots became ``main`` first, in milliseconds; a session's is made earlier: its audits come in between."""
    return {entry.snapshot_id: entry.timestamp_ms for entry in reversed(table.metadata.snapshot_log)}


def _published(snapshot: Snapshot, times: Mapping[int, int]) -> dt.datetime:
    return dt.datetime.fromtimestamp(times.get(snapshot.snapshot_id, snapshot.timestamp_ms) / 1000, tz=UTC)


def _committed(snapshot: Snapshot) -> dt.datetime:
    return dt.datetime.fromtimestamp(snapshot.timestamp_ms / 1000, tz=UTC)
