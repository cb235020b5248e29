"""Expiry: left-over refs and old snapshots go in one compare-and-set commit, then the files that only those snapshots had.

pyiceberg's own expiry deletes no file, takes snapshots from the middle of a lineage, and knows nothing of who follows it. A process
killed between the commit and the last deletion leaves files that nothing refers to, which the sweep takes.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Sequence

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    RemovePartitionStatisticsUpdate,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    RemoveStatisticsUpdate,
    TableRequirement,
    TableUpdate,
)

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.maintenance import MaintenancePolicy
from airflow_incremental.core.ranges import EPOCH
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.commits import Change, commit
from airflow_incremental.iceberg.garbage import NOT_COLLECTED, Garbage, delete, garbage, is_collected
from airflow_incremental.iceberg.lineage import committed_at
from airflow_incremental.iceberg.locks import KEEP_FAILED
from airflow_incremental.iceberg.needs import Held, cut, needs_of
from airflow_incremental.iceberg.state import words_of

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Expiry:
    """What an expiry takes away, or took away.

    :param refs: left-over branches and tags -> why they are left over.
    :param files: what only the snapshots that go refer to; when it was done, what was deleted.
    :param held: who keeps snapshots that are old enough to go.
    :param notes: what was left alone, and why.
    """

    refs: dict[str, str] = attrs.field(factory=dict)
    snapshots: tuple[int, ...] = ()
    files: Garbage = attrs.field(factory=Garbage)
    held: tuple[Held, ...] = ()
    notes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class _Plan:
    refs: dict[str, str]
    gone: tuple[Snapshot, ...]
    held: tuple[Held, ...]
    notes: tuple[str, ...]


def preview(table: Table, policy: MaintenancePolicy, *, now: dt.datetime, consumers: Sequence[Table] = ()) -> Expiry:
    """Say what :func:`expire` would do, touching nothing."""
    planned = _plan(table, policy, now, consumers)
    ids = {s.snapshot_id for s in planned.gone}
    kept = [s for s in table.metadata.snapshots if s.snapshot_id not in ids]
    return _told(planned, garbage(table, planned.gone, kept, _statistics(table, ids)) if planned.gone else Garbage())


def expire(
    catalog: Catalog,
    identifier: str,
    policy: MaintenancePolicy,
    *,
    now: dt.datetime,
    consumers: Callable[[], Sequence[Table]] = tuple,
) -> Expiry:
    """Drop left-over refs and expire old snapshots, in one commit, then delete the files that only these had.

    :param now: from which ages are counted, timezone-aware.
    :param consumers: loads the tables whose processes may read this one; called before every attempt.
    """
    planned = _Plan(refs={}, gone=(), held=(), notes=())
    tried: dict[int, Snapshot] = {}
    refs: dict[str, str] = {}
    statistics: set[str] = set()

    def build(table: Table) -> Change | None:
        nonlocal planned
        planned = _plan(table, policy, now, consumers())
        if not planned.gone and not planned.refs:
            return None
        ids = [s.snapshot_id for s in planned.gone]
        tried.update(zip(ids, planned.gone, strict=True))
        refs.update(planned.refs)
        statistics.update(_statistics(table, set(ids)))
        return Change(updates=_updates(table, planned, ids), requirements=_requirements(table, planned))

    table = commit(catalog, identifier, build, what="the expiry of old snapshots")
    kept = table.metadata.snapshots
    there = {s.snapshot_id for s in kept}
    gone = [s for i, s in tried.items() if i not in there]
    found = garbage(table, gone, kept, sorted(statistics)) if gone else Garbage()
    failed = delete(table.io, found.paths)
    notes = (*planned.notes, *([f"{len(failed)} files could not be deleted; the sweep takes them"] if failed else []))
    return Expiry(
        refs={name: why for name, why in refs.items() if name not in table.metadata.refs},
        snapshots=tuple(s.snapshot_id for s in gone),
        files=found,
        held=planned.held,
        notes=notes,
    )


def leftover_refs(table: Table, now: dt.datetime) -> dict[str, str]:
    """Return the branches of sessions that are over, and refs past the age their owners gave them -> why they go.

    Of failed sessions the last few of each process stay, to be looked at. Rows put aside wait on branches of their own until they
    are released; these are never left over.
    """
    index, found = snapshot_index(table), {}
    failed: dict[str, list[str]] = {}
    for name, ref in table.metadata.refs.items():
        snapshot = index.get(ref.snapshot_id)
        if name == MAIN_BRANCH or snapshot is None:
            continue
        words = words_of(snapshot)
        session = naming.session_of_ref(name)
        if ref.snapshot_ref_type == SnapshotRefType.BRANCH and name.startswith(naming.FAILED_PREFIX):
            failed.setdefault(words.get(naming.PROCESS, ""), []).append(name)
        elif ref.snapshot_ref_type == SnapshotRefType.BRANCH and session is not None:
            if words.get(naming.RECORD) not in (naming.BEGIN, naming.STAGED) and not _is_open(table, *session):
                found[name] = f"session {session[1]} of process {session[0]!r} is over"
        elif not name.startswith(naming.lock_ref("")) and ref.max_ref_age_ms is not None:
            age = dt.timedelta(milliseconds=ref.max_ref_age_ms)
            if committed_at(snapshot) + age < now:
                found[name] = f"it is older than its max-ref-age of {age}"
    for names in failed.values():
        for name in sorted(names)[:-KEEP_FAILED]:
            found[name] = f"more than the last {KEEP_FAILED} failed sessions of its process are kept"
    return found


def _is_open(table: Table, process: str, session: str) -> bool:
    lock = table.metadata.refs.get(naming.lock_ref(process))
    begin = None if lock is None else snapshot_index(table).get(lock.snapshot_id)
    return begin is not None and words_of(begin).get(naming.SESSION) == session


def _plan(table: Table, policy: MaintenancePolicy, now: dt.datetime, consumers: Sequence[Table]) -> _Plan:
    refs = leftover_refs(table, now) if "refs" in policy.parts else {}
    if "expire" not in policy.parts:
        return _Plan(refs=refs, gone=(), held=(), notes=())
    # What hangs on a ref that goes in the same commit is needed by nobody.
    needs = needs_of(table, consumers, without=refs)
    doubts = list(needs.doubts)
    if not is_collected(table):
        doubts.append(NOT_COLLECTED)
    if doubts:
        return _Plan(refs=refs, gone=(), held=(), notes=tuple(f"no snapshot was expired: {why}" for why in doubts))
    before, last = _retention(table, policy, now)
    found = cut(table, needs, before=before, retain_last=last, dropped=refs)
    return _Plan(refs=refs, gone=found.gone, held=found.held, notes=())


def _retention(table: Table, policy: MaintenancePolicy, now: dt.datetime) -> tuple[dt.datetime, int]:
    """Return the time before which snapshots are old, and how many stay all the same."""
    main = table.metadata.refs.get(MAIN_BRANCH)
    age, last = policy.expire_older_than, policy.retain_last
    if age is None:
        of_ref = None if main is None else main.max_snapshot_age_ms
        age = dt.timedelta(
            milliseconds=of_ref
            if of_ref is not None
            else _number(table, TableProperties.MAX_SNAPSHOT_AGE_MS, TableProperties.MAX_SNAPSHOT_AGE_MS_DEFAULT)
        )
    if last is None:
        of_ref = None if main is None else main.min_snapshots_to_keep
        last = (
            of_ref
            if of_ref is not None
            else _number(table, TableProperties.MIN_SNAPSHOTS_TO_KEEP, TableProperties.MIN_SNAPSHOTS_TO_KEEP_DEFAULT)
        )
    return now - min(age, now - EPOCH), max(1, last)


def _number(table: Table, name: str, default: int) -> int:
    text = table.properties.get(name)
    try:
        return default if text is None else int(text)
    except ValueError:
        raise TableError(
            f"the property {name!r} of table {'.'.join(table.name())} is {text!r}", expected="a whole number"
        ) from None


def _updates(table: Table, planned: _Plan, ids: Sequence[int]) -> tuple[TableUpdate, ...]:
    going = set(ids)
    updates: list[TableUpdate] = [RemoveSnapshotRefUpdate(ref_name=name) for name in planned.refs]
    metadata = table.metadata
    updates += [RemoveStatisticsUpdate(snapshot_id=s) for s in _once(metadata.statistics, going)]
    updates += [RemovePartitionStatisticsUpdate(snapshot_id=s) for s in _once(metadata.partition_statistics, going)]
    if ids:
        updates.append(RemoveSnapshotsUpdate(snapshot_ids=list(ids)))
    return tuple(updates)


def _once(statistics: Iterable[object], going: set[int]) -> list[int]:
    return list(dict.fromkeys(i for i in (getattr(s, "snapshot_id", None) for s in statistics) if i in going))


def _requirements(table: Table, planned: _Plan) -> tuple[TableRequirement, ...]:
    """Return that every ref is where it was seen: nobody stands on something else now, and no session has begun or ended."""
    locks = {naming.lock_ref(s[0]) for s in map(naming.session_of_ref, planned.refs) if s is not None}
    seen = {name: ref.snapshot_id for name, ref in table.metadata.refs.items()}
    absent = dict.fromkeys(locks - seen.keys())
    return tuple(AssertRefSnapshotId(ref=name, snapshot_id=at) for name, at in {**seen, **absent}.items())


def _statistics(table: Table, ids: set[int]) -> list[str]:
    metadata = table.metadata
    return [s.statistics_path for s in (*metadata.statistics, *metadata.partition_statistics) if s.snapshot_id in ids]


def _told(planned: _Plan, files: Garbage) -> Expiry:
    return Expiry(
        refs=planned.refs,
        snapshots=tuple(s.snapshot_id for s in planned.gone),
        files=files,
        held=planned.held,
        notes=planned.notes,
    )
