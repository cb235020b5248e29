"""The rows of a partition's small files as few files: in order, a row group at a time, each value and each bound kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from airflow_incremental.core.errors import TableError
from airflow_incremental.iceberg.build import LiveFile
from airflow_incremental.iceberg.datafiles import DataFileWriter
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.scan import RowDeletesIndex

#: Rows and Arrow bytes gathered for one row group.
_GROUP_ROWS, _GROUP_BYTES = 1024 * 1024, 64 * 1024 * 1024


def rewritten(
    table: Table, files: Sequence[LiveFile], outputs: int, deletes: RowDeletesIndex, writer: DataFileWriter
) -> Iterator[DataFile]:
    """Write the rows of files of one partition anew and yield the files they are in then.

    :param files: in the order in which their rows are to lie.
    :param outputs: how many files they become; fewer where rows are deleted.
    :param deletes: the row-level deletes that are applied.
    :raises TableError: a file does not hold what its metadata says, or cannot be read.
    :raises TransformError: a row belongs to another partition.
    """
    tasks = [deletes.task(live.file, live.entry.sequence_number or 0) for live in files]
    listed = sum(live.file.record_count for live in files)
    most = max(1, math.ceil(listed / outputs))
    like, read = files[0].file, 0
    for batches in _shares(iter(row_batches(table, table.schema(), tasks)), most):
        made = writer.write_partition(_gathered(batches), like)
        read += made.record_count
        yield made
    if read != listed and not any(task.delete_files for task in tasks):
        raise TableError(
            f"the {len(tasks)} files of a partition hold {read:,} rows, and their metadata says {listed:,}",
            expected="files that hold what was written",
        )


def _shares(batches: Iterator[pa.RecordBatch], most: int) -> Iterator[Iterator[pa.RecordBatch]]:
    """Yield the batches of one file after the other, each of at most so many rows; each has to be used up before the next."""
    rest: list[pa.RecordBatch] = []

    def share(first: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        left = most
        for batch in itertools.chain([first], batches):
            if batch.num_rows >= left:
                rest.extend([batch.slice(left)] if batch.num_rows > left else [])
                yield batch.slice(0, left)
                return
            left -= batch.num_rows
            yield batch

    while True:
        first = rest.pop() if rest else next(batches, None)
        if first is None:
            return
        yield share(first)


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield batches as tables of about a row group: files of a few rows would each make one."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def with_bounds_of(metadata: TableMetadata, files: Sequence[DataFile]) -> TableMetadata:
    """Return metadata that keeps bounds in new files wherever an old one has some, whatever metrics the table asks for.

    Sessions keep those of the event time, and without them its ranges could not be told any more.
    """
    bounded = {field_id for f in files for field_id in (f.lower_bounds or {})}
    schema, prefix = metadata.schema(), "write.metadata.metrics."
    default = metadata.properties.get(f"{prefix}default", "truncate(16)")
    kept = {}
    for field_id in bounded:
        name = schema.find_column_name(field_id)
        key = f"{prefix}column.{name}"
        if name is not None and metadata.properties.get(key, default).lower() in ("none", "counts"):
            kept[key] = "truncate(16)"
    return metadata.model_copy(update={"properties": {**metadata.properties, **kept}}) if kept else metadata
