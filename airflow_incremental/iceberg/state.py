"""Where a process stands, read from its target and nothing else.

The truth is the newest snapshot on ``main``'s lineage that a session of the process published: roll ``main`` back and the watermark
rolls back with it. The table property repeats it for people and outlives the snapshot's expiry; the tag keeps the snapshot from
being expired. Where expiry has cut the lineage, earlier metadata or live files have to show that the snapshot is part of ``main``;
if they do not, the watermark is lost, and that is never a first run.

People put snapshots of their own there (see :mod:`~airflow_incremental.iceberg.by_hand`): a rollback is a publish of an earlier
watermark, and a reset says that there is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRef
from pyiceberg.table.snapshots import Snapshot

from airflow_incremental.core.approval import Decision
from airflow_incremental.core.errors import WatermarkLost
from airflow_incremental.core.plan import Owner
from airflow_incremental.core.ranges import format_time
from airflow_incremental.core.watermark import Published, Watermark
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.history import expired_lineage, main_lineage

SEALED = "sealed"


def published(table: Table, process: str) -> Published | None:
    """Return the process's last publish, or None if it never published to this table or was reset since.

    :raises WatermarkLost: something says it did, but it cannot be shown to be part of ``main``.
    """
    oldest: Snapshot | None = None
    for oldest in main_lineage(table):
        if state_of(oldest) == process:
            return None if is_reset(oldest) else published_by(oldest)
    claim = process_claim(table, process)
    tag = table.metadata.refs.get(naming.watermark_tag(process))
    if claim is not None and claim["table_uuid"] != str(table.metadata.table_uuid):
        raise _lost(table, process, f"belongs to a table with uuid {claim['table_uuid']}, which this one replaced")
    if claim is None and tag is None:
        return None
    for oldest in expired_lineage(table):
        if state_of(oldest) == process:
            return None if is_reset(oldest) else attrs.evolve(published_by(oldest), anchored=False)
    # A watermark of nothing is one of a reset, whose snapshot is expired.
    if claim is not None and claim["watermark"] is None:
        return None
    return _unanchored(table, process, oldest, claim, tag)


def _unanchored(
    table: Table, process: str, oldest: Snapshot | None, claim: dict[str, Any] | None, tag: SnapshotRef | None
) -> Published:
    """Return a publish that no history of ``main`` shows, if something else proves that it is part of it.

    :param oldest: the last snapshot that the history shows.
    """
    snapshot_id = claim["snapshot"] if claim is not None else (tag.snapshot_id if tag is not None else None)
    # Java's expiry leaves the parent's id where the parent is gone.
    follows = oldest is not None and oldest.parent_snapshot_id == snapshot_id
    if snapshot_id is None or not (follows or _has_live_files(table, snapshot_id)):
        raise _lost(
            table,
            process,
            f"names snapshot {snapshot_id}, which is not on the lineage of 'main' as far as that is kept or as earlier metadata "
            "tells it, and has no file left in it (rolled back, replaced, or expired with every file it added)",
        )
    kept = snapshot_index(table).get(snapshot_id)
    if kept is not None and is_publish_of(kept, process):
        return attrs.evolve(published_by(kept), anchored=False)
    if claim is None:
        raise _lost(table, process, "is missing and the tagged snapshot does not hold it")
    return Published(
        session=claim["session"],
        snapshot_id=snapshot_id,
        watermark=Watermark.from_json(claim["watermark"]),
        owner=claim.get("owner", {}),
        anchored=False,
    )


def process_of(snapshot: Snapshot) -> str | None:
    """Return the process whose publish a snapshot on ``main`` is, or None if it is none."""
    words = words_of(snapshot)
    return words.get(naming.PROCESS) if words.get(naming.RECORD) == SEALED else None


def process_claim(table: Table, process: str) -> dict[str, Any] | None:
    """Return what the state property of a process says, proven or not; its ``watermark`` is None after a reset."""
    stored = table.metadata.properties.get(naming.state_property(process))
    return None if stored is None else json.loads(stored)


def state_of(snapshot: Snapshot) -> str | None:
    """Return the process whose state a snapshot on ``main`` says: by a publish, or by a reset; None if it is neither."""
    words = words_of(snapshot)
    return words.get(naming.PROCESS) if words.get(naming.RECORD) in (SEALED, naming.RESET) else None


def is_reset(snapshot: Snapshot) -> bool:
    """Say whether a snapshot on ``main`` says that a process has no watermark."""
    return words_of(snapshot).get(naming.RECORD) == naming.RESET


@attrs.frozen(kw_only=True)
class Record:
    """A publish or a reset of a process on ``main``, and the rollback that undid it, if one did."""

    snapshot: Snapshot
    undone_by: Snapshot | None = None

    @property
    def session(self) -> str:
        """Id of the session, or of what a person did."""
        return words_of(self.snapshot)[naming.SESSION]


def records(lineage: Iterable[Snapshot], process: str) -> Iterator[Record]:
    """Yield what a lineage says of a process, newest first; what was undone says it no more, and is marked.

    :param lineage: newest first.
    """
    undoing: Snapshot | None = None
    for snapshot in lineage:
        if state_of(snapshot) != process:
            continue
        words = words_of(snapshot)
        if undoing is not None and words[naming.SESSION] == words_of(undoing)[naming.BACK_TO]:
            undoing = None
        yield Record(snapshot=snapshot, undone_by=undoing)
        if undoing is None and naming.BACK_TO in words:
            undoing = snapshot


def is_publish_of(snapshot: Snapshot, process: str) -> bool:
    """Say whether a snapshot on ``main`` is a publish of the process."""
    return process_of(snapshot) == process


def words_of(snapshot: Snapshot) -> dict[str, str]:
    """Return a snapshot's summary as plain values: asking pyiceberg's own object costs ten times as much."""
    return snapshot.summary.additional_properties if snapshot.summary is not None else {}


def published_by(snapshot: Snapshot) -> Published:
    """Read a publish from its snapshot's summary."""
    properties = words_of(snapshot)
    return Published(
        session=properties[naming.SESSION],
        snapshot_id=snapshot.snapshot_id,
        watermark=Watermark.from_json(json.loads(properties[naming.WATERMARK])),
        owner=json.loads(properties.get(naming.OWNER, "{}")),
        ranges=tuple(json.loads(properties.get(naming.RANGES, "[]"))),
        summary=properties,
    )


