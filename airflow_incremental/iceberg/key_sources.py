"""What the metadata of a ``merge``'s drivers tells before anything is loaded: rows without a key, and what has to be searched."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import DecimalType, IcebergType, IntegerType, LongType, NestedField

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.errors import NullKey, TableError
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.keys import KeySpans, key_fields, scan_bytes
from airflow_incremental.iceberg.lineage import SnapshotIndex
from airflow_incremental.iceberg.reads import schema_at
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.scan import added_tasks, live_tasks


@attrs.frozen(kw_only=True)
class KeySource:
    """A driver at the snapshot that is read, and what changed in it."""

    name: str
    table: Table
    snapshot_id: int | None
    changes: ChangeSet
    event_time: str | None
    schema: Schema
    fields: tuple[NestedField, ...]

    @classmethod
    def of(
        cls,
        name: str,
        table: Table,
        snapshot_id: int | None,
        *,
        columns: Sequence[str],
        changes: ChangeSet,
        event_time: str | None,
    ) -> KeySource:
        """Find the key columns.

        :raises TableError: one is missing, or of a type that cannot be a key.
        """
        schema = schema_at(table, snapshot_id)
        return cls(
            name=name,
            table=table,
            snapshot_id=snapshot_id,
            changes=changes,
            event_time=event_time,
            schema=schema,
            fields=key_fields(table, columns, schema, what="source"),
        )

    def check_types(self, target: Sequence[NestedField]) -> None:
        """Refuse keys that are not of the target's type: equal ones would not be the same key.

        :param target: the key columns of the target.
        :raises TableError: with both types.
        """
        for mine, theirs in zip(self.fields, target, strict=True):
            if not _fits(mine.field_type, theirs.field_type):
                raise TableError(
                    f"the key {mine.name!r} of source {self.name!r} ({'.'.join(self.table.name())}) is of type {mine.field_type}, "
                    f"and {theirs.name!r} of the target of type {theirs.field_type}",
                    expected="keys of the same type in the sources and the target",
                    hint="change the type of the target's column, or choose other keys",
                )

    def check_nulls(self) -> None:
        """Refuse new rows without a whole key. Files whose metadata shows or hides some are read.

        :raises NullKey: with how many there are.
        """
        optional = [f for f in self.fields if not f.required]
        doubtful = [
            c
            for c in self.changes.added
            if any((c.handle.null_value_counts or {}).get(f.field_id) != 0 for f in optional)
        ]
        if not doubtful:
            return
        tasks = added_tasks(self.table, doubtful, self.changes.masks, keep=None, drop=None)
        nulls = dict.fromkeys((f.name for f in optional), 0)
        for batch in row_batches(self.table, Schema(*optional), tasks):
            for column in nulls:
                nulls[column] += batch.column(column).null_count
        missing = {column: count for column, count in nulls.items() if count}
        if missing:
            listed = " and ".join(f"{count:,} have no {column!r}" for column, count in missing.items())
            raise NullKey(
                f"of the new rows of source {self.name!r} ({'.'.join(self.table.name())}) {listed}, in files such as "
                f"{doubtful[0].path}",
                expected="a whole key in every row: a row without one belongs to no target row",
                hint="repair the rows in the source, or choose other keys",
            )

    def scan(self, spans: KeySpans, within: EventRanges | None) -> tuple[int, int]:
        """Return how many live files may hold rows of keys in the spans, and the bytes of their key columns.

        :param within: event times all rows of the keys are known to have.
        """
        snapshot = SnapshotIndex(self.table.metadata).get(self.snapshot_id)
        if snapshot is None:
            return 0, 0
        column = None if self.event_time is None else EventColumn.of(self.table, self.event_time, schema=self.schema)
        tasks = live_tasks(self.table, snapshot, column=column, keep=within)
        wanted = [t.file for t in tasks if spans.may_hold(t.file, self.fields[0])]
        return len(wanted), sum(scan_bytes(f, self.fields) for f in wanted)


def _fits(mine: IcebergType, theirs: IcebergType) -> bool:
    """Say whether every value of one type is a value of the other."""
    if isinstance(mine, DecimalType) and isinstance(theirs, DecimalType):
        return mine.scale == theirs.scale and mine.precision <= theirs.precision
    return mine == theirs or (isinstance(mine, IntegerType) and isinstance(theirs, LongType))


def changed_spans(sources: Sequence[KeySource]) -> KeySpans:
    """Return where the keys of changed rows lie, as far as the bounds of the files that came or went tell."""
    if any(s.changes.deletes for s in sources):
        # What row-level deletes removed lies in files that did not change.
        return KeySpans(spans=None)
    return KeySpans.of((c.handle, s.fields[0]) for s in sources for c in s.changes.files)
