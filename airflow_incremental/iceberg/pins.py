"""Tags on sources that keep what a process has consumed from being expired, moved along with its watermark.

Never required: without them an expired position is a lost watermark, which a policy decides about. They need write access to the
source, and are moved after the publish, in a commit of their own: until then the older pin protects an older snapshot, which is
enough, and a run that finds one behind its watermark moves it.
"""

from __future__ import annotations

import logging

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import AssertRefSnapshotId, SetSnapshotRefUpdate

from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.commits import Change, commit

log = logging.getLogger(__name__)


def pin(catalog: Catalog, identifier: str, *, process: str, source: str, position: SourcePosition) -> None:
    """Move a process's tag on a source to the snapshot it has consumed; do nothing if it is there, or if the snapshot is gone."""
    tag = naming.pin_tag(process, source)

    def build(table: Table) -> Change | None:
        ref = table.metadata.refs.get(tag)
        wanted = position.snapshot_id
        if wanted is None or (ref is not None and ref.snapshot_id == wanted):
            return None
        if str(table.metadata.table_uuid) != position.table_uuid or wanted not in snapshot_index(table):
            log.warning("cannot pin snapshot %s of %s, which does not exist any more", wanted, identifier)
            return None
        return Change(
            updates=(SetSnapshotRefUpdate(ref_name=tag, type=SnapshotRefType.TAG, snapshot_id=wanted),),
            requirements=(AssertRefSnapshotId(ref=tag, snapshot_id=None if ref is None else ref.snapshot_id),),
        )

    commit(catalog, identifier, build, what=f"the pin of process {process!r}")
