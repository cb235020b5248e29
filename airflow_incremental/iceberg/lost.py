"""Going on from a position that the head does not show to descend from: as far as that can be done without guessing.

If both snapshots exist, their file sets are compared. If the position's is gone, files that are newer than it can be taken, should
the process allow that. A table whose history starts anew is another table under the same uuid, and nothing of this applies.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from airflow_incremental.core.errors import WatermarkLost
from airflow_incremental.core.netting import Net, RowDeletes, Step, net
from airflow_incremental.core.spec import Mode
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg.findings import Finding, by_content, live
from airflow_incremental.iceberg.lineage import committed_at, operation_of, starts_anew
from airflow_incremental.iceberg.manifests import ManifestReader
from airflow_incremental.iceberg.window import Found, dangling, read_window, row_deletes, sequence_of


def lost(table: Table, base: SourcePosition, why: str) -> WatermarkLost:
    """Return the error for a position nothing can be concluded from."""
    consumed = "an empty table" if base.snapshot_id is None else f"snapshot {base.snapshot_id}"
    return WatermarkLost(
        f"the position consumed of source {'.'.join(table.name())} ({consumed}) {why}",
        expected="a head that descends from the snapshot that was consumed",
        hint="check what happened to the source; then recompute everything with on_lost_watermark='reload', or go on from the "
        "newer files with 'added_only' where no row can be taken twice",
    )


def difference(
    table: Table,
    base: SourcePosition,
    before: Snapshot,
    lineage: Sequence[Snapshot],
    reader: ManifestReader,
    *,
    mode: Mode,
) -> Finding:
    """Compare the live files of two snapshots, opening only manifests that they do not share.

    Compaction in between shows as files that went and came: more is computed again than had to be, which ``overwrite`` can bear and
    ``append`` cannot.

    :param lineage: the head and its ancestors as far as they are kept, newest first.
    :raises WatermarkLost: the table was replaced; or, in ``append``, something was removed.
    """
    head, root = lineage[0], lineage[-1]
    old, new, *rest = reader.lists([before, head] if root is head else [before, head, root])
    if old and _newer(root, base) and starts_anew(root, rest[0] if rest else new):
        raise lost(table, base, f"is not part of the branch any more: {_restarted(root)}")
    shared = {m.manifest_path for m in old} & {m.manifest_path for m in new}
    gone = live(reader, (m for m in old if m.manifest_path not in shared))
    come = live(reader, (m for m in new if m.manifest_path not in shared))
    both = gone.keys() & come.keys()
    removed, unhidden = by_content({p: f for p, f in gone.items() if p not in both})
    added, hiding = by_content({p: f for p, f in come.items() if p not in both})
    oldest = min((m.min_sequence_number or 0 for m in new if m.content == ManifestContent.DATA), default=0)
    deletes = (
        *(row_deletes(f) for f in hiding.values()),
        *(RowDeletes(f) for f in unhidden.values() if not dangling(f.entry, removed, oldest)),
    )
    # In this order, so that row-level deletes of added files are told from those of files that were there before.
    came: Step[Found] = Step(snapshot_id=head.snapshot_id, replaces=False, added=added)
    went: Step[Found] = Step(snapshot_id=head.snapshot_id, replaces=False, removed=removed, deletes=deletes)
    found = net((came, went))
    if mode == "append" and (found.removed or found.deletes):
        raise lost(
            table,
            base,
            f"is not an ancestor of snapshot {head.snapshot_id} as far as the history is kept (the branch was rolled back, or "
            f"snapshots between the two were expired); {len(found.removed)} data files of it are gone and "
            f"{len(found.deletes)} files of row-level deletes came or went since, and compaction and changed rows cannot be told "
            "apart any more",
        )
    # There is no snapshot to hold responsible: what was removed is simply removed.
    found = attrs.evolve(found, rewrites={})
    return Finding(derivation="diff", snapshots=(head,), net=found, masks=tuple(hiding.values()))


def added_since(
    table: Table,
    base: SourcePosition,
    lineage: Sequence[Snapshot],
    reader: ManifestReader,
    *,
    mode: Mode,
    allowed: bool,
) -> Finding:
    """Take the files that are newer than a position whose snapshot is gone. Rows that were removed meanwhile are missed.

    :param lineage: the head and its ancestors as far as they are kept, newest first.
    :param allowed: whether the process accepts that.
    :raises WatermarkLost: it does not; or newer files do not tell new rows; or the table was replaced.
    """
    what = "has been expired, or was never part of this branch"
    if not allowed:
        raise lost(table, base, what)
    sequence = base.sequence_number
    if not sequence or any(not s.sequence_number for s in lineage):
        raise lost(table, base, f"{what}, and format version 1 has no sequence numbers that tell which files are newer")
    head, root = lineage[0], lineage[-1]
    lists = reader.lists([head] if root is head else [head, root])
    if _newer(root, base) and starts_anew(root, lists[-1]):
        raise lost(table, base, f"{what}: {_restarted(root)}")
    newer = tuple(s for s in lineage if (s.sequence_number or 0) > sequence)
    if not newer:
        raise lost(table, base, f"{what}, and the head {head.snapshot_id} is older: the branch was rolled back")
    compacted = next((s for s in newer if operation_of(s) is Operation.REPLACE), None)
    if mode == "append" and compacted is not None:
        raise lost(
            table,
            base,
            f"{what}, and snapshot {compacted.snapshot_id} has compacted the table since: rows that were consumed cannot be told "
            "from new ones, and would be appended twice",
        )
    window = read_window(reader, newer, base_sequence=sequence)
    late = _unaccounted(reader, lists[0], newer, sequence)
    if mode == "append" and (late or window.strays):
        snapshots = sorted({f.snapshot_id for f in late.values()})
        raise lost(
            table,
            base,
            f"{what}, and so have later snapshots ({', '.join(map(str, snapshots)) or 'whose files are gone'}) that added files: "
            "whether these hold new rows or compacted ones cannot be told any more, and the latter would be appended twice",
        )
    data, masks = by_content(late)
    gap: Step[Found] = Step(snapshot_id=-1, replaces=False, added=window.strays | data)
    found: Net[Found] = net((gap, *window.steps))
    return Finding(derivation="sequence", snapshots=newer, net=found, masks=(*window.masks, *masks.values()))


def _unaccounted(
    reader: ManifestReader, manifests: Sequence[ManifestFile], newer: Sequence[Snapshot], sequence: int
) -> dict[str, Found]:
    """Return live files that are newer than a position but were added by none of the snapshots that are kept."""
    kept = {s.snapshot_id for s in newer}
    candidates = live(reader, (m for m in manifests if (m.sequence_number or 0) > sequence))
    return {p: f for p, f in candidates.items() if sequence_of(f.entry) > sequence and f.snapshot_id not in kept}


def _newer(root: Snapshot, base: SourcePosition) -> bool:
    """Say whether a lineage's oldest snapshot was committed after the position; by time if there are no sequence numbers."""
    if root.sequence_number and base.sequence_number:
        return root.sequence_number > base.sequence_number
    return base.committed_at is None or committed_at(root) > base.committed_at


def _restarted(root: Snapshot) -> str:
    return (
        f"its history starts anew with snapshot {root.snapshot_id}, which began with nothing: the table was replaced "
        "(CREATE OR REPLACE keeps the uuid), or emptied by snapshots that have been expired since"
    )
