"""Which live files of the target a replaced set touches: wholly inside (dropped) or straddling (rewritten without the inside).

The replaced set is the plan's ranges (or the changed keys) within the process's scope, never the partitions of the output, so
that a range for which the transform returns no row is emptied, and files of an older, coarser partitioning are cut exactly.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    GreaterThanOrEqual,
    In,
    IsNull,
    LessThan,
    Or,
)
from pyiceberg.expressions.visitors import inclusive_projection, manifest_evaluator
from pyiceberg.manifest import DataFile, DataFileContent, ManifestContent
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, IcebergType, TimestamptzType
from pyiceberg.utils.datetime import date_str_to_days

from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.core.tables import ScopeValue
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.build import LiveFile, snapshot_index
from airflow_incremental.iceberg.keys import KeyIndex, KeySet
from airflow_incremental.iceberg.masks import Scope, inside
from airflow_incremental.iceberg.rows import row_batches

#: More ranges than this are merged for pruning manifests; each file is still judged by the exact ranges.
_PRUNING_RANGES = 32


@attrs.frozen
class Touched:
    """A live data file that holds, or may hold, rows of the replaced set."""

    live: LiveFile
    #: Whether every row is known to be in the replaced set.
    whole: bool


@attrs.frozen(kw_only=True, eq=False)
class RowSet:
    """Rows of a target by event time, scope and key, asked which files hold some of them and which rows they are."""

    table: Table
    event_time: str | None
    ranges: EventRanges
    scope: Scope
    keys: KeySet | None
    #: Columns of the table that hold the keys.
    key_columns: tuple[str, ...]
    column: EventColumn | None
    _index: KeyIndex | None

    @classmethod
    def of(
        cls,
        table: Table,
        *,
        event_time: str | None,
        ranges: EventRanges,
        scope: Scope,
        keys: KeySet | None = None,
    ) -> RowSet:
        """Return the rows that are in the ranges, in the scope and, if keys are given, of one of them.

        :param keys: under the names of the table's columns.
        """
        columns = () if keys is None else tuple(keys.rows.column_names)
        return cls(
            table=table,
            event_time=event_time,
            ranges=ranges,
            scope=scope,
            keys=keys,
            key_columns=columns,
            column=EventColumn.of(table, event_time) if event_time else None,
            index=None if keys is None else KeyIndex.of(table, columns, table.schema(), keys),
        )

    def live(self, snapshot: Snapshot | None = None) -> Iterator[Touched]:
        """Yield the data files that may hold such rows; only manifests that can list some are read.

        :param snapshot: whose files; default is the head of ``main``.
        """
        table = self.table
        head = table.current_snapshot() if snapshot is None else snapshot
        if MAIN_BRANCH not in table.metadata.refs or head is None or not self.ranges:
            return
        schema, specs = table.schema(), table.metadata.specs()
        kind = schema.find_field(self.event_time).field_type if self.event_time else None
        row_filter = range_filter(kind, self.event_time, self.ranges, self.scope)
        evaluators = {
            spec_id: manifest_evaluator(
                spec, schema, inclusive_projection(schema, spec)(row_filter), case_sensitive=True
            )
            for spec_id, spec in specs.items()
        }
        for manifest in head.manifests(table.io):
            if manifest.content != ManifestContent.DATA or not evaluators[manifest.partition_spec_id](manifest):
                continue
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                if entry.data_file.content != DataFileContent.DATA:
                    continue
                held = self.holds(entry.data_file, manifest.partition_spec_id)
                if held is not False:
                    yield Touched(LiveFile(manifest, entry), whole=held is True)

    def holds(self, file: DataFile, spec_id: int) -> bool | None:
        """Say whether all (True), none (False) or perhaps some (None) of a file's rows are in the set, by its metadata."""
        scoped = _in_scope(self.table, file, spec_id, self.scope)
        if scoped is False:
            return False
        ranged = _in_ranges(file, spec_id, self.column, self.ranges)
        if ranged is False:
            return False
        if self._index is not None:
            # Of a file of row-level deletes only its partition tells.
            return None if self._index.may_hold(file) else False
        return True if scoped and ranged else None

    def mask(self, batch: pa.RecordBatch | pa.Table) -> Any:
        """Return a boolean array that says of each row whether it is in the set."""
        found = inside(batch, self.event_time, self.ranges, self.scope)
        return found if self.keys is None else pc.and_(found, self.keys.mask(batch, self.key_columns))

    @property
    def told(self) -> Schema:
        """The columns that tell whether a row is in the set."""
        ranged = not self.ranges.is_everything and self.event_time is not None
        names = {*self.key_columns, *(self.scope or ()), *([self.event_time] if ranged else [])}
        return Schema(*(f for f in self.table.schema().fields if f.name in names))

    def occurs(self, task: FileScanTask) -> bool:
        """Say whether a file holds a row of the set, reading no more than the columns that tell."""
        return any(pc.any(self.mask(batch)).as_py() for batch in row_batches(self.table, self.told, [task]))


