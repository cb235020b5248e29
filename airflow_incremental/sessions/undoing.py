"""Undo: the commit of :mod:`~airflow_incremental.iceberg.rollback`, what follows it, and what people are told of both."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

from airflow_incremental.core.plan import new_session_id
from airflow_incremental.core.ranges import UTC, format_time
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.by_hand import check_no_session, find_process
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.lineage import committed_at
from airflow_incremental.iceberg.rollback import ranges_of, roll_back, sources_of
from airflow_incremental.iceberg.state import Record, words_of
from airflow_incremental.iceberg.targets import holds_rows
from airflow_incremental.iceberg.undoing import Undoing, undoing_of
from airflow_incremental.sessions.positions import move_pins, position_notes

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table.snapshots import Snapshot

    from airflow_incremental.core.by_hand import Act
    from airflow_incremental.core.watermark import Published

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Rollback:
    """What a rollback does (``planned``), did (``done``), or what an earlier one did (``already_done``)."""

    outcome: Literal["planned", "done", "already_done"]
    target: str
    process: str
    #: The first session that is undone.
    session: str
    #: All that are undone, newest first: session, kind, snapshot, committed_at, rows, by.
    undone: tuple[Mapping[str, Any], ...]
    #: Session whose state holds again; None if there was none before.
    back_to: str | None
    watermark: Mapping[str, Any] | None
    ranges: tuple[str, ...]
    files_removed: int
    rows_removed: int
    #: Files whose rows are written again, because the undone sessions had replaced them.
    files_restored: int
    rows_restored: int
    #: Of the rollback itself; None if it is only planned.
    rollback: str | None
    snapshot_id: int | None
    by: str | None
    reason: str | None
    #: What to know before the next run.
    notes: tuple[str, ...]
    #: The snapshot of the rollback, for the session log.
    record: Snapshot | None = attrs.field(default=None, eq=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        plain = attrs.asdict(self, recurse=False, filter=lambda field, _: field.name != "record")
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def describe(self) -> str:
        """Return what people read."""
        if self.outcome == "already_done":
            return (
                f"session {self.session} of process {self.process!r} is undone already: {self.by} took {self.target} back to "
                f"before it, in session {self.rollback} (snapshot {self.snapshot_id}): {self.reason}"
            )
        does = "would undo" if self.outcome == "planned" else "undid"
        state = (
            "has no watermark any more" if self.watermark is None else f"is again where session {self.back_to} left it"
        )
        lines = [
            f"{does} {len(self.undone)} session{'s' if len(self.undone) > 1 else ''} of process {self.process!r} on {self.target}:",
            *(
                f"  {u['session']} ({u['kind']}, {u['rows']:,} rows, {u['committed_at']}, {u['by']})"
                for u in self.undone
            ),
            f"the process {state}" if self.outcome == "done" else f"then the process {state}",
            f"{self.rows_removed:,} rows in {self.files_removed:,} files "
            + ("leave" if self.outcome == "planned" else "left")
            + f"; {self.rows_restored:,} rows in {self.files_restored:,} files "
            + ("come" if self.outcome == "planned" else "came")
            + " back",
        ]
        if self.outcome == "done":
            lines.append(f"in one commit, session {self.rollback}, snapshot {self.snapshot_id}")
        return "\n".join([*lines, *self.notes])


def preview(catalog: Catalog, target: str, process: str | None, session: str) -> Rollback:
    """Say what a rollback would do, touching nothing.

    :param session: the first session that is undone.
    :raises SessionBusy: a session of the process is open.
    :raises RollbackRefused: it cannot be done.
    """
    table = load_table(catalog, target, role="target")
    name = find_process(table, process)
    found = undoing_of(table, name, session)
    if isinstance(found, Record):
        return _already(target, name, found)
    check_no_session(table, name, what="a rollback")
    return _report(catalog, target, name, found, None)


def undo(catalog: Catalog, target: str, process: str | None, session: str, *, act: Act) -> Rollback:
    """Take a target back to before a session of a process: the commit, and then the pins on the sources.

    Doing it again finds it done, and moves what a crash left.

    :param process: None is the process of the target's name, or the only one there is.
    :param session: the first session that is undone.
    :raises SessionBusy: a session of the process is open.
    :raises RollbackRefused: it cannot be done; says why, and what to do.
    """
    name = find_process(load_table(catalog, target, role="target"), process)
    done = roll_back(
        catalog, target, name, session, rollback=new_session_id(dt.datetime.now(UTC)), act=act, progress=log.info
    )
    move_pins(catalog, name, done.snapshot)
    if done.undoing is None:
        found = undoing_of(load_table(catalog, target, role="target"), name, session)
        assert isinstance(found, Record)  # noqa: S101  (an undone session stays one, as long as it is kept)
        return _already(target, name, found)
    return _report(catalog, target, name, done.undoing, done.snapshot)


def _report(catalog: Catalog, target: str, process: str, undoing: Undoing, record: Snapshot | None) -> Rollback:
    back, words = undoing.published, {} if record is None else words_of(record)
    return Rollback(
        outcome="planned" if record is None else "done",
        target=target,
        process=process,
        session=undoing.first.session,
        undone=tuple(_told(r.snapshot) for r in undoing.undone),
        back_to=None if undoing.back_to is None else undoing.back_to.session,
        watermark=None if back is None else back.watermark.to_json(),
        ranges=tuple(ranges_of(undoing).to_json()),
        files_removed=len(undoing.dropped),
        rows_removed=sum(f.file.record_count for f in undoing.dropped),
        files_restored=len(undoing.restored),
        rows_restored=sum(e.data_file.record_count for e in undoing.restored)
        if record is None
        else int(words[naming.ROWS]),
        rollback=words.get(naming.SESSION),
        snapshot_id=None if record is None else record.snapshot_id,
        by=words.get(naming.BY),
        reason=words.get(naming.REASON),
        notes=_notes(catalog, undoing, back),
        record=record,
    )


def _already(target: str, process: str, found: Record) -> Rollback:
    by = found.undone_by
    assert by is not None  # noqa: S101  (the caller has looked)
    words = words_of(by)
    return Rollback(
        outcome="already_done",
        target=target,
        process=process,
        session=found.session,
        undone=(),
        back_to=words[naming.BACK_TO] or None,
        watermark=json.loads(words[naming.WATERMARK]) if naming.WATERMARK in words else None,
        ranges=tuple(json.loads(words[naming.RANGES])),
        files_removed=0,
        rows_removed=0,
        files_restored=0,
        rows_restored=0,
        rollback=words[naming.SESSION],
        snapshot_id=by.snapshot_id,
        by=words[naming.BY],
        reason=words[naming.REASON],
        notes=(),
        record=by,
    )


def _told(snapshot: Snapshot) -> dict[str, Any]:
    words = words_of(snapshot)
    owner = json.loads(words.get(naming.OWNER, "{}"))
    run = f"run {owner['run_id']} of DAG {owner['dag_id']}" if owner.get("run_id") else "outside Airflow"
    return {
        "session": words[naming.SESSION],
        "kind": words.get(naming.KIND, "load"),
        "snapshot_id": snapshot.snapshot_id,
        "committed_at": format_time(committed_at(snapshot)),
        "rows": int(words.get(naming.ROWS, 0)),
        "by": words.get(naming.BY) or run,
    }


def _notes(catalog: Catalog, undoing: Undoing, back: Published | None) -> tuple[str, ...]:
    """Say what the next run will do."""
    if back is None:
        words = words_of(undoing.first.snapshot)
        scope = json.loads(words.get(naming.WATERMARK, '{"scope": null}'))["scope"]
        filled = holds_rows(undoing.table, scope, snapshot=undoing.before)
        return (first_run_note(filled=filled, mode=words.get(naming.MODE, "")),)
    positions = position_notes(catalog, back.watermark, sources_of(undoing.first))
    restated = [r.session for r in undoing.undone if words_of(r.snapshot).get(naming.KIND) == "restatement"]
    again = (f"what was restated ({', '.join(restated)}) comes again only if it is restated again",) if restated else ()
    return ("the next run of the load goes on from there, and loads again what was undone", *again, *positions)


def first_run_note(*, filled: bool, mode: str) -> str:
    """Say what the next run does of a process that has no watermark.

    :param filled: whether the target then holds rows in its scope.
    :param mode: of the process; empty if it is not known.
    """
    if not filled:
        return "its target is empty then: the next run of the load is a first run, from where 'initial' says (default: all)"
    if mode == "stateful":  # which cannot adopt: up to where found rows were processed is not known
        return "its target still holds rows: the next run of the load is refused. Delete the rows first; then it is a first run"
    return (
        "its target still holds rows: the next run of the load is refused unless 'initial' adopts them, and says up to where the "
        "sources are in them ({'adopt': ...}). Or delete the rows first; then the next run is a first run"
    )
