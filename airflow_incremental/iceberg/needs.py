"""What of a table's history somebody needs: refs, open sessions, watermarks read from it, and consumers that are known.

A consumer of ``main`` does not only need the snapshot it stands at, but all that came after it: that is how it sees what changed.
So history is only ever cut off at its old end, below what the first of all these needs. A tag of somebody else keeps its own
snapshot, as everywhere in Iceberg, and nothing more.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping

import attrs
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot

from airflow_incremental.core.errors import IncrementalError, WatermarkLost
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.watermark import SourcePosition, Watermark
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.lineage import committed_at
from airflow_incremental.iceberg.state import other_processes, published, state_of, words_of


@attrs.frozen(kw_only=True)
class Hold:
    """A snapshot that somebody needs.

    :param by: who, in words.
    :param follows: whether also what ``main`` became since is needed, and not only the snapshot itself.
    """

    snapshot_id: int
    by: str
    follows: bool


@attrs.frozen(kw_only=True)
class Needs:
    """All that is needed of a table, and what is in doubt.

    :param doubts: why nothing should be taken away before somebody, or the next run of a process, has put it right.
    """

    holds: tuple[Hold, ...]
    doubts: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Held:
    """Who keeps snapshots of ``main`` that age alone would let go."""

    by: str
    snapshot_id: int
    committed_at: dt.datetime
    #: Snapshots kept because of it, and of nothing newer.
    snapshots: int


@attrs.frozen(kw_only=True)
class Cut:
    """Which snapshots go, and who keeps others from going."""

    gone: tuple[Snapshot, ...]
    held: tuple[Held, ...]


def needs_of(table: Table, consumers: Iterable[Table] = (), *, without: Collection[str] = ()) -> Needs:
    """Return what is needed of a table.

    :param consumers: tables whose processes may read it. Those that pin what they have consumed need not be named.
    :param without: refs that do not count, because they go.
    """
    doubts: list[str] = []
    holds = [*_of_refs(table, without), *_of_publishes(table, doubts), *_of_consumer(table, table, doubts)]
    for consumer in consumers:
        if consumer.metadata.table_uuid != table.metadata.table_uuid:
            holds += _of_consumer(table, consumer, doubts)
    index = snapshot_index(table)
    return Needs(holds=tuple(h for h in holds if h.snapshot_id in index), doubts=tuple(dict.fromkeys(doubts)))


def cut(table: Table, needs: Needs, *, before: dt.datetime, retain_last: int, dropped: Iterable[str] = ()) -> Cut:
    """Decide which snapshots go: those that are old and that nobody needs.

    :param before: snapshots of this time or later stay.
    :param retain_last: as many of the newest on ``main`` stay, too.
    :param dropped: refs that go in the same commit.
    """
    index, going = snapshot_index(table), set(dropped)
    lineage = list(main_lineage(table))
    place = {snapshot.snapshot_id: at for at, snapshot in enumerate(lineage)}
    young = [at for at, snapshot in enumerate(lineage) if committed_at(snapshot) >= before]
    # Places up to here stay for their age or number.
    natural = min(max(retain_last - 1, young[-1] if young else 0), len(lineage) - 1)
    kept = {ref.snapshot_id for name, ref in table.metadata.refs.items() if name not in going}
    kept |= {s.snapshot_id for s in index.values() if s.snapshot_id not in place and committed_at(s) >= before}
    reaching: list[tuple[int, Hold]] = []
    for hold in needs.holds:
        kept.add(hold.snapshot_id)
        current = index.get(hold.snapshot_id) if hold.follows else None
        while current is not None and current.snapshot_id not in place:
            kept.add(current.snapshot_id)
            current = None if current.parent_snapshot_id is None else index.get(current.parent_snapshot_id)
        if current is not None:
            reaching.append((place[current.snapshot_id], hold))
    end, held = natural, []
    for at, hold in sorted(reaching, key=lambda pair: pair[0]):
        if at > natural:
            snapshot = lineage[at]
            held.append(
                Held(
                    by=hold.by,
                    snapshot_id=snapshot.snapshot_id,
                    committed_at=committed_at(snapshot),
                    snapshots=at - end,
                )
            )
            end = max(end, at)
    kept.update(snapshot.snapshot_id for snapshot in lineage[: end + 1])
    return Cut(gone=tuple(s for s in table.metadata.snapshots if s.snapshot_id not in kept), held=tuple(held))


def _of_refs(table: Table, without: Collection[str]) -> Iterator[Hold]:
    index = snapshot_index(table)
    for name, ref in table.metadata.refs.items():
        snapshot = index.get(ref.snapshot_id)
        if name == MAIN_BRANCH or name in without or snapshot is None:
            continue
        words = words_of(snapshot)
        if ref.snapshot_ref_type == SnapshotRefType.TAG:
            if name.startswith(naming.PIN_PREFIX):
                yield Hold(snapshot_id=ref.snapshot_id, by=f"the pin {name!r}", follows=True)
        elif words.get(naming.RECORD) == naming.BEGIN:
            # It stands on what main was when the session was planned; what happened there since is checked before it publishes.
            if snapshot.parent_snapshot_id is not None:
                by = f"the open session {words.get(naming.SESSION)} of process {words.get(naming.PROCESS)!r}"
                yield Hold(snapshot_id=snapshot.parent_snapshot_id, by=by, follows=True)
        elif not _stands_alone(name, words):
            yield Hold(snapshot_id=ref.snapshot_id, by=f"the branch {name!r}", follows=True)


def _stands_alone(name: str, words: Mapping[str, str]) -> bool:
    """Say whether what a branch points at is read by itself: what a session sealed, finished steps, rows put aside."""
    of_session = name.startswith(naming.FAILED_PREFIX) or naming.session_of_ref(name) is not None
    return words.get(naming.RECORD) in (naming.STAGED, naming.PARTS_DONE) or (of_session and naming.RECORD in words)


def _of_publishes(table: Table, doubts: list[str]) -> Iterator[Hold]:
    """Yield the snapshots from which the watermarks of the table's own processes are read, or that there is none since a reset."""
    tags = {name.removeprefix(naming.WATERMARK_PREFIX) for name in table.metadata.refs if _is_watermark(name)}
    # A process that was retired has neither, and its publishes are history like any other.
    waiting = {*other_processes(table, ""), *tags}
    for snapshot in main_lineage(table):
        process = state_of(snapshot)
        if process in waiting:
            waiting.remove(process)
            yield Hold(snapshot_id=snapshot.snapshot_id, by=f"the watermark of process {process!r}", follows=True)
        if not waiting:
            return
    for process in sorted(waiting):
        try:
            last = published(table, process)
        except WatermarkLost:
            continue  # there is nothing left to be kept
        if last is not None and not last.anchored:
            doubts.append(
                f"the watermark of process {process!r} is not on the kept history of 'main', and shows only by what maintenance "
                f"might take away; its next run puts it on the head"
            )


