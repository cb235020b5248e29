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
    while oldest is not None:
        known = versions.oldest_with(oldest.snapshot_id)
        if known is None:
            return
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

    def oldest_with(self, snapshot_id: int) -> dict[int, Snapshot] | None:
        """Return the snapshots of the oldest version that has this one, or None.

        A snapshot that is still there, or was there when one that is still there was made, has been there since it was added:
        versions without it come first, and halving finds the border.
        """
        entries = self.table.metadata.metadata_log
        low, high = 0, len(entries)
        while low < high:
            middle = (low + high) // 2
            version = self._version(middle)
            if version is not None and snapshot_id in version:
                high = middle
            else:
                low = middle + 1
        return self._version(low) if low < len(entries) else None

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
