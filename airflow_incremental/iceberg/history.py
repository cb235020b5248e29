"""The history of ``main`` beyond what expiry left of it, from the metadata files the table still names.

Expiry removes snapshots from the middle of a lineage, and pyiceberg's also takes the parent's id from the child that is left. Who
descends from whom never changes, though, and every earlier metadata file says it as it was before the expiry. So where a lineage
ends it is followed on in the oldest kept metadata that knows its last snapshot: of that snapshot's ancestors no other version knows
more, since all of them were there before it and only leave with time.

Nothing else proves that ``main`` descends from a snapshot. The snapshot log does not: a way back and forth leaves the same entries
behind once those in between are pruned. Neither do sequence numbers, which go on rising after a rollback, nor a ref, which keeps
its snapshot wherever ``main`` went.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import attrs
from pyiceberg.exceptions import ValidationError
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from airflow_incremental.iceberg.build import snapshot_index

log = logging.getLogger(__name__)


def main_lineage(table: Table) -> Iterator[Snapshot]:
    """Yield the snapshots of ``main`` from its head back, as far as they are kept."""
    ref = table.metadata.refs.get(MAIN_BRANCH)
    if ref is not None:
        yield from _ancestry(snapshot_index(table), ref.snapshot_id)


def expired_lineage(table: Table) -> Iterator[Snapshot]:
    """Yield the snapshots that led to the oldest kept one of ``main``, newest first, as far as older metadata tells.

    A handful of metadata files is read, however many the table's metadata log names. What cannot be read tells nothing.
    """
    oldest = None
    for snapshot in main_lineage(table):
        oldest = snapshot
    versions = _Versions(table=table)
    before = len(table.metadata.metadata_log)
    while oldest is not None:
        found = versions.oldest_with(oldest.snapshot_id, before=before)
        if found is None:
            return
        before, known = found
        earlier = list(_ancestry(known, oldest.snapshot_id))[1:]
        yield from earlier
        oldest = earlier[-1] if earlier else None


def _ancestry(index: dict[int, Snapshot], snapshot_id: int | None) -> Iterator[Snapshot]:
    current = index.get(snapshot_id) if snapshot_id is not None else None
    while current is not None:
        yield current
        current = index.get(current.parent_snapshot_id) if current.parent_snapshot_id is not None else None


@attrs.define
class _Versions:
    """The earlier versions of a table's metadata, read when they are asked for."""

    table: Table
    _read: dict[int, dict[int, Snapshot] | None] = attrs.field(factory=dict, init=False)

    def oldest_with(self, snapshot_id: int, *, before: int) -> tuple[int, dict[int, Snapshot]] | None:
        """Return the oldest version older than ``before`` that has this snapshot: its number and its snapshots; None if none has.

        :param before: a version that has the snapshot; the number of versions stands for the table as it is now. From the one that
            added it up to there all have it, and those without it come first, so halving finds the border. (After ``before`` it may
            have been expired, which halving would take for the time before it was added.)
        """
        low, high = 0, before
        while low < high:
            middle = (low + high) // 2
            version = self._version(middle)
            if version is not None and snapshot_id in version:
                high = middle
            else:
                low = middle + 1
        version = self._version(low) if low < before else None
        return None if version is None else (low, version)

    def _version(self, number: int) -> dict[int, Snapshot] | None:
        if number not in self._read:
            self._read[number] = self._load(self.table.metadata.metadata_log[number].metadata_file)
        return self._read[number]

    def _load(self, location: str) -> dict[int, Snapshot] | None:
        try:
            metadata: TableMetadata = FromInputFile.table_metadata(self.table.io.new_input(location))
        except (OSError, ValueError, ValidationError) as error:
            log.info("could not read the earlier metadata %s (%s)", location, error)
            return None
        if metadata.table_uuid != self.table.metadata.table_uuid:
            return None
        return {s.snapshot_id: s for s in metadata.snapshots}
