"""The rows of a session's files split in two: those at given places, and the rest."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table

from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.seal import Output
from airflow_incremental.iceberg.writer import RowCheck, write


@attrs.frozen(kw_only=True)
class Places:
    """Rows of files by position.

    :param files: the files, by the number the rows name them with.
    :param rows: number of the file, position in it, and whatever is said of the row, in order of the first two.
    """

    files: tuple[DataFile, ...]
    rows: pa.Table

    def by_file(self) -> Mapping[int, pa.Table]:
        """Return number of a file -> what is said of its rows."""
        found, start = {}, 0
        # In order of first appearance, and the rows of a file come together.
        for file in self.rows.column(0).value_counts().to_pylist():
            found[file["values"]] = self.rows.slice(start, file["counts"])
            start += file["counts"]
        return found


def without(table: Table, output: Output, places: Places, *, event_time: str | None) -> Output:
    """Return the output without the rows at given places; only files that hold some are written again.

    :param event_time: column of the target whose bounds every file keeps.
    """
    found = places.by_file()

    def rest() -> Iterator[pa.RecordBatch]:
        for number, said in found.items():
            yield from _chosen(table, table.schema(), places.files[number], said.column(1), inside=False)

    batches = row_batches(table, table.schema(), [])
    reader = pa.RecordBatchReader.from_batches(batches.schema, rest())
    write_id = uuid.uuid4()
    written = write(table, reader, write_id=write_id, check=RowCheck(event_time=event_time))
    before = sum(places.files[number].record_count for number in found)
    if written.rows + places.rows.num_rows != before:
        raise IncrementalError(
            f"{places.rows.num_rows:,} of {before:,} rows were to be taken out of {len(found):,} files of "
            f"{'.'.join(table.name())}, and {written.rows:,} were left",
            expected="rows that add up",
            hint="retry the task; if it happens again, report it with the storage the table is on",
        )
    kept = (f for number, f in enumerate(output.files) if number not in found)
    return attrs.evolve(output, files=(*kept, *written.files), write_id=write_id)


def rows_at(table: Table, schema: Schema, places: Places) -> Iterator[tuple[pa.RecordBatch, pa.Table]]:
    """Yield the rows at given places, under a schema, together with what is said of them."""
    for number, said in places.by_file().items():
        start = 0
        for batch in _chosen(table, schema, places.files[number], said.column(1), inside=True):
            yield batch, said.slice(start, batch.num_rows)
            start += batch.num_rows


def _chosen(table: Table, schema: Schema, file: DataFile, positions: Any, *, inside: bool) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file at positions, or those at all others."""
    numbers, start = positions.combine_chunks(), 0
    for batch in row_batches(table, schema, [FileScanTask(file)]):
        end = start + batch.num_rows
        here = numbers.filter(pc.and_(pc.greater_equal(numbers, start), pc.less(numbers, end)))
        mask = pc.is_in(pa.array(range(start, end), pa.int64()), value_set=here)
        start = end
        rows = batch.filter(mask if inside else pc.invert(mask))
        if rows.num_rows:
            yield rows
