"""What a run of a chain's process worked on, against what it had to: all of it, and no more than its sources can tell apart."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.sessions.process import Finished
from tests.support.naive import Expected, Shape, units

if TYPE_CHECKING:
    from tests.support.chain import Publish

MICROSECOND = dt.timedelta(microseconds=1)
Hull = tuple[dt.datetime, dt.datetime]


def check_work(
    catalog: Catalog,
    shape: Shape,
    before: Publish | None,
    expected: Expected,
    finished: Finished,
    *,
    heads: Mapping[str, int | None],
    keys: set[str],
) -> None:
    """Assert that a run computed what it had to, and nothing else.

    :param before: the publish it went on from.
    :param heads: snapshots of its drivers that it found.
    :param keys: keys whose rows its transform read.
    """
    plan, memory = finished.plan, expected.memory
    if plan is None or plan.kind == "positions":
        assert not expected.replaced
        assert not expected.keys
        assert not (shape.mode == "append" and expected.touched)
        if plan is None and before is not None:
            assert memory.complete == before.memory.complete
            assert memory.processed == before.memory.processed
        return
    if shape.mode == "merge":
        here = {r[2] for rows in memory.rows.values() for r in rows}
        assert keys == (here if plan.kind == "reload" or before is None else here & expected.keys)
    if plan.kind == "reload" or before is None:
        return
    if shape.mode == "append":
        assert plan.rows_added == len(memory.rows["a"]) - len(before.memory.rows["a"])
    elif shape.mode in ("overwrite", "stateful"):
        replaced = starts(plan.replaced, shape.unit)
        assert replaced >= expected.replaced
        hulls = [
            touched(catalog.load_table(table), before.heads[alias], heads[alias])
            for alias, table in shape.drivers.items()
        ]
        if all(found == [] for found in hulls):
            # Nothing was rewritten: which rows came is known exactly.
            assert replaced == expected.replaced
        elif shape.mode == "overwrite" and None not in hulls:
            most = {u for h in hulls for start, end in h or () for u in units(start, end + MICROSECOND, shape.unit)}
            assert replaced <= expected.replaced | most
        if shape.mode == "stateful" and replaced:
            assert replaced == units(min(replaced), memory.processed or max(replaced), shape.unit), (
                "one range, to its end"
            )


def starts(ranges: EventRanges, unit: str | None) -> frozenset[dt.datetime]:
    """Return the starts of the units that ranges are made of."""
    return frozenset(u for r in ranges.ranges for u in units(r.start, r.end, unit))


def touched(table: Table, base: int | None, head: int | None) -> list[Hull] | None:
    """Return the times between the first and the last event of every file that was rewritten between two snapshots.

    None if the snapshots in between are gone, so that nobody knows.
    """
    found: list[Hull] = []
    at = None if head is None else table.snapshot_by_id(head)
    while at is not None and at.snapshot_id != base:
        operation = at.summary.operation if at.summary else None
        if operation not in (Operation.APPEND, Operation.REPLACE):
            before, after = _hulls(table, at.parent_snapshot_id), _hulls(table, at.snapshot_id)
            found += [hull for path, hull in (before | after).items() if (path in before) != (path in after)]
        at = None if at.parent_snapshot_id is None else table.snapshot_by_id(at.parent_snapshot_id)
    return found if (at.snapshot_id if at else None) == base else None


def _hulls(table: Table, snapshot_id: int | None) -> dict[str, Hull]:
    """Return the first and the last event time of each live file by its path."""
    if snapshot_id is None:
        return {}
    files = table.inspect.files(snapshot_id).select(["file_path", "readable_metrics"]).to_pylist()
    bounds: dict[str, Any] = {f["file_path"]: f["readable_metrics"]["ts"] for f in files}
    return {path: (ts["lower_bound"], ts["upper_bound"]) for path, ts in bounds.items()}


def lineage(table: Table) -> Iterator[Snapshot]:
    """Yield the snapshots that the kept history of ``main`` leads to, the newest first."""
    at = table.current_snapshot()
    while at is not None:
        yield at
        at = None if at.parent_snapshot_id is None else table.snapshot_by_id(at.parent_snapshot_id)
