"""Rows of data files as Arrow batches: by field id, under the schema that is asked for, row-level deletes applied.

pyiceberg's own scan projects every batch on the way and turns a null list (or map) of structs into an empty one
(apache/iceberg-python#3833), which a file that is rewritten would keep for good. It also starts all files at once and
holds what they give until it is asked for; here one file is open at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyiceberg.io.pyarrow import _read_all_delete_files, schema_to_pyarrow
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType

from airflow_incremental.core.errors import TableError
from airflow_incremental.iceberg.columns import ColumnReader, identity_positions

#: Rows of a batch.
_BATCH_ROWS = 65_536


def row_batches(table: Table, schema: Schema, tasks: Sequence[FileScanTask]) -> pa.RecordBatchReader:
    """Return the rows of data files, file by file and in file order, in the schema's Arrow form without field ids.

    :param schema: columns that are wanted; those a file does not have hold its partition's value, their default or null.
    :raises FileNotFoundError: a file is gone.
    :raises TableError: a file's columns are not the table's, or its values do not fit the schema.
    """
    arrow_schema = schema_to_pyarrow(schema, include_field_ids=False)

    def batches() -> Iterator[pa.RecordBatch]:
        reader = _Reader(
            table=table,
            schema=schema,
            arrow_schema=arrow_schema,
            columns=ColumnReader(table),
            identity=identity_positions(table),
            deleted=_read_all_delete_files(table.io, tasks),
        )
        for task in tasks:
            yield from reader.batches(task.file)

    return pa.RecordBatchReader.from_batches(arrow_schema, batches())


class _Absent(Exception):
    """A required column is missing."""

    def __str__(self) -> str:
        return "the file does not have it, and it is required"


@attrs.frozen(kw_only=True)
class _Reader:
    table: Table
    schema: Schema
    arrow_schema: pa.Schema
    columns: ColumnReader
    identity: Mapping[int, Mapping[int, int]]
    #: File -> positions of its deleted rows.
    deleted: Mapping[str, list[pa.ChunkedArray]]

    def batches(self, file: DataFile) -> Iterator[pa.RecordBatch]:
        with self.table.io.new_input(file.file_path).open() as stream:
            fragment = self._format(file).make_fragment(stream)
            found = self.columns.of_schema(fragment.physical_schema, file.file_path).schema
            in_file = {f.field_id: f for f in found.fields}
            wanted = [in_file[f.field_id].name for f in self.schema.fields if f.field_id in in_file]
            # No readahead: the next batch is read when it is asked for.
            scanner = ds.Scanner.from_fragment(
                fragment, columns=wanted, batch_size=_BATCH_ROWS, batch_readahead=1, fragment_readahead=1
            )
            deleted = self._deleted(file)
            start = 0
            for batch in scanner.to_batches():
                rows = batch if deleted is None else batch.filter(_kept(deleted, start, batch.num_rows))
                start += batch.num_rows
                if rows.num_rows:
                    yield self._project(rows, in_file, file)

    @staticmethod
    def _format(file: DataFile) -> Any:
        if file.file_format == FileFormat.PARQUET:
            return ds.ParquetFileFormat(pre_buffer=True)
        if file.file_format == FileFormat.ORC:
            return ds.OrcFileFormat()
        raise TableError(
            f"data file {file.file_path} is of format {file.file_format}",
            expected="Parquet or ORC",
            hint="rewrite the table's files as Parquet (rewrite_data_files)",
        )

    def _deleted(self, file: DataFile) -> Any:
        found = self.deleted.get(file.file_path)
        return pa.concat_arrays([c.cast(pa.int64()) for p in found for c in p.chunks]) if found else None

    def _project(self, rows: pa.RecordBatch, in_file: Mapping[int, NestedField], file: DataFile) -> pa.RecordBatch:
        arrays = []
        for field, arrow in zip(self.schema.fields, self.arrow_schema, strict=True):
            have = in_file.get(field.field_id)
            try:
                if have is None:
                    arrays.append(_missing(field, arrow.type, rows.num_rows, self._partition_value(field, file)))
                else:
                    arrays.append(_project(rows.column(have.name), have.field_type, field.field_type, arrow.type))
            except _Absent as error:
                why = str(error)
            except pa.ArrowException as error:
                why = type(error).__name__  # its text may quote a value of a row
            else:
                continue
            raise TableError(
                f"column {field.name!r} of data file {file.file_path} cannot be read as {field.field_type}: {why}",
                expected="files whose columns fit the table's schema",
                hint="rewrite the file with the engine that wrote it",
            )
        return pa.RecordBatch.from_arrays(arrays, schema=self.arrow_schema)

    def _partition_value(self, field: NestedField, file: DataFile) -> Any:
        position = self.identity[file.spec_id].get(field.field_id)
        return None if position is None else file.partition[position]


def _kept(deleted: Any, start: int, rows: int) -> pa.Array:
    """Say of the rows of a batch, which starts at a position of the file, which are not deleted."""
    here = deleted.filter(pc.and_(pc.greater_equal(deleted, start), pc.less(deleted, start + rows)))
    return pc.invert(pc.is_in(pa.array(range(start, start + rows), pa.int64()), value_set=here))


def _missing(field: NestedField, kind: pa.DataType, rows: int, value: Any = None) -> Any:
    """Return a column that a file does not have."""
    value = field.initial_default if value is None else value
    if value is not None:
        return pa.repeat(pa.scalar(value, kind), rows)
    if field.required:
        raise _Absent
    return pa.nulls(rows, kind)


def _project(array: Any, have: IcebergType, want: IcebergType, kind: pa.DataType) -> Any:
    """Bring an array to the wanted type, nested fields by field id; what is null stays null.

    :param kind: Arrow type of ``want``.
    """
    if isinstance(want, StructType) and isinstance(have, StructType):
        return _structs(array, have, want, kind)
    if isinstance(want, ListType) and isinstance(have, ListType):
        values = _project(_elements(array), have.element_type, want.element_type, kind.value_type)
        large = pa.types.is_large_list(kind)
        offsets = _offsets(array, pa.int64() if large else pa.int32())
        made = pa.LargeListArray if large else pa.ListArray
        return made.from_arrays(offsets, values, type=kind, mask=array.is_null())
    if isinstance(want, MapType) and isinstance(have, MapType):
        # A map cannot be flattened, but its entries, as a list, can.
        entries = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
        lists = pa.ListArray.from_arrays(array.offsets, entries)
        lists = pc.if_else(array.is_valid(), lists, pa.scalar(None, lists.type))
        keys, items = _elements(lists).flatten()
        keys = _project(keys, have.key_type, want.key_type, kind.key_type)
        items = _project(items, have.value_type, want.value_type, kind.item_type)
        return pa.MapArray.from_arrays(_offsets(lists, pa.int32()), keys, items, type=kind, mask=array.is_null())
    # Iceberg keeps microseconds; what a file has beyond them is cut, as every engine does.
    return array.cast(kind, safe=not pa.types.is_timestamp(kind))


def _structs(array: Any, have: StructType, want: StructType, kind: pa.DataType) -> Any:
    # flatten() lets a null struct make its fields null, whatever lies under it.
    inner = dict(zip((f.name for f in array.type), array.flatten(), strict=True))
    in_file = {f.field_id: f for f in have.fields}
    children = []
    for field, arrow in zip(want.fields, kind, strict=True):
        found = in_file.get(field.field_id)
        if found is None:
            children.append(_missing(field, arrow.type, len(array)))
        else:
            children.append(_project(inner[found.name], found.field_type, field.field_type, arrow.type))
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())


def _elements(lists: Any) -> Any:
    """Return the elements of lists without what lies outside a slice or under a null."""
    # Arrow cannot flatten nothing but nulls where the elements hold UUIDs.
    return lists.flatten() if lists.null_count < len(lists) else lists.values.slice(0, 0)


def _offsets(lists: Any, kind: pa.DataType) -> Any:
    ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(lists), 0).cast(pa.int64()))
    return pa.concat_arrays([pa.array([0], pa.int64()), ends]).cast(kind)