def publish_of_owner(table: Table, process: str, owner: Owner) -> Published | None:
    """Return the newest publish on ``main`` that a try of this very task of this very run made, if there is one."""
    return next(publishes_of_owner(table, process, owner), None)


def publishes_of_owner(table: Table, process: str, owner: Owner) -> Iterator[Published]:
    """Yield the publishes on ``main`` that tries of this very task of this very run made and nobody undid, newest first."""
    if not owner.run_id:
        return
    # Most runs have not published yet and look through the whole history: only what may be theirs is decoded.
    mark = json.dumps(owner.run_id)
    for record in records(main_lineage(table), process):
        snapshot = record.snapshot
        theirs = record.undone_by is None and mark in words_of(snapshot).get(naming.OWNER, "")
        if theirs and not is_reset(snapshot):
            found = published_by(snapshot)
            if found.owner and Owner.from_json(found.owner).same_task(owner):
                yield found


def publish_of_session(table: Table, process: str, session: str) -> Published | None:
    """Return the publish of one session if it is on ``main``."""
    for snapshot in main_lineage(table):
        if is_publish_of(snapshot, process) and words_of(snapshot).get(naming.SESSION) == session:
            return published_by(snapshot)
    return None


def state_value(
    table: Table,
    published_: Published,
    *,
    mode: str,
    may_replace: bool,
    verdict: str,
    decision: Decision | None = None,
) -> str:
    """Return the text of the state property: a few hundred bytes that say who published what, and what it may do to the target.

    :param may_replace: whether the process can replace rows of its scope, not only add some.
    :param decision: of the person who was asked, if one was.
    """
    approval = {}
    if decision is not None:
        approval = {"approval": {"by": decision.by, "name": decision.name, "at": format_time(decision.at)}}
    return json.dumps(
        {
            "session": published_.session,
            "snapshot": published_.snapshot_id,
            "table_uuid": str(table.metadata.table_uuid),
            "watermark": published_.watermark.to_json(),
            "mode": mode,
            "may_replace": may_replace,
            "audits": verdict,
            **approval,
        },
        separators=(",", ":"),
        sort_keys=True,
    )


def other_processes(table: Table, process: str) -> dict[str, dict[str, Any]]:
    """Return process -> stored state of the other processes that have published to this target."""
    found = {}
    for key, value in table.metadata.properties.items():
        name = naming.process_of_property(key)
        if name is not None and name != process:
            found[name] = json.loads(value)
    return found


def _has_live_files(table: Table, snapshot_id: int) -> bool:
    """Say whether something that ``snapshot_id`` added is live on ``main``: proof enough, until the files are compacted."""
    head = table.current_snapshot()
    if head is None:
        return False
    manifests = head.manifests(table.io)
    if any(m.added_snapshot_id == snapshot_id and (m.has_added_files() or m.has_existing_files()) for m in manifests):
        return True
    return any(_has_entry_of(table, m, snapshot_id) for m in manifests if m.has_existing_files())


def _has_entry_of(table: Table, manifest: ManifestFile, snapshot_id: int) -> bool:
    return any(e.snapshot_id == snapshot_id for e in manifest.fetch_manifest_entry(table.io, discard_deleted=True))


def _lost(table: Table, process: str, why: str) -> WatermarkLost:
    return WatermarkLost(
        f"the watermark of process {process!r} on {'.'.join(table.name())} {why}",
        expected="a publish of the process on the lineage of 'main'",
        hint="find out what happened to the table, then set on_lost_watermark='reload' for one run to recompute everything, "
        "or roll 'main' to a snapshot of the process",
    )
