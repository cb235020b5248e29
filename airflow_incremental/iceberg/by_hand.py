"""Commits that a person makes to what a process has published: each a snapshot on ``main`` with who and why.

Setting a watermark is a publish without rows. Resetting it is a snapshot that says that there is none; the state property stays and
says the same, so that others still know of the process. Both assert ``main``, and that no session of the process is open.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    RemoveSnapshotRefUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

from airflow_incremental.core.by_hand import Act
from airflow_incremental.core.commands import abandon_command
from airflow_incremental.core.errors import ArgumentError, SessionBusy, TargetChanged
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.core.watermark import Watermark
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import Built, LiveFile, build_snapshot, snapshot_index
from airflow_incremental.iceberg.commits import Change, commit
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.locks import session_of_lock
from airflow_incremental.iceberg.seal import SUMMARY_RANGES
from airflow_incremental.iceberg.state import SEALED, Record, process_claim, records, state_of, words_of


def find_process(table: Table, name: str | None) -> str:
    """Return the process that is meant: the named one, that of the table's own name, or the only one there is.

    :raises ArgumentError: there is none of this name, or it is not said which is meant.
    """
    identifier = ".".join(table.name())
    known = known_processes(table)
    if name is None:
        name = identifier if identifier in known or len(known) != 1 else known[0]
    if name not in known:
        raise ArgumentError(
            f"no process {name!r} has published to {identifier} or has an open session on it",
            expected=f"one of {', '.join(map(repr, known))}" if known else "a table that a process has published to",
            hint="name the process, which is the argument process= of the load and by default the identifier of its target",
        )
    return name


def known_processes(table: Table) -> list[str]:
    """Return the processes that a target knows of: by their properties, their locks, or the history of ``main``."""
    found = {name for key in table.metadata.properties if (name := naming.process_of_property(key)) is not None}
    index = snapshot_index(table)
    for ref in table.metadata.refs.values():
        words = words_of(index[ref.snapshot_id]) if ref.snapshot_id in index else {}
        if words.get(naming.RECORD) == naming.BEGIN:
            found.add(words[naming.PROCESS])
    found.update(name for snapshot in main_lineage(table) if (name := state_of(snapshot)) is not None)
    return sorted(found)


def newest_record(table: Table, process: str) -> Record | None:
    """Return what the kept history of ``main`` says last of a process."""
    return next(records(main_lineage(table), process), None)


def check_no_session(table: Table, process: str, *, what: str) -> None:
    """Refuse while a session of the process is open: it would publish over what is done here, or be left without its base.

    :raises SessionBusy: naming the command that ends it.
    """
    open_ = session_of_lock(table, process)
    if open_ is not None:
        target = ".".join(table.name())
        raise SessionBusy(
            f"session {open_} of process {process!r} is open on {target}, so {what} has to wait",
            expected="no open session of the process",
            hint=f"let its run end; or end it without a publish with {abandon_command(target, process)}, then do this again",
        )


def put_watermark(
    catalog: Catalog,
    target: str,
    process: str,
    watermark: Watermark | None,
    *,
    base: str | None,
    session: str,
    act: Act,
    sources: Mapping[str, str],
) -> Snapshot:
    """Set the watermark of a process, or say that it has none (None), in one commit, and return its snapshot.

    :param base: session of the record of the process that was newest when this was decided; None if there was none.
    :param session: id of this act.
    :param sources: source name -> table, kept with it.
    :raises SessionBusy: a session of the process is open.
    :raises TargetChanged: the process published since.
    """
    kind = "reset" if watermark is None else "set"

    def build(table: Table) -> Change | None:
        last = newest_record(table, process)
        if last is not None and last.session == session:
            return None
        check_no_session(table, process, what=f"a {kind} of its watermark")
        if (None if last is None else last.session) != base:
            raise TargetChanged(
                f"process {process!r} went on to session {None if last is None else last.session} of {target} while its watermark "
                f"was {kind}",
                expected=f"session {base}, as it was looked at" if base else "no publish of it",
                hint="look again, and decide anew",
            )
        parent = snapshot_index(table)[table.metadata.refs[MAIN_BRANCH].snapshot_id]
        built = build_record(
            table,
            parent=parent,
            process=process,
            session=session,
            kind=kind,
            watermark=watermark,
            act=act,
            sources=sources,
        )
        return record_change(table, process, built, watermark, session=session)

    table = commit(catalog, target, build, what=f"the {kind} of the watermark of process {process!r}")
    return committed(table, process, session)


def committed(table: Table, process: str, session: str) -> Snapshot:
    """Return the record of an act after its commit.

    :raises TargetChanged: it is gone: somebody rolled ``main`` back since.
    """
    for record in records(main_lineage(table), process):
        if record.session == session:
            return record.snapshot
    raise TargetChanged(
        f"what was done as {session} is not on 'main' of {'.'.join(table.name())} any more",
        expected="that nobody moves 'main' back",
        hint="look again, and decide anew",
    )


def build_record(
    table: Table,
    *,
    parent: Snapshot,
    process: str,
    session: str,
    kind: str,
    watermark: Watermark | None,
    act: Act,
    sources: Mapping[str, str],
    ranges: EventRanges = EventRanges(),
    about: Mapping[str, str] | None = None,
    added: Sequence[DataFile] = (),
    dropped: Sequence[LiveFile] = (),
) -> Built:
    """Write the snapshot of an act: a publish, or a reset if there is no watermark."""
    last = newest_record(table, process)
    claim = process_claim(table, process)
    mode = claim["mode"] if claim is not None else "" if last is None else words_of(last.snapshot)[naming.MODE]
    summary = {
        naming.RECORD: naming.RESET if watermark is None else SEALED,
        naming.PROCESS: process,
        naming.SESSION: session,
        naming.BASE_SESSION: "" if last is None else last.session,
        naming.KIND: kind,
        naming.MODE: mode,
        **({} if watermark is None else {naming.WATERMARK: watermark.dumps()}),
        naming.SOURCES: _compact(sources),
        naming.RANGES: _compact(ranges.coalesce(SUMMARY_RANGES).to_json()),
        naming.OWNER: _compact({} if act.owner is None else act.owner.to_json()),
        naming.ROWS: str(sum(file.record_count for file in added)),
        naming.BY: act.by,
        naming.REASON: act.reason,
        **(about or {}),
    }
    return build_snapshot(table, parent=parent, added=added, dropped=dropped, summary=summary)


def record_change(table: Table, process: str, built: Built, watermark: Watermark | None, *, session: str) -> Change:
    """Return the commit that makes a record ``main``: the state property and the tag follow, no session may be open."""
    snapshot_id = built.snapshot.snapshot_id
    return Change(
        updates=(
            AddSnapshotUpdate(snapshot=built.snapshot),
            SetSnapshotRefUpdate(ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH, snapshot_id=snapshot_id),
            *_state_updates(
                table, process, snapshot_id, watermark, session=session, mode=words_of(built.snapshot)[naming.MODE]
            ),
        ),
        requirements=(
            AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=table.metadata.refs[MAIN_BRANCH].snapshot_id),
            AssertRefSnapshotId(ref=naming.lock_ref(process), snapshot_id=None),
        ),
        written=built.written,
    )


def _state_updates(
    table: Table, process: str, snapshot_id: int, watermark: Watermark | None, *, session: str, mode: str
) -> tuple[TableUpdate, ...]:
    before = process_claim(table, process) or {}
    known = before.get("watermark") or before
    scope = watermark.to_json()["scope"] if watermark is not None else known.get("scope")
    value: dict[str, Any] = {
        "session": session,
        "snapshot": snapshot_id,
        "table_uuid": str(table.metadata.table_uuid),
        "watermark": None if watermark is None else watermark.to_json(),
        "mode": mode,
        # What is not known is taken for what keeps others out.
        "may_replace": before.get("may_replace", True),
        "audits": "none",
        **({"scope": scope} if watermark is None else {}),
    }
    tag = naming.watermark_tag(process)
    updates: list[TableUpdate] = [SetPropertiesUpdate(updates={naming.state_property(process): _compact(value)})]
    if watermark is not None:
        updates.append(SetSnapshotRefUpdate(ref_name=tag, type=SnapshotRefType.TAG, snapshot_id=snapshot_id))
    elif tag in table.metadata.refs:
        updates.append(RemoveSnapshotRefUpdate(ref_name=tag))
    return tuple(updates)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