def replaceable(table: Table, snapshot_id: int, *, event_time: str | None, ranges: EventRanges, scope: Scope) -> bool:
    """Say whether the rows of ranges and scope fill whole files of a snapshot, so that engines can drop them by an expression.

    Such an expression has to hold for every row of a file by one of its ranges, or for rows without event time.
    """
    snapshot = snapshot_index(table).get(snapshot_id)
    if snapshot is None:
        return False
    rows = RowSet.of(table, event_time=event_time, ranges=ranges, scope=scope)
    return all(touched.whole and not _mixed(touched.live, rows) for touched in rows.live(snapshot))


def _mixed(live: LiveFile, rows: RowSet) -> bool:
    """Say whether a file may hold rows with an event time and rows without one."""
    column, spec_id = rows.column, live.manifest.partition_spec_id
    if column is None or rows.ranges.is_everything:
        return False
    held = column.ranges(live.file, spec_id)
    return column.nulls(live.file, spec_id) != 0 and (held is None or bool(held))


def _in_scope(table: Table, file: DataFile, spec_id: int, scope: Scope) -> bool | None:
    """Say whether a file's rows are all (True), never (False) or perhaps (None) in the scope, by its identity partition values."""
    sure = True
    fields = table.metadata.specs()[spec_id].fields
    for column, values in (scope or {}).items():
        field = table.schema().find_field(column)
        position = next(
            (
                i
                for i, f in enumerate(fields)
                if f.source_id == field.field_id and isinstance(f.transform, IdentityTransform)
            ),
            None,
        )
        if position is None:
            sure = False
        elif file.partition[position] not in _stored(field.field_type, values):
            return False
    return True if sure else None


def _stored(field_type: IcebergType, values: Sequence[ScopeValue]) -> Sequence[ScopeValue]:
    """Return a scope's values as partition tuples hold them: dates are days since 1970."""
    if not isinstance(field_type, DateType):
        return values
    return [None if v is None else date_str_to_days(str(v)) for v in values]


def _in_ranges(file: DataFile, spec_id: int, column: EventColumn | None, ranges: EventRanges) -> bool | None:
    """Say whether a file's rows are all (True), never (False) or perhaps (None) in the ranges, by bounds and null counts."""
    if column is None or ranges.is_everything:
        return True
    nulls = column.nulls(file, spec_id)
    held = column.ranges(file, spec_id)
    if held is None:
        return None
    overlaps = any(ranges.overlaps(r) for r in held.ranges) or (ranges.nulls and nulls != 0)
    if not overlaps:
        return False
    covers = all(ranges.covers(r) for r in held.ranges) and (nulls == 0 or ranges.nulls)
    return True if covers else None


def range_filter(
    field_type: IcebergType | None, event_time: str | None, ranges: EventRanges, scope: Scope
) -> BooleanExpression:
    """Return an Iceberg expression that is true for every row of the ranges and scope (and perhaps for more)."""
    found: BooleanExpression = AlwaysTrue()
    if event_time is not None and field_type is not None and not ranges.is_everything:
        literal = partial(_literal, field_type)
        parts: list[BooleanExpression] = [
            And(GreaterThanOrEqual(event_time, literal(r.start)), LessThan(event_time, literal(r.end)))
            for r in ranges.coalesce(_PRUNING_RANGES).ranges
        ]
        if ranges.nulls:
            parts.append(IsNull(event_time))
        found = Or(*parts) if len(parts) > 1 else parts[0]
    for column, values in (scope or {}).items():
        known = [v for v in values if v is not None]
        allowed: list[BooleanExpression] = [In(column, known)] if known else []
        if None in values:
            allowed.append(IsNull(column))
        found = And(found, Or(*allowed) if len(allowed) > 1 else allowed[0])
    return found


def _literal(field_type: IcebergType, moment: dt.datetime) -> str:
    if isinstance(field_type, DateType):
        return moment.date().isoformat()
    text = moment.replace(tzinfo=None).isoformat()
    return f"{text}+00:00" if isinstance(field_type, TimestamptzType) else text
