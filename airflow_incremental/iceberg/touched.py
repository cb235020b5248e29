"""The partitions a sealed snapshot touched: those in which it added or removed a file."""

from __future__ import annotations

from typing import Any

from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_incremental.core.reads import SourceRead
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.reads import schema_at, source_read
from airflow_incremental.iceberg.scan import live_tasks

Partition = tuple[Any, ...]


def read_touched(table: Table, name: str, snapshot_id: int) -> SourceRead:
    """Return all rows of the partitions a snapshot touched, as it has them.

    Files of another partition spec count by their own partition, so after a spec has changed the older files of a range are only
    among them if the snapshot touched their partition too. An unpartitioned table is one partition.
    """
    snapshot = snapshot_index(table)[snapshot_id]
    touched = touched_partitions(table, snapshot)
    tasks = [t for t in live_tasks(table, snapshot, column=None, keep=None) if partition_of(t.file) in touched]
    return source_read(table, name, schema_at(table, snapshot_id), tasks, event_time=None)


def touched_partitions(table: Table, snapshot: Snapshot) -> frozenset[Partition]:
    """Return the partitions in which a snapshot added or removed a data file, each with its spec's id first."""
    found: set[Partition] = set()
    for manifest in snapshot.manifests(table.io):
        if manifest.added_snapshot_id != snapshot.snapshot_id or manifest.content != ManifestContent.DATA:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
            if entry.snapshot_id == snapshot.snapshot_id and entry.status != ManifestEntryStatus.EXISTING:
                found.add(partition_of(entry.data_file))
    return frozenset(found)


def partition_of(file: DataFile) -> Partition:
    """Return the partition a file is in: its spec's id and the values."""
    values = file.partition
    return (file.spec_id, *map(values.__getitem__, range(len(values))))
