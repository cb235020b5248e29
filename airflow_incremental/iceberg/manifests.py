"""Reading manifest lists and manifests, counting what is read: the cost of planning is the cost of these reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestEntry, ManifestFile, _inherit_from_manifest
from pyiceberg.table.snapshots import Snapshot

from airflow_incremental.iceberg.avro import Kind, read_records
from airflow_incremental.iceberg.parallel import in_parallel


@attrs.define
class ManifestReader:
    """Reads the metadata of one table's snapshots and counts lists, manifests and entries."""

    io: FileIO
    lists_read: int = attrs.field(default=0, init=False)
    manifests_read: int = attrs.field(default=0, init=False)
    entries_read: int = attrs.field(default=0, init=False)

    def lists(self, snapshots: Sequence[Snapshot], *, summaries: bool = False) -> list[list[ManifestFile]]:
        """Read the manifest list of each snapshot.

        :param summaries: whether the partition summaries are wanted.
        """
        self.lists_read += len(snapshots)
        kind = Kind.LIST if summaries else Kind.BARE_LIST
        return in_parallel(lambda s: read_records(self.io, s.manifest_list, kind), snapshots)

    def entries(
        self, manifests: Iterable[ManifestFile], keep: Callable[[ManifestEntry], bool] = lambda _: True
    ) -> Iterator[ManifestEntry]:
        """Read the entries of manifests, deleted ones too, and return those that are to be kept; spec ids are set on the files."""

        def read(manifest: ManifestFile) -> tuple[int, list[ManifestEntry]]:
            found = read_records(self.io, manifest.manifest_path, Kind.ENTRIES)
            return len(found), [e for e in found if keep(_inherit_from_manifest(e, manifest))]

        for count, found in in_parallel(read, manifests):
            self.manifests_read += 1
            self.entries_read += count
            yield from found
