"""The event times that really occur in a file: read from its one event-time column, where manifest entries are too coarse."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table

from airflow_incremental.core.changes import FileChange
from airflow_incremental.core.ranges import EPOCH, MICROSECOND, EventRanges, Grain
from airflow_incremental.iceberg.bounds import EventColumn, half_open, moment_of
from airflow_incremental.iceberg.columns import ColumnReader
from airflow_incremental.iceberg.rows import row_batches


@attrs.frozen(kw_only=True)
class Occurring:
    """What a file's event-time column holds."""

    #: For each unit of the grain with a row, from its first to its last event time.
    ranges: EventRanges
    nulls: int


@attrs.frozen(kw_only=True)
class TimesReader:
    """Reads the event-time column of data files of one table."""

    table: Table
    column: EventColumn
    columns: ColumnReader

    @classmethod
    def of(cls, table: Table, column: EventColumn) -> TimesReader:
        """Return a reader for a column."""
        return cls(table=table, column=column, columns=ColumnReader(table))

    def times(self, file: DataFile) -> pa.ChunkedArray:
        """Return the event times of a file's rows, in file order, as timestamps in microseconds without zone (UTC).

        :raises FileNotFoundError: the file is gone.
        :raises TableError: the file's columns are not the table's.
        """
        if file.file_format != FileFormat.PARQUET:
            return self._scanned(file)
        return self.times_at(file.file_path)

    def times_at(self, location: str) -> pa.ChunkedArray:
        """Return the event times of a Parquet file's rows, in file order; all null if it is older than the column."""
        with self.table.io.new_input(location).open() as stream:
            parquet = pq.ParquetFile(stream)
            name = self.columns.of_schema(parquet.schema_arrow, location).name_of(self.column.field_id)
            if name is None:
                return pa.chunked_array([pa.nulls(parquet.metadata.num_rows, pa.timestamp("us"))])
            return _micros(parquet.read(columns=[name]).column(name))

    def occurring(self, file: DataFile, grain: Grain | None) -> Occurring:
        """Read which event times a file holds.

        :param grain: unit by which they are told apart; None gives one range from the first to the last.
        """
        times = self.times(file)
        return Occurring(ranges=spans(times, grain), nulls=times.null_count)

    def _scanned(self, file: DataFile) -> pa.ChunkedArray:
        schema = next(
            s for s in self.table.metadata.schemas if any(f.field_id == self.column.field_id for f in s.fields)
        )
        field = schema.find_field(self.column.field_id)
        read = row_batches(self.table, Schema(field), [FileScanTask(file)]).read_all()
        return _micros(read.column(0))


def spans(times: pa.ChunkedArray, grain: Grain | None) -> EventRanges:
    """Return, for each unit with an event time, the range from the first to the last one in it."""
    if grain is None:
        ends = pc.min_max(times)
        bounds = [(ends["min"], ends["max"])] if ends["min"].is_valid else []
    else:
        known = times.drop_null()
        units = pa.table({"unit": pc.floor_temporal(known, unit=grain.value), "time": known})
        found = units.group_by("unit").aggregate([("time", "min"), ("time", "max")])
        bounds = list(zip(found.column("time_min"), found.column("time_max"), strict=True))
    return EventRanges(tuple(half_open(moment_of(a.value), moment_of(b.value + 1)) for a, b in bounds))


def count_before(table: Table, change: FileChange, moment: dt.datetime, event_time: str) -> int:
    """Return how many rows of a changed file have an event time before ``moment``; row-level deletes are not looked at.

    Bounds answer for files that lie on one side; the column is read for the others. A file that cannot be read any
    more counts with all rows that have an event time.
    """
    limit = None if change.nulls is None else change.rows - change.nulls
    if change.ranges is not None:
        span = change.ranges.span()
        if span is None or span.start >= moment:
            return 0
        if span.end <= moment and limit is not None:
            return limit
    try:
        times = TimesReader.of(table, EventColumn.of(table, event_time)).times(change.handle)
    except FileNotFoundError:
        return change.rows if limit is None else limit
    cutoff = pa.scalar((moment - EPOCH) // MICROSECOND, pa.int64()).cast(pa.timestamp("us"))
    return int(pc.sum(pc.less(times, cutoff)).as_py() or 0)


def _micros(column: Any) -> pa.ChunkedArray:
    """Bring a date, or a timestamp of any unit and zone, to microseconds in UTC without zone."""
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
        column = column.cast(pa.int64()).cast(pa.timestamp(column.type.unit))
    return column.cast(pa.timestamp("us"), safe=False)
