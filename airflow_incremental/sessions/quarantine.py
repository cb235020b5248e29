"""Rows put aside, exactly once, across two tables that no catalog commits together.

The rows are staged on a branch of the quarantine table, where nobody sees them. Then the rest is sealed on the target, and the
sealed snapshot says which staged snapshot is its own; so a publish, which is one commit, decides of both. What follows from it on
the quarantine table, release or removal of the branch, is again one commit, and can be made up for at any time: who finds a staged
branch asks the target what became of its session. An open one may still publish; one neither open nor published never will.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import attrs
import pyarrow as pa

from airflow_incremental.core.errors import ArgumentError, TargetChanged, WatermarkLost
from airflow_incremental.core.quarantine import Quarantined
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.locks import check_owned, session_of_lock
from airflow_incremental.iceberg.quarantine import (
    Staged,
    drop,
    release,
    stage,
    staged_files,
    staged_of,
    write_rows,
)
from airflow_incremental.iceberg.quarantine_schema import ensure_table
from airflow_incremental.iceberg.seal import Sealed, check_shape, quarantined_in
from airflow_incremental.iceberg.seal import seal as commit_seal
from airflow_incremental.iceberg.split import Places, without
from airflow_incremental.iceberg.state import publish_of_session, published
from airflow_incremental.sessions.keys import changed_keys

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from airflow_incremental.audits.offenders import Offenders
    from airflow_incremental.core.watermark import Published
    from airflow_incremental.sessions.process import Process, Session

log = logging.getLogger(__name__)

#: Part of the name of the one branch that holds all rows of a session.
_ALL = "all"


def put_aside(session: Session, sealed: Sealed, offenders: Offenders) -> Sealed:
    """Stage the offending rows of a sealed session in the quarantine table, and seal the rest in its place.

    :returns: what is sealed now; it knows what was put aside.
    :raises SessionSuperseded: the session does not hold the lock any more.
    :raises TargetChanged: others changed the target under the session.
    :raises TableError: the quarantine table cannot take the rows.
    """
    process, plan = session.process, session.plan
    target = load_table(process.catalog, plan.target, role="target")
    check_owned(target, session.begin)
    check_shape(target, sealed.output, plan)
    places = Places(files=sealed.output.files, rows=offenders.rows)
    rest = without(target, sealed.output, places, event_time=process.spec.target.event_time)
    table = ensure_table(process.catalog, process.quarantine, target, of=plan.target)
    files = write_rows(table, target, plan, places, lambda said: _reasons(said, offenders.names))
    # On a branch of this very try: another one, asleep or cut off, never touches what this one's seal names.
    staged = stage(
        process.catalog,
        process.quarantine,
        plan,
        files,
        ref=naming.quarantine_ref(plan.process, plan.session, rest.write_id.hex[:12]),
        release=naming.AT_PUBLISH,
        of=sealed.snapshot_id,
    )
    aside = Quarantined(
        table=process.quarantine,
        snapshot_id=staged.snapshot_id,
        rows=offenders.rows.num_rows,
        counts=offenders.counts,
        of=str(sealed.output.write_id),
    )
    log.info("put %s rows aside; they become visible in %s with the publish", f"{aside.rows:,}", aside.table)
    return commit_seal(
        process.catalog,
        process.spec,
        session.begin,
        attrs.evolve(rest, quarantined=aside),
        keys=changed_keys(process, plan, target),
        progress=log.info,
    )


def check_staged(session: Session, sealed: Sealed) -> None:
    """See before a publish that the rows it leaves out are still where they were put.

    :raises TargetChanged: they are not: without them the publish would lose rows.
    """
    aside = sealed.output.quarantined
    if aside is None:
        return
    process = session.process
    waiting = staged_of(process.catalog, aside.table, session.plan.process)
    if any(staged.snapshot_id == aside.snapshot_id for staged in waiting):
        return
    plan = session.plan
    # Of a session that another try published a moment ago, or somebody ended, they are gone too; the publish itself finds out.
    if session_of_lock(load_table(process.catalog, plan.target, role="target"), plan.process) == plan.session:
        raise TargetChanged(
            f"the {aside.rows:,} rows that session {plan.session} put aside are not in {aside.table} any more",
            expected="that nobody drops, renames or replaces the quarantine table, or a branch of it, while a session is open",
            hint="retry the task; it plans anew, and puts them aside again",
        )


def quarantine_all(session: Session, sealed: Sealed, reason: str) -> Quarantined:
    """Stage all rows a session wrote in the quarantine table, those it had put aside among them.

    They are released when the session has ended without a publish, by :func:`settle_process` or the process's next plan. Done again
    for the same sealed snapshot, it finds its own work.

    :param reason: why, for every row that is not put aside already.
    :raises SessionSuperseded: the session does not hold the lock any more.
    """
    process, plan = session.process, session.plan
    target = load_table(process.catalog, plan.target, role="target")
    check_owned(target, session.begin)
    before = sealed.output.quarantined
    if before is not None and before.table != process.quarantine:
        raise ArgumentError(
            f"session {plan.session} has put rows aside in {before.table}, and quarantine_table is {process.quarantine!r} now",
            expected="one quarantine table for all rows of a session",
            hint=f"set quarantine_table={before.table!r} until the session has ended",
        )
    rows = sealed.output.rows + (before.rows if before is not None else 0)
    ref = naming.quarantine_ref(plan.process, plan.session, _ALL)
    for staged in staged_of(process.catalog, process.quarantine, plan.process):
        if staged.ref == ref and staged.of == str(sealed.snapshot_id):
            return Quarantined(table=process.quarantine, snapshot_id=staged.snapshot_id, rows=rows)
    table = ensure_table(process.catalog, process.quarantine, target, of=plan.target)
    places = Places(files=sealed.output.files, rows=_all_places(sealed))
    files = write_rows(table, target, plan, places, lambda said: [[reason]] * said.num_rows)
    if before is not None:
        files += staged_files(table, before.snapshot_id)
    made = stage(
        process.catalog,
        process.quarantine,
        plan,
        files,
        ref=ref,
        release=naming.AT_END,
        of=sealed.snapshot_id,
    )
    return Quarantined(table=process.quarantine, snapshot_id=made.snapshot_id, rows=rows)


def settle_process(process: Process, last: Published | None = None) -> None:
    """Bring the quarantine tables of a process up to date with what became of its sessions; see :func:`settle`.

    :param last: a publish of the process, if one is known: its rows may lie in a table of another name.
    """
    tables = [process.quarantine] if process.puts_aside else []
    aside = None if last is None else quarantined_in(last.summary)
    if aside is not None:
        tables.append(aside.table)
    settle(process.catalog, process.spec.target.table, process.spec.process, tables)


def settle_last(process: Process, target: Table) -> None:
    """Settle before a plan: what the last publish or an ended session left undone."""
    try:
        last = published(target, process.spec.process)
    except WatermarkLost:
        last = None  # the plan says so
    settle_process(process, last)


def settle(catalog: Catalog, target: str, process: str, tables: Iterable[str]) -> None:
    """Release the staged rows of published sessions, and drop those of sessions that ended without a publish.

    :param tables: quarantine tables; one that does not exist holds nothing.
    """
    for table in dict.fromkeys(tables):
        # Looked at first: a session whose rows are staged by now has its lock by now, so the target tells what became of it.
        waiting = staged_of(catalog, table, process)
        if not waiting:
            continue
        now = load_table(catalog, target, role="target")
        for staged in waiting:
            fate = _fate(now, process, staged)
            if fate == "release":
                rows = release(catalog, table, process, staged)
                if rows:
                    log.info("session %s: %s quarantined rows are in %s now", staged.session, f"{rows:,}", table)
            elif fate == "drop":
                drop(catalog, table, staged)
                log.info("session %s ended without them: its staged rows in %s are dropped", staged.session, table)


def _fate(target: Table, process: str, staged: Staged) -> Literal["wait", "release", "drop"]:
    if session_of_lock(target, process) == staged.session:
        return "wait"
    found = publish_of_session(target, process, staged.session)
    if found is None:
        try:
            last = published(target, process)
        except WatermarkLost as error:
            log.warning("rows of session %s wait in quarantine, because %s", staged.session, error.found)
            return "wait"
        found = last if last is not None and last.session == staged.session else None
    if staged.release == naming.AT_END:
        return "release" if found is None else "drop"
    aside = None if found is None else quarantined_in(found.summary)
    return "release" if aside is not None and aside.snapshot_id == staged.snapshot_id else "drop"


def _reasons(said: pa.Table, names: tuple[str, ...]) -> list[list[str]]:
    """Return, for each row, the names whose columns are true; the first two columns say where it is."""
    flags = [said.column(at + 2).to_pylist() for at in range(len(names))]
    return [[name for name, flag in zip(names, row, strict=True) if flag] for row in zip(*flags, strict=True)]


def _all_places(sealed: Sealed) -> pa.Table:
    counts: Mapping[int, int] = {n: f.record_count for n, f in enumerate(sealed.output.files)}
    schema = pa.schema([("file", pa.int32()), ("position", pa.int64())])
    return pa.concat_tables(
        [
            schema.empty_table(),
            *(
                pa.table([pa.repeat(pa.scalar(n, pa.int32()), rows), pa.array(range(rows), pa.int64())], schema=schema)
                for n, rows in counts.items()
            ),
        ]
    )
