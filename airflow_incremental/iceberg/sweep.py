"""Left-overs of killed tries: files that sessions wrote for a table and no snapshot refers to, listed and removed.

A try that dies between writing a file and the commit that names it leaves the file behind; a retry never needs it. Nothing that an
open session may still commit is touched: files younger than the oldest open session, or than ``older_than``, stay.

Below a table's location other tables may have theirs, and other writers leave files too. So only what shows whose it is can be a
left-over: data files, manifests and manifest lists by the table's uuid in their names, which sessions put there; metadata files,
which the catalog names, by the uuid in them and by never having been the table's.
"""

from __future__ import annotations

import datetime as dt
from urllib.parse import urlparse

import attrs
import pyarrow.fs as pafs
from pyiceberg.exceptions import ValidationError
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table

from airflow_incremental.core.errors import ArgumentError, TableError
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.ranges import UTC
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index

#: Other writers' uncommitted files look the same as left-overs; a day is longer than any of their commits should take.
DEFAULT_AGE = dt.timedelta(days=1)
_METADATA = ".metadata.json"


@attrs.frozen(kw_only=True)
class Leftover:
    """A file nothing refers to."""

    path: str
    bytes: int
    modified_at: dt.datetime


def leftovers(table: Table, *, older_than: dt.timedelta = DEFAULT_AGE) -> list[Leftover]:
    """List files of the table's sessions that no kept snapshot, and no metadata version, refers to.

    :param older_than: younger files are left alone, because another writer may be about to commit them.
    """
    if not isinstance(table.io, PyArrowFileIO):
        raise ArgumentError(
            f"the files of {'.'.join(table.name())} are accessed through {type(table.io).__name__}",
            expected="pyiceberg's PyArrowFileIO, which can list files",
            hint="set py-io-impl of the catalog to pyiceberg.io.pyarrow.PyArrowFileIO",
        )
    scheme, netloc, root = PyArrowFileIO.parse_location(table.location(), table.io.properties)
    fs = table.io.fs_by_scheme(scheme, netloc)
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
    if table.metadata_location and not any(_path(info.path) == _path(table.metadata_location) for info in listed):
        raise TableError(
            f"the files of {'.'.join(table.name())} are not where its location says: {table.metadata_location} is not below "
            f"{table.location()}",
            expected="a table whose metadata lies below its own absolute location",
            hint="remove left-overs by hand",
        )
    limit = min([dt.datetime.now(UTC) - older_than, *_open_since(table)])
    found = []
    for info in listed:
        modified = info.mtime if info.mtime.tzinfo else info.mtime.replace(tzinfo=UTC)
        if _path(info.path) not in known and modified <= limit and _is_ours(table, info):
            found.append(Leftover(path=info.path, bytes=info.size, modified_at=modified))
    return sorted(found, key=lambda f: f.path)


def sweep(table: Table, *, older_than: dt.timedelta = DEFAULT_AGE) -> list[Leftover]:
    """Remove what :func:`leftovers` lists, and return it."""
    found = leftovers(table, older_than=older_than)
    assert isinstance(table.io, PyArrowFileIO)  # noqa: S101  (leftovers refused anything else)
    scheme, netloc, _ = PyArrowFileIO.parse_location(table.location(), table.io.properties)
    fs = table.io.fs_by_scheme(scheme, netloc)
    for item in found:
        fs.delete_file(item.path)
    return found


def referenced(table: Table) -> set[str]:
    """Return the paths of all files that the table's metadata, of this and the kept earlier versions, leads to."""
    metadata = table.metadata
    paths = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    paths |= {statistics.statistics_path for statistics in (*metadata.statistics, *metadata.partition_statistics)}
    seen: set[str] = set()
    for snapshot in metadata.snapshots:
        paths.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in seen:
                continue
            seen.add(manifest.manifest_path)
            paths.add(manifest.manifest_path)
            # Deleted entries count as well: an older snapshot, or a consumer that reads a window of history, may need the file.
            paths.update(e.data_file.file_path for e in manifest.fetch_manifest_entry(table.io, discard_deleted=False))
    return {_path(p) for p in paths}


def _is_ours(table: Table, info: pafs.FileInfo) -> bool:
    """Say whether a file that nothing refers to is sure to come from a try that died on this very table."""
    if not info.path.endswith(_METADATA):
        return naming.file_mark(table.metadata.table_uuid) in info.base_name
    try:
        found = FromInputFile.table_metadata(table.io.new_input(f"{table.location()}/metadata/{info.base_name}"))
    except (OSError, ValueError, ValidationError):
        return False
    # A version that was the table's is in its log, unless it is older than the log reaches.
    log = table.metadata.metadata_log
    start = log[0].timestamp_ms if log else table.metadata.last_updated_ms
    return found.table_uuid == table.metadata.table_uuid and found.last_updated_ms > start


def _open_since(table: Table) -> list[dt.datetime]:
    found = []
    for snapshot in snapshot_index(table).values():
        summary = snapshot.summary.additional_properties if snapshot.summary else {}
        if summary.get(naming.RECORD) == naming.BEGIN:
            found.append(Plan.decode(summary[naming.PLAN]).created_at)
    return found


def _path(location: str) -> str:
    """Return a location without scheme, as a file system lists it."""
    parsed = urlparse(location)
    if parsed.scheme in ("", "file"):
        return parsed.path or location
    return f"{parsed.netloc}{parsed.path}"
