"""What a rung of the ladder found, before anything is known about event times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
from pyiceberg.manifest import DataFileContent, ManifestEntryStatus, ManifestFile
from pyiceberg.table.snapshots import Snapshot

from airflow_incremental.core.changes import ChangeDerivation
from airflow_incremental.core.netting import Net
from airflow_incremental.iceberg.manifests import ManifestReader
from airflow_incremental.iceberg.window import Found, each_once


@attrs.frozen(kw_only=True)
class Finding:
    """The net effect on files, and how it was found."""

    derivation: ChangeDerivation
    #: Snapshots it stands for, newest first.
    snapshots: tuple[Snapshot, ...]
    net: Net[Found]
    #: Row-level delete files that may hide rows of the added files.
    masks: tuple[Found, ...]


def everything(reader: ManifestReader, head: Snapshot, derivation: ChangeDerivation) -> Finding:
    """Return all live files of a snapshot as added."""
    (manifests,) = reader.lists([head])
    data, masks = by_content(live(reader, manifests))
    return Finding(
        derivation=derivation,
        snapshots=(head,),
        net=Net(added=data, removed={}, deletes=(), rewrites={}),
        masks=tuple(masks.values()),
    )


def live(reader: ManifestReader, manifests: Iterable[ManifestFile]) -> dict[str, Found]:
    """Return the live entries of manifests by path."""
    entries = each_once(reader.entries(manifests, lambda e: e.status != ManifestEntryStatus.DELETED))
    return {e.data_file.file_path: Found(e, e.snapshot_id or 0) for e in entries}


def by_content(files: Mapping[str, Found]) -> tuple[dict[str, Found], dict[str, Found]]:
    """Tell data files from files of row-level deletes."""
    data = {p: f for p, f in files.items() if f.entry.data_file.content == DataFileContent.DATA}
    return data, {p: f for p, f in files.items() if p not in data}
