"""Which files only expired snapshots refer to, worked out from metadata, and their removal.

A file that a kept snapshot removed still counts as referred to: a consumer that reads a window of history may open it to see which
rows went. It goes with the snapshot that removed it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlparse

import attrs
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFileContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.manifests import ManifestReader
from airflow_incremental.iceberg.parallel import in_parallel

log = logging.getLogger(__name__)

#: Properties by which a table keeps files elsewhere than below its location.
_ELSEWHERE = ("write.data.path", "write.metadata.path", "write.object-storage.path", "write.folder-storage.path")
_COLLECTED = "gc.enabled"
#: Why files of a table are left alone that is not collected.
NOT_COLLECTED = f"the table says {_COLLECTED}=false, because others may refer to its files"
#: Manifests whose entries are held at the same time.
_AT_ONCE = 64


@attrs.frozen(kw_only=True)
class Garbage:
    """Files that nothing refers to any more, by what they are; and those that are left because they may not be the table's."""

    data: tuple[str, ...] = ()
    #: Files of row-level deletes.
    deletes: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    bytes: int = 0
    not_ours: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them, in the order in which they go: what names others goes after them."""
        return (*self.data, *self.deletes, *self.statistics, *self.manifests, *self.lists)


def garbage(
    table: Table, gone: Sequence[Snapshot], kept: Sequence[Snapshot], statistics: Iterable[str] = ()
) -> Garbage:
    """Return the files that only snapshots in ``gone`` refer to.

    :param kept: all other snapshots of the table.
    :param statistics: paths of statistics files of those that go.
    """
    reader = ManifestReader(table.io)
    listed = manifests_of(reader, kept)
    kept_paths = {manifest.manifest_path for manifest in listed}
    going = {m.manifest_path: m for m in manifests_of(reader, gone, missing=True) if m.manifest_path not in kept_paths}
    found: dict[str, tuple[DataFileContent, int]] = {}
    for entry in _entries(reader, list(going.values()), missing=True):
        found[entry.data_file.file_path] = (entry.data_file.content, entry.data_file.file_size_in_bytes)
    # What a snapshot that goes removed may be listed as that in a manifest that stays, for other files' sake.
    expired = {snapshot.snapshot_id for snapshot in gone}
    for entry in _entries(reader, [m for m in listed if m.added_snapshot_id in expired and m.deleted_files_count != 0]):
        if entry.status == ManifestEntryStatus.DELETED and entry.snapshot_id in expired:
            found[entry.data_file.file_path] = (entry.data_file.content, entry.data_file.file_size_in_bytes)
    if found:
        for path in live_paths(reader, listed, kept):
            found.pop(path, None)
    kept_lists = {snapshot.manifest_list for snapshot in kept}
    lists = [s.manifest_list for s in gone if s.manifest_list not in kept_lists]
    roots = _roots(table.metadata)

    def ours(path: str) -> bool:
        return belongs(path, roots, str(table.metadata.table_uuid))

    mine = {path: what for path, what in found.items() if ours(path)}
    others = [*(path for path in found if path not in mine), *(p for p in (*going, *lists, *statistics) if not ours(p))]
    return Garbage(
        data=tuple(sorted(p for p, (content, _) in mine.items() if content == DataFileContent.DATA)),
        deletes=tuple(sorted(p for p, (content, _) in mine.items() if content != DataFileContent.DATA)),
        manifests=tuple(path for path in going if ours(path)),
        lists=tuple(path for path in lists if ours(path)),
        statistics=tuple(path for path in statistics if ours(path)),
        bytes=sum(size for _, size in mine.values())
        + sum(m.manifest_length for path, m in going.items() if ours(path)),
        not_ours=tuple(sorted(others)),
    )


def live_paths(reader: ManifestReader, manifests: Sequence[ManifestFile], kept: Sequence[Snapshot]) -> Iterator[str]:
    """Yield the paths of the files that manifests of kept snapshots refer to: live ones, and those that a kept snapshot removed."""
    ids = {snapshot.snapshot_id for snapshot in kept}
    for entry in _entries(reader, manifests):
        if entry.status != ManifestEntryStatus.DELETED or entry.snapshot_id in ids:
            yield entry.data_file.file_path


def is_collected(table: Table) -> bool:
    """Say whether files of the table may be deleted once it does not refer to them."""
    return table.properties.get(_COLLECTED, "true").lower() == "true"


def delete(io: FileIO, paths: Sequence[str]) -> tuple[str, ...]:
    """Delete files and return those that could not be; they are left to the sweep, or to the next run."""

    def one(path: str) -> str | None:
        try:
            io.delete(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("could not delete %s: %s", path, error)
            return path
        return None

    return tuple(path for path in in_parallel(one, paths) if path is not None)


def belongs(path: str, roots: Sequence[str], table_uuid: str) -> bool:
    """Say whether a file lies where the table keeps its own, and does not bear the mark of another table."""
    plain = plain_path(path)
    mark = naming.table_of_file(plain.rsplit("/", 1)[-1])
    return any(plain.startswith(root) for root in roots) and mark in (None, table_uuid)


def plain_path(location: str) -> str:
    """Return a location without scheme, as a file system lists it."""
    parsed = urlparse(location)
    if parsed.scheme in ("", "file"):
        return parsed.path or location
    return f"{parsed.netloc}{parsed.path}"


def _roots(metadata: TableMetadata) -> list[str]:
    places = [metadata.location, *(metadata.properties[k] for k in _ELSEWHERE if metadata.properties.get(k))]
    return [plain_path(place).rstrip("/") + "/" for place in places]


def _entries(
    reader: ManifestReader, manifests: Sequence[ManifestFile], *, missing: bool = False
) -> Iterator[ManifestEntry]:
    """Yield the entries of manifests, a few of which are held at a time.

    :param missing: whether a manifest may be gone already.
    """

    def read(manifest: ManifestFile) -> list[ManifestEntry]:
        try:
            return list(reader.entries([manifest]))
        except FileNotFoundError:
            if not missing:
                raise
            return []

    for start in range(0, len(manifests), _AT_ONCE):
        for entries in in_parallel(read, manifests[start : start + _AT_ONCE]):
            yield from entries


def manifests_of(reader: ManifestReader, snapshots: Sequence[Snapshot], *, missing: bool = False) -> list[ManifestFile]:
    """Return the manifests of snapshots, each once.

    :param missing: whether a list may be gone already.
    """
    found: dict[str, ManifestFile] = {}
    for snapshot in snapshots:
        try:
            (manifests,) = reader.lists([snapshot])
        except FileNotFoundError:
            if not missing:
                raise
            continue
        found.update((m.manifest_path, m) for m in manifests)
    return list(found.values())
