"""Rows of data files together with the place of each: which file it is in, and at which position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from airflow_incremental.core.reads import PlacedFile, SourceRead
from airflow_incremental.engines.filters import quote, text_literal
from airflow_incremental.engines.relations import local_path, sql_types

if TYPE_CHECKING:
    import duckdb

#: Columns of the bound relation besides those of the rows; no table of anybody's has such names.
FILE, POSITION = "incremental\x1ffile", "incremental\x1fposition"


def bind_places(con: duckdb.DuckDBPyConnection, name: str, read: SourceRead, files: Sequence[PlacedFile]) -> None:
    """Make ``name`` a relation of the rows of files, with ``FILE`` (its number) and ``POSITION`` (from 0).

    :param read: whose columns the rows have.
    :param files: the files; their numbers count from 0 in this order.
    """
    types = sql_types(con, read.schema)
    columns = [quote(c) for c in read.schema.names]
    selects = []
    local = {n: local_path(f.path) for n, f in enumerate(files) if f.path is not None}
    if local:
        con.register("incremental_paths_in", pa.table({"path": list(local.values()), "number": list(local)}))
        con.execute("CREATE TABLE incremental_paths AS SELECT * FROM incremental_paths_in")
        con.unregister("incremental_paths_in")
        listed = ", ".join(text_literal(p) for p in local.values())
        # Under names of their own, so that no column of the table is taken for one of the place.
        fields = ", ".join(
            f"{i}: {{name: 'c{at}', type: {text_literal(t)}, default_value: NULL}}"
            for at, (i, t) in enumerate(zip(read.field_ids, types, strict=True))
        )
        rows = (
            f"read_parquet([{listed}], schema = MAP {{{fields}}}, hive_partitioning = false, filename = true, "
            "file_row_number = true)"
        )
        named = ", ".join(f"r.c{at} AS {column}" for at, column in enumerate(columns))
        selects.append(
            f"SELECT {named}, p.number::INTEGER AS {quote(FILE)}, r.file_row_number AS {quote(POSITION)} "  # noqa: S608
            f"FROM {rows} AS r JOIN incremental_paths AS p ON r.filename = p.path"
        )
    streams = [(n, f) for n, f in enumerate(files) if f.path is None]
    if streams:
        listed = ", ".join(
            [
                *(f"{c} {t}" for c, t in zip(columns, types, strict=True)),
                f"{quote(FILE)} INTEGER",
                f"{quote(POSITION)} BIGINT",
            ]
        )
        con.execute(f"CREATE TABLE incremental_streams ({listed})")
        for number, file in streams:
            con.register("incremental_stream_in", _placed(file.batches(), number))
            try:
                con.execute("INSERT INTO incremental_streams SELECT * FROM incremental_stream_in")
            finally:
                con.unregister("incremental_stream_in")
        selects.append("SELECT * FROM incremental_streams")
    con.execute(f"CREATE VIEW {quote(name)} AS " + " UNION ALL ".join(f"({s})" for s in selects))


def _placed(reader: pa.RecordBatchReader, number: int) -> pa.RecordBatchReader:
    schema = reader.schema.append(pa.field(FILE, pa.int32())).append(pa.field(POSITION, pa.int64()))

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in reader:
            place = [
                pa.repeat(pa.scalar(number, pa.int32()), batch.num_rows),
                pa.array(range(start, start + batch.num_rows), pa.int64()),
            ]
            start += batch.num_rows
            yield pa.RecordBatch.from_arrays([*batch.columns, *place], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())