def _is_watermark(name: str) -> bool:
    return name.startswith(naming.WATERMARK_PREFIX)


def _of_consumer(table: Table, consumer: Table, doubts: list[str]) -> Iterator[Hold]:
    """Yield what the processes of a target have consumed of a table, and what their open sessions read of it."""
    uuid, target = str(table.metadata.table_uuid), ".".join(consumer.name())
    for process, stored in other_processes(consumer, "").items():
        # The property may be ahead of a target that was rolled back; both are where the process may stand.
        known = [] if stored["watermark"] is None else [Watermark.from_json(stored["watermark"])]
        try:
            last = published(consumer, process)
        except WatermarkLost:
            last = None
        known += [] if last is None else [last.watermark]
        positions = [position for watermark in known for position in watermark.positions.values()]
        yield from _of_positions(positions, uuid, f"process {process!r} of {target}")
    index = snapshot_index(consumer)
    for ref in consumer.metadata.refs.values():
        words = words_of(index[ref.snapshot_id]) if ref.snapshot_id in index else {}
        if words.get(naming.RECORD) != naming.BEGIN:
            continue
        who = f"the open session {words.get(naming.SESSION)} of process {words.get(naming.PROCESS)!r} of {target}"
        try:
            plan = Plan.decode(words[naming.PLAN])
        except IncrementalError as error:
            doubts.append(f"what {who} reads is not known ({error.found}); end it, or use the version that began it")
            continue
        positions = [p for source in plan.sources for p in (source.base, source.pinned) if p is not None]
        yield from _of_positions(positions, uuid, who)
        if str(consumer.metadata.table_uuid) == uuid:
            # Others may have committed between its plan and its begin record.
            yield Hold(snapshot_id=plan.main, by=who, follows=True)


def _of_positions(positions: Iterable[SourcePosition], uuid: str, by: str) -> Iterator[Hold]:
    ids = dict.fromkeys(p.snapshot_id for p in positions if p.table_uuid == uuid and p.snapshot_id is not None)
    for snapshot_id in ids:
        yield Hold(snapshot_id=snapshot_id, by=by, follows=True)
