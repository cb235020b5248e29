"""The rows of a source as the document says: pinned snapshots and incremental reads, filtered, under the pinned snapshot's columns.

A snapshot is read with SQL's ``VERSION AS OF``, the one form that Iceberg takes from every Spark: Spark 3.5 ignores the option
``versionAsOf`` when a table is read by name, and Iceberg for Spark 4.1 refuses ``snapshot-id``.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from airflow_incremental_spark.conditions import balanced
from airflow_incremental_spark.document import identifier, quote
from airflow_incremental_spark.settings import functions_of
from airflow_incremental_spark.times import Ranges, TimeColumn


class SourceReader:
    """Makes DataFrames of one source's reads.

    :param source: its part of the job document.
    """

    def __init__(self, spark: Any, catalog: str, source: Mapping[str, Any]) -> None:
        self.spark = spark
        self.table = identifier(catalog, source["table"])
        self.columns: list[list[str]] = source["columns"]
        self.time = TimeColumn.of(source)
        self._empty: Any = None

    def frame(self, reads: Sequence[Mapping[str, Any]]) -> Any:
        """Return the rows of some reads, all of them together; equal rows stay as often as they are read."""
        return union([self._read(read) for read in reads]) if reads else self.empty

    @property
    def empty(self) -> Any:
        """A DataFrame with the source's columns and no row."""
        if self._empty is None:
            self._empty = typed_empty(self.spark, self.columns)
        return self._empty

    def _read(self, read: Mapping[str, Any]) -> Any:
        if "snapshot" in read:
            frame = snapshot_of(self.spark, self.table, read["snapshot"])
        else:
            options = {"start-snapshot-id": str(read["start"]), "end-snapshot-id": str(read["end"])}
            frame = self.spark.read.options(**options).table(self.table)
        frame = self._of_files(frame, read.get("files"), keep=True)
        frame = self._of_files(frame, read.get("not_files"), keep=False)
        frame = under(frame, self.empty.schema, read["columns"])
        if read.get("keep") is not None:
            frame = self._inside(frame, Ranges.read(read["keep"]))
        if read.get("drop") is not None:
            frame = self._inside(frame, Ranges.read(read["drop"]).complement())
        return frame

    def _inside(self, frame: Any, ranges: Ranges) -> Any:
        return frame if self.time is None else self.time.inside(frame, ranges)

    @staticmethod
    def _of_files(frame: Any, files: Sequence[str] | None, *, keep: bool) -> Any:
        """Return the rows of given files, or the others.

        Iceberg does not prune by ``_file``: every file that the read's event times leave is opened. Measured on each Spark.
        """
        if files is None:
            return frame
        within = functions_of(frame).col("_file").isin(list(files))
        return frame.where(within if keep else ~within)


def under(frame: Any, schema: Any, names: Mapping[str, str]) -> Any:
    """Return rows under another version of their columns, in its order, from what they were called and were when they are read.

    :param names: name at the read -> name in the schema; a column without one is null.
    """
    functions = functions_of(frame)
    have = {field.name: field.dataType for field in frame.schema.fields}
    at_read = {later: name for name, later in names.items()}
    found = []
    for wanted in schema.fields:
        name = at_read.get(wanted.name)
        if name is None:
            column = functions.lit(None).cast(wanted.dataType)
        else:
            column = conform(functions, functions.col(quote(name)), have[name], wanted.dataType)
        found.append(column.alias(wanted.name))
    return frame.select(*found)


def conform(functions: Any, column: Any, have: Any, want: Any) -> Any:
    """Return a column under another version of its own type: promoted numbers, and fields that came or went inside."""
    if have.simpleString() == want.simpleString():
        return column
    kind = want.typeName()
    if kind == "struct" and have.typeName() == "struct":
        inner: dict[str, Any] = {field.name: field.dataType for field in have.fields}
        fields = [
            (
                conform(functions, column.getField(f.name), inner[f.name], f.dataType)
                if f.name in inner
                else functions.lit(None).cast(f.dataType)
            ).alias(f.name)
            for f in want.fields
        ]
        return functions.when(column.isNotNull(), functions.struct(*fields))
    if kind == "array" and have.typeName() == "array":
        return functions.transform(column, lambda item: conform(functions, item, have.elementType, want.elementType))
    if kind == "map" and have.typeName() == "map":
        return functions.transform_values(
            column, lambda _, item: conform(functions, item, have.valueType, want.valueType)
        )
    return column.cast(want)


def snapshot_of(spark: Any, table: str, snapshot_id: int) -> Any:
    """Return the rows of a snapshot, under the columns that the table had then.

    :param table: its quoted name.
    """
    return spark.sql(f"SELECT * FROM {table} VERSION AS OF {snapshot_id:d}")  # noqa: S608 - quoted, and a number


def typed_empty(spark: Any, columns: Sequence[Sequence[str]]) -> Any:
    """Return a DataFrame without rows.

    :param columns: names and Spark's types.
    """
    nulls = ", ".join(f"CAST(NULL AS {kind}) AS {quote(name)}" for name, kind in columns)
    return spark.sql(f"SELECT {nulls} WHERE false")


def union(frames: Sequence[Any]) -> Any:
    """Return all rows of some DataFrames of the same columns."""
    return balanced(frames, lambda one, other: one.union(other))
