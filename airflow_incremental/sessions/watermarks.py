"""Watermarks by hand: look, set, reset; each change is one commit with who and why."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

from airflow_incremental.core.errors import ArgumentError, IncrementalError, WatermarkLost
from airflow_incremental.core.plan import new_session_id
from airflow_incremental.core.ranges import UTC, format_time
from airflow_incremental.core.tables import IcebergTarget
from airflow_incremental.core.watermark import Published, SourcePosition, Watermark
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.by_hand import check_no_session, find_process, newest_record, put_watermark
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.lineage import committed_at
from airflow_incremental.iceberg.state import process_claim, published, words_of
from airflow_incremental.iceberg.targets import holds_rows, target_grain
from airflow_incremental.sessions.entries import by_hand
from airflow_incremental.sessions.positions import (
    Way,
    move_pins,
    position_text,
    read_position,
    standing,
    way_between,
)
from airflow_incremental.sessions.undoing import first_run_note

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from airflow_incremental.core.by_hand import Act


@attrs.frozen(kw_only=True)
class Changed:
    """What was done to a watermark, or would be."""

    outcome: Literal["planned", "done", "unchanged"]
    target: str
    process: str
    #: Of the commit; None if there was none.
    session: str | None
    snapshot_id: int | None
    watermark: Mapping[str, Any] | None
    previous_watermark: Mapping[str, Any] | None
    #: What follows, in sentences.
    notes: tuple[str, ...]
    #: The record that stands now, for the session log.
    record: Snapshot | None = attrs.field(default=None, eq=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        plain = attrs.asdict(self, recurse=False, filter=lambda field, _: field.name != "record")
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def describe(self) -> str:
        """Return what people read."""
        said = {
            "planned": f"the watermark of process {self.process!r} on {self.target} would change, and nothing else:",
            "done": f"changed the watermark of process {self.process!r} on {self.target}, in session {self.session}, snapshot "
            f"{self.snapshot_id}:",
            "unchanged": f"the watermark of process {self.process!r} on {self.target} is so already; nothing was done",
        }
        return "\n".join([said[self.outcome], *(f"  {note}" for note in self.notes)])


def show(catalog: Catalog, target: str, process: str | None) -> dict[str, Any]:
    """Return where a process stands, and how its positions stand to its sources now.

    :raises WatermarkLost: it cannot be tied to the target any more.
    """
    table = load_table(catalog, target, role="target")
    name = find_process(table, process)
    last, record = published(table, name), newest_record(table, name)
    words = {} if record is None else words_of(record.snapshot)
    found: dict[str, Any] = {
        "target": target,
        "process": name,
        "session": None
        if last is None and record is None
        else last.session
        if last is not None
        else words[naming.SESSION],
        "kind": words.get(naming.KIND),
        "mode": words.get(naming.MODE),
        "by_hand": by_hand(words),
        "snapshot_id": None if last is None else last.snapshot_id,
        "published_at": None if record is None else format_time(committed_at(record.snapshot)),
        "complete_through": None,
        "processed_through": None,
        "skipped": [],
        "scope": None,
        "sources": [],
    }
    if last is None:
        return found
    plain, tables = last.watermark.to_json(), _tables(last)
    for key in ("complete_through", "processed_through", "skipped", "scope"):
        found[key] = plain[key]
    for source, position in last.watermark.positions.items():
        stands = standing(_look(catalog, tables.get(source)), position)
        found["sources"].append({"source": source, "table": tables.get(source), **plain["positions"][source], **stands})
    return found


def set_watermark(
    catalog: Catalog,
    target: str,
    process: str | None,
    positions: Mapping[str, str],
    *,
    act: Act,
    tables: Mapping[str, str] | None = None,
    branches: Mapping[str, str] | None = None,
    processed_through: dt.datetime | None = None,
    append_again: bool = False,
    dry_run: bool = False,
) -> Changed:
    """Set positions in sources, or up to where a ``stateful`` target counts as computed; the rest stays as it is.

    :param positions: source name -> snapshot id, time with zone, ``current`` or ``start``.
    :param tables: source name -> table, where the last publish does not say it.
    :param branches: source name -> branch, where it is not ``main``.
    :param append_again: rows that a process in mode ``append`` has loaded may be appended again: they were removed from the target.
    :param dry_run: only say what would happen.
    :raises ArgumentError: a position is none, or would lead to doubled rows.
    :raises SessionBusy: a session of the process is open.
    :raises TargetChanged: the process published meanwhile.
    """
    table = load_table(catalog, target, role="target")
    name = find_process(table, process)
    last = _known(table, name, positions)
    known = {**_tables(last), **(tables or {})}
    record = newest_record(table, name)
    mode = (process_claim(table, name) or {}).get("mode") or last.summary.get(naming.MODE, "")
    unknown = sorted({*positions, *(branches or {}), *(tables or {})} - last.watermark.positions.keys())
    if unknown:
        raise ArgumentError(
            f"process {name!r} has no source {', '.join(unknown)}",
            expected=f"one of {', '.join(sorted(last.watermark.positions))}",
        )
    if not positions and processed_through is None:
        raise ArgumentError("nothing is to be set", expected="positions of sources, or processed_through")
    moved: dict[str, SourcePosition] = {}
    notes: list[str] = []
    for source, text in positions.items():
        old = last.watermark.positions[source]
        found, branch = _source(catalog, source, known), (branches or {}).get(source, "main")
        new = read_position(found, branch, text, what=f"source {source!r}")
        same = new.table_uuid == old.table_uuid
        moved[source] = attrs.evolve(
            new,
            latest_event=old.latest_event if same else None,
            complete_through=old.complete_through if same else None,
            event_field=old.event_field if same else None,
        )
        way = way_between(found, branch, old, new)
        if way.again and mode == "append" and not append_again:
            raise ArgumentError(
                f"process {name!r} is in mode 'append', and has loaded {len(way.again)} snapshots of source {source!r} after "
                f"{position_text(new)}: going on from there would append their rows a second time",
                expected="a position at or after the one that was consumed",
                hint="to undo what was loaded, roll back (rows and watermark go back together). If you have removed those rows "
                "from the target yourself, say so (--append-again)",
            )
        notes += _on_the_way(source, known[source], old, new, way)
    watermark = attrs.evolve(last.watermark, positions={**last.watermark.positions, **moved})
    if processed_through is not None:
        watermark, said = _processed(table, last.watermark, watermark, processed_through, mode)
        notes += said
    old_state, new_state = last.watermark.to_json(), watermark.to_json()
    changed = Changed(
        outcome="planned",
        target=target,
        process=name,
        session=None,
        snapshot_id=None,
        watermark=new_state,
        previous_watermark=old_state,
        notes=tuple(notes),
    )
    if old_state == new_state and record is not None:
        if not dry_run:
            move_pins(catalog, name, record.snapshot)  # which a crash may have left where they were
        return attrs.evolve(changed, outcome="unchanged", notes=(), record=record.snapshot)
    check_no_session(table, name, what="a change of its watermark")
    if dry_run:
        return changed
    return _put(catalog, changed, watermark, base=None if record is None else record.session, act=act, sources=known)


def reset_watermark(catalog: Catalog, target: str, process: str | None, *, act: Act, dry_run: bool = False) -> Changed:
    """Take the watermark of a process away, so that its next run is a first run; rows stay as they are.

    A first run into a target that holds rows is refused unless ``initial`` adopts them, so nothing is loaded twice.

    :raises SessionBusy: a session of the process is open.
    :raises TargetChanged: the process published meanwhile.
    """
    table = load_table(catalog, target, role="target")
    name = find_process(table, process)
    record, claim = newest_record(table, name), process_claim(table, name)
    try:
        last = published(table, name)
        before = None if last is None else last.watermark.to_json()
        lost: tuple[str, ...] = ()
    except WatermarkLost as error:
        last, before, lost = None, None, (f"the watermark was lost: {error.found}",)
    scope = (before or (claim or {}).get("watermark") or claim or {}).get("scope")
    mode = (claim or {}).get("mode") or ("" if record is None else words_of(record.snapshot).get(naming.MODE, ""))
    next_run = first_run_note(filled=holds_rows(table, scope), mode=mode)
    changed = Changed(
        outcome="planned",
        target=target,
        process=name,
        session=None,
        snapshot_id=None,
        watermark=None,
        previous_watermark=before,
        notes=(*lost, "there is no watermark any more", next_run),
    )
    if before is None and not lost:
        return attrs.evolve(
            changed, outcome="unchanged", notes=changed.notes[-1:], record=None if record is None else record.snapshot
        )
    check_no_session(table, name, what="a reset of its watermark")
    if dry_run:
        return changed
    sources = {} if last is None else _tables(last)
    return _put(catalog, changed, None, base=None if record is None else record.session, act=act, sources=sources)


def _put(
    catalog: Catalog,
    changed: Changed,
    watermark: Watermark | None,
    *,
    base: str | None,
    act: Act,
    sources: Mapping[str, str],
) -> Changed:
    snapshot = put_watermark(
        catalog,
        changed.target,
        changed.process,
        watermark,
        base=base,
        session=new_session_id(dt.datetime.now(UTC)),
        act=act,
        sources=sources,
    )
    move_pins(catalog, changed.process, snapshot)
    return attrs.evolve(
        changed,
        outcome="done",
        session=words_of(snapshot)[naming.SESSION],
        snapshot_id=snapshot.snapshot_id,
        record=snapshot,
    )


def _known(table: Table, process: str, positions: Mapping[str, str]) -> Published:
    """Return the publish whose watermark is changed; where it is lost, what the property claims of it."""
    try:
        last = published(table, process)
    except WatermarkLost as error:
        claim = process_claim(table, process)
        if claim is None or claim["table_uuid"] != str(table.metadata.table_uuid):
            raise
        kept = snapshot_index(table).get(claim["snapshot"])
        last = Published(
            session=claim["session"],
            snapshot_id=claim["snapshot"],
            watermark=Watermark.from_json(claim["watermark"]),
            summary={} if kept is None else words_of(kept),
        )
        missing = sorted(last.watermark.positions.keys() - positions.keys())
        if missing:
            raise WatermarkLost(
                error.found,
                expected=f"a position for every source, also for {', '.join(missing)}, where the watermark is lost",
                hint="find out up to where each source is in the target, and name it",
            ) from error
    if last is None:
        stateful = (process_claim(table, process) or {}).get("mode") == "stateful"  # which cannot adopt
        raise ArgumentError(
            f"process {process!r} has no watermark on {'.'.join(table.name())}, so there is none to set",
            expected="a process that has published",
            hint="let its first run set one, into a target without rows in its scope: 'initial' of the load says where it starts"
            if stateful
            else "let its first run set one: 'initial' of the load says where it starts, or up to where the rows that are there "
            "stand for the source ({'adopt': ...})",
        )
    return last


def _processed(
    table: Table, before: Watermark, watermark: Watermark, moment: dt.datetime, mode: str
) -> tuple[Watermark, list[str]]:
    """Return the watermark with another processed-through, and what that means."""
    if mode != "stateful":
        raise ArgumentError(
            f"the process is in mode {mode!r}, whose watermark has no processed-through", expected="mode 'stateful'"
        )
    column = None if before.event_field is None else table.schema().find_column_name(before.event_field)
    grain = target_grain(table, IcebergTarget(".".join(table.name()), event_time=column))
    if grain is not None and grain.floor(moment) != moment:
        raise ArgumentError(
            f"processed-through would be {format_time(moment)}, and the target is computed by the {grain.value}",
            expected=f"the start of a {grain.value}",
            hint=f"say {format_time(grain.floor(moment))}",
        )
    limit = max((t for t in (before.complete_through, before.processed_through) if t is not None), default=None)
    if limit is not None and moment > limit:
        raise ArgumentError(
            f"processed-through would be {format_time(moment)}, and the drivers are complete through {format_time(limit)}",
            expected="a time up to which they are complete",
        )
    old = before.processed_through
    if old is None or moment < old:
        said = f"the next run computes everything from {format_time(moment)} on again"
    else:
        said = f"what lies between {format_time(old)} and {format_time(moment)} counts as computed until it changes"
    return attrs.evolve(watermark, processed_through=moment), [said]


def _on_the_way(source: str, table: str, old: SourcePosition, new: SourcePosition, way: Way) -> list[str]:
    found = [f"source {source!r} ({table}): from {position_text(old)} to {position_text(new)}"]
    if way.again:
        found.append(f"  the next run takes the changes of {len(way.again)} snapshots again that were taken before")
    if way.skipped:
        found.append(f"  the changes of {len(way.skipped)} snapshots are passed over: no run takes them")
    if old.table_uuid != new.table_uuid:
        found.append("  another table has this name since; the watermark now speaks of that one")
    return found


def _source(catalog: Catalog, source: str, tables: Mapping[str, str]) -> Table:
    if source not in tables:
        raise ArgumentError(
            f"the last publish does not say which table source {source!r} is",
            expected="its identifier",
            hint=f"add --table {source}=<namespace.table>",
        )
    return load_table(catalog, tables[source], role="source")


def _tables(last: Published) -> dict[str, str]:
    found: dict[str, str] = json.loads(last.summary.get(naming.SOURCES, "{}"))
    return found


def _look(catalog: Catalog, table: str | None) -> Table | None:
    try:
        return None if table is None else load_table(catalog, table, role="source")
    except IncrementalError:
        return None
