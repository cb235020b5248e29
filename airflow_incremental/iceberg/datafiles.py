"""Rows to Parquet files of a table, every value kept.

pyiceberg's own write projects each batch onto the schema first, and on the way turns a null list (or map) of structs into
an empty one, for good (apache/iceberg-python#3833). Rows that have the table's types already need no projection, only the
names and field ids that files carry, so they are relabelled instead: the same buffers under another schema.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pyarrow as pa
from pyiceberg.io import FileIO, OutputFile
from pyiceberg.io.fileformat import FileFormatFactory
from pyiceberg.io.pyarrow import _determine_partitions, bin_pack_arrow_table, schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionKey
from pyiceberg.schema import sanitize_column_names
from pyiceberg.table import TableProperties
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Record
from pyiceberg.utils.concurrent import ExecutorFactory
from pyiceberg.utils.properties import property_as_int

from airflow_incremental.core.errors import TableError, TransformError
from airflow_incremental.iceberg.naming import file_mark


class DataFileWriter:
    """Writes tables of rows as data files of one Iceberg table, under its current schema and spec.

    :param write_id: part of every file name, with a number that one writer never repeats.
    :raises TableError: the table asks for another format than Parquet.
    """

    def __init__(self, metadata: TableMetadata, io: FileIO, write_id: uuid.UUID) -> None:
        wanted = metadata.properties.get(TableProperties.WRITE_FILE_FORMAT, TableProperties.WRITE_FILE_FORMAT_DEFAULT)
        if wanted.lower() != FileFormat.PARQUET.name.lower():
            raise TableError(
                f"the target asks for files of format {wanted!r}",
                expected="parquet",
                hint=f"set the table property {TableProperties.WRITE_FILE_FORMAT}=parquet",
            )
        self._metadata = metadata
        self._io = io
        self._write_id = write_id
        self._counter = itertools.count()
        self._format = FileFormatFactory.get(FileFormat.PARQUET)
        self._locations = load_location_provider(metadata.location, metadata.properties)
        self._rows_schema = schema_to_pyarrow(metadata.schema())
        # Parquet files of Iceberg tables have names that Avro allows, whatever the columns are called.
        self._file_schema = sanitize_column_names(metadata.schema())
        self._labels = schema_to_pyarrow(self._file_schema)
        default = TableProperties.WRITE_TARGET_FILE_SIZE_BYTES_DEFAULT
        key = TableProperties.WRITE_TARGET_FILE_SIZE_BYTES
        self._target_bytes = property_as_int(metadata.properties, key, default) or default

    def write(self, rows: pa.Table) -> list[DataFile]:
        """Write rows: one file per partition, or more where a partition is larger than the table's target size.

        :raises TransformError: a row is in no partition.
        """
        rows = self._typed(rows)
        parts = list(self._parts(rows))
        written = sum(p.count for p in parts)
        if written != rows.num_rows:
            raise TransformError(
                f"{rows.num_rows - written:,} of {rows.num_rows:,} rows belong to no partition of the target",
                expected="every row in exactly one partition",
                hint="look for NaN in the columns the target is partitioned by",
            )
        return list(ExecutorFactory.get_or_create().map(self._write_part, parts))

    def write_partition(self, tables: Iterator[pa.Table], like: DataFile) -> DataFile:
        """Write rows of one partition as one file, table after table, however many there are.

        :param tables: at least one, each with rows.
        :param like: a file of that partition.
        :raises TransformError: a row belongs to another partition, or to none.
        """
        first = self._typed(next(tables))
        key = self._key(first, like)
        output = self._new_file(key, next(self._counter))
        with self._format.create_writer(output, self._file_schema, self._metadata.properties) as writer:
            writer.write(relabelled(first, self._labels))
            del first  # or it would be held to the end
            for rows in map(self._typed, tables):
                self._key(rows, like)
                writer.write(relabelled(rows, self._labels))
        return self._made(output, key, writer.result().to_serialized_dict())

    def _key(self, rows: pa.Table, like: DataFile) -> PartitionKey | None:
        """Return the one partition that all rows are in."""
        keyed = list(self._keyed(rows))
        key, part = keyed[0] if keyed else (None, rows.slice(0, 0))
        if part.num_rows != rows.num_rows or (key.partition if key else Record()) != like.partition:
            raise TransformError(
                f"{like.file_path} holds rows of another partition than it is listed under",
                expected="all rows of a file in its partition",
                hint="rewrite the file with the engine that wrote it",
            )
        return key

    def _typed(self, rows: pa.Table) -> pa.Table:
        return rows if rows.schema.equals(self._rows_schema) else rows.cast(self._rows_schema)

    def _keyed(self, rows: pa.Table) -> Iterator[tuple[PartitionKey | None, pa.Table]]:
        spec = self._metadata.spec()
        if spec.is_unpartitioned():
            yield None, rows
            return
        for found in _determine_partitions(spec, self._metadata.schema(), rows):
            yield found.partition_key, found.arrow_table_partition

    def _parts(self, rows: pa.Table) -> Iterator[_Part]:
        for key, part in self._keyed(rows):
            if part.num_rows:
                for batches in bin_pack_arrow_table(part, self._target_bytes):
                    yield _Part(key=key, rows=batches, number=next(self._counter))

    def _write_part(self, part: _Part) -> DataFile:
        output = self._new_file(part.key, part.number)
        with self._format.create_writer(output, self._file_schema, self._metadata.properties) as writer:
            writer.write(relabelled(pa.Table.from_batches(part.rows), self._labels))
        return self._made(output, part.key, writer.result().to_serialized_dict())

    def _new_file(self, key: PartitionKey | None, number: int) -> OutputFile:
        mark = file_mark(self._metadata.table_uuid)
        name = f"{mark}-{number:05}-{self._write_id}.{self._format.file_extension()}"
        return self._io.new_output(self._locations.new_data_location(name, key))

    def _made(self, output: OutputFile, key: PartitionKey | None, statistics: Mapping[str, Any]) -> DataFile:
        made = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=output.location,
            file_format=FileFormat.PARQUET,
            partition=key.partition if key else Record(),
            file_size_in_bytes=len(output),
            sort_order_id=None,
            equality_ids=None,
            key_metadata=None,
            **statistics,
        )
        made.spec_id = self._metadata.default_spec_id  # read back from a manifest it would be there
        return made


@attrs.frozen(kw_only=True)
class _Part:
    """Rows of one file."""

    key: PartitionKey | None
    rows: list[pa.RecordBatch]
    number: int

    @property
    def count(self) -> int:
        return sum(batch.num_rows for batch in self.rows)


@attrs.frozen
class _Relabelled:
    """The buffers of one batch and the schema of another, as Arrow's C interface hands them out."""

    batch: pa.RecordBatch
    schema: pa.Schema

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[Any, Any]:
        del requested_schema
        return self.schema.__arrow_c_schema__(), self.batch.__arrow_c_array__()[1]


def relabelled(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the same rows under another schema of the same layout."""
    return pa.Table.from_batches([relabel(batch, schema) for batch in rows.to_batches()])


def relabel(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the same buffers under another schema of the same layout: other names, nullability, metadata, at any depth."""
    return pa.record_batch(_Relabelled(batch, schema))
