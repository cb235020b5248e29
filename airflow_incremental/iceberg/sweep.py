"""Left-overs of killed tries: files that sessions wrote for a table and no snapshot refers to, listed and removed.

A try that dies between writing a file and the commit that names it leaves the file behind; a retry never needs it. Nothing that an
open session may still commit is touched: files younger than the oldest open session, or than ``older_than``, stay.

Below a table's location other tables may have theirs, and other writers leave files too. So only what shows whose it is can be a
left-over: data files, manifests and manifest lists by the table's uuid in their names, which sessions put there; metadata files,
which the catalog names, by the uuid in them and by never having been the table's.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Iterable
from contextlib import suppress

import attrs
import pyarrow.fs as pafs
from pyiceberg.exceptions import NoSuchTableError, ValidationError
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table

from airflow_incremental.core.errors import ArgumentError, TableError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.garbage import live_paths, manifests_of, plain_path
from airflow_incremental.iceberg.manifests import ManifestReader
from airflow_incremental.iceberg.state import words_of

#: Other writers' uncommitted files look the same as left-overs; a day is longer than any of their commits should take.
DEFAULT_AGE = dt.timedelta(days=1)
_METADATA = ".metadata.json"


@attrs.frozen(kw_only=True)
class Leftover:
    """A file nothing refers to.

    :param ours: whether it is sure that a session wrote it for this table.
    """

    path: str
    bytes: int
    modified_at: dt.datetime
    ours: bool = True


def leftovers(table: Table, *, older_than: dt.timedelta = DEFAULT_AGE) -> list[Leftover]:
    """List files of the table's sessions that no kept snapshot, and no metadata version, refers to.

    :param older_than: younger files are left alone, because another writer may be about to commit them.
    """
    return [item for item in unreferenced(table, older_than=older_than) if item.ours]


def unreferenced(table: Table, *, older_than: dt.timedelta = DEFAULT_AGE) -> list[Leftover]:
    """List what :func:`leftovers` does, and files of others in the table's folders that nothing of this table refers to.

    Of metadata files only those that never were the table's are listed: its earlier versions are no left-overs. Folders that hold
    another table are left out.

    :raises ArgumentError: the files cannot be listed.
    :raises TableError: they are not where the table says; or a session is open of which it is not known since when.
    """
    if not isinstance(table.io, PyArrowFileIO):
        raise ArgumentError(
            f"the files of {'.'.join(table.name())} are accessed through {type(table.io).__name__}",
            expected="pyiceberg's PyArrowFileIO, which can list files",
            hint="set py-io-impl of the catalog to pyiceberg.io.pyarrow.PyArrowFileIO",
        )
    scheme, netloc, root = PyArrowFileIO.parse_location(table.location(), table.io.properties)
    fs = table.io.fs_by_scheme(scheme, netloc)
    started = dt.datetime.now(UTC)
    listed = [
        info
        # Data lies in folders of its partitions, or of hashes; metadata lies flat.
        for folder, deep in (("data", True), ("metadata", False))
        for info in fs.get_file_info(pafs.FileSelector(f"{root}/{folder}", recursive=deep, allow_not_found=True))
        if info.type == pafs.FileType.File
    ]
    # Looked at after the listing: what was committed meanwhile is known to it, whatever the caller's table is up to.
    table = table.catalog.load_table(table.name())
    known = referenced(table)
    if table.metadata_location and not any(
        plain_path(info.path) == plain_path(table.metadata_location) for info in listed
    ):
        raise TableError(
            f"the files of {'.'.join(table.name())} are not where its location says: {table.metadata_location} is not below "
            f"{table.location()}",
            expected="a table whose metadata lies below its own absolute location",
            hint="remove left-overs by hand",
        )
    limit = min([started - older_than, *_open_since(table)])
    others = {
        folder
        for info in listed
        if info.path.endswith(_METADATA) and (folder := info.path.rsplit("/", 2)[0]) != root.rstrip("/")
    }
    found = []
    for info in listed:
        modified = info.mtime if info.mtime.tzinfo else info.mtime.replace(tzinfo=UTC)
        if plain_path(info.path) in known or modified > limit:
            continue
        ours = _is_ours(table, info)
        if ours or _may_be_ours(table, info, others):
            found.append(Leftover(path=info.path, bytes=info.size, modified_at=modified, ours=ours))
    return sorted(found, key=lambda f: f.path)


def sweep(table: Table, *, older_than: dt.timedelta = DEFAULT_AGE, foreign: bool = False) -> list[Leftover]:
    """Remove what :func:`leftovers` lists, and return it.

    :param foreign: also remove what :func:`unreferenced` lists of others. A table elsewhere that shares files with this one loses
        them.
    """
    found = [item for item in unreferenced(table, older_than=older_than) if item.ours or foreign]
    remove(table, found)
    return found


def remove(table: Table, found: Iterable[Leftover]) -> None:
    """Remove files that were listed."""
    assert isinstance(table.io, PyArrowFileIO)  # noqa: S101  (listing them refused anything else)
    scheme, netloc, _ = PyArrowFileIO.parse_location(table.location(), table.io.properties)
    fs = table.io.fs_by_scheme(scheme, netloc)
    for item in found:
        with suppress(FileNotFoundError):  # another sweep was faster
            fs.delete_file(item.path)


def referenced(table: Table) -> set[str]:
    """Return the paths of all files that the table's metadata, of this and the kept earlier versions, leads to.

    A file that a kept snapshot removed counts: a consumer that reads a window of history may need it.
    """
    metadata = table.metadata
    paths = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    paths |= {statistics.statistics_path for statistics in (*metadata.statistics, *metadata.partition_statistics)}
    paths |= {snapshot.manifest_list for snapshot in metadata.snapshots}
    reader = ManifestReader(table.io)
    manifests = manifests_of(reader, metadata.snapshots)
    paths |= {manifest.manifest_path for manifest in manifests}
    paths.update(live_paths(reader, manifests, metadata.snapshots))
    return {plain_path(p) for p in paths}


def _is_ours(table: Table, info: pafs.FileInfo) -> bool:
    """Say whether a file that nothing refers to is sure to come from a try that died on this very table."""
    if not info.path.endswith(_METADATA):
        return naming.file_mark(table.metadata.table_uuid) in info.base_name
    log = table.metadata.metadata_log
    number, first = _version(info.path), _version(log[0].metadata_file if log else table.metadata_location)
    # A version that was the table's is in its log, unless it is older than the log reaches; its number says so without a look.
    if number is not None and first is not None and number < first:
        return False
    try:
        found = FromInputFile.table_metadata(table.io.new_input(f"{table.location()}/metadata/{info.base_name}"))
    except (OSError, ValueError, ValidationError):
        return False
    start = log[0].timestamp_ms if log else table.metadata.last_updated_ms
    return found.table_uuid == table.metadata.table_uuid and found.last_updated_ms > start


def _may_be_ours(table: Table, info: pafs.FileInfo, others: Collection[str]) -> bool:
    """Say whether a file may be a left-over of another writer to this table.

    :param others: folders of other tables below this one's.
    """
    if info.path.endswith((_METADATA, "version-hint.text")) or any(info.path.startswith(f"{o}/") for o in others):
        return False
    if info.base_name.startswith((".", "_")):  # checksums and marks of file systems and jobs, hidden to Iceberg, too
        return False
    return naming.table_of_file(info.base_name) in (None, str(table.metadata.table_uuid))


def _version(location: str) -> int | None:
    """Return the number of a version of metadata, as catalogs name its file: ``00012-<uuid>.metadata.json``."""
    found = re.fullmatch(r"(\d+)-.*", location.rsplit("/", 1)[-1])
    return None if found is None else int(found[1])


def _open_since(table: Table) -> list[dt.datetime]:
    """Return since when sessions are open whose files these may be: the table's own, and those of a target whose rows it takes."""
    tables = [table]
    of = table.properties.get(naming.QUARANTINE_OF)
    if of is not None:
        with suppress(NoSuchTableError):
            tables.append(table.catalog.load_table(of))
    found = []
    for snapshot in (s for t in tables for s in snapshot_index(t).values()):
        words = words_of(snapshot)
        if words.get(naming.RECORD) == naming.BEGIN:
            # By its id and not by its plan, which another version may have stored.
            found.append(naming.session_began(words[naming.SESSION]))
    return found
