"""Rows of given keys, found by looking at key columns first.

DuckDB knows too little of files to see that the keys are the smaller side of the join: with the sides as they are written it
looks the rows up among the keys and skips row groups whose bounds hold none. Measured on 2 M rows in 20 files, 3 keys: 16 ms,
as against 470 ms with sides of its own choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs
import duckdb
import pyarrow as pa

from airflow_incremental.core.reads import KeyFilter
from airflow_incremental.engines.filters import internal_table, quote


@attrs.frozen(kw_only=True)
class KeyMatcher:
    """The keys of a read, in a table of its connection."""

    con: duckdb.DuckDBPyConnection
    table: str
    #: Columns of the read that hold the key, and those of the table.
    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, wanted: KeyFilter) -> KeyMatcher:
        """Put keys into a table."""
        names = [f"k{i}" for i in range(len(wanted.columns))]
        table = internal_table(con, "keys")
        con.register("incremental_keys_in", pa.table(wanted.keys.columns, names=names))
        con.execute(f"CREATE TABLE {table} AS SELECT * FROM incremental_keys_in")  # noqa: S608
        con.unregister("incremental_keys_in")
        return cls(con=con, table=table, pairs=tuple(zip(wanted.columns, names, strict=True)))

    def query(self, rows: str, select: str = "s.*") -> str:
        """Return a query for the rows of ``rows`` (a table expression) whose key is wanted; run it by :meth:`execute`."""
        same = " AND ".join(f"s.{quote(column)} = k.{key}" for column, key in self.pairs)
        return f"SELECT {select} FROM {rows} AS s SEMI JOIN {self.table} AS k ON {same}"  # noqa: S608

    def execute(self, query: str) -> list[tuple[str, ...]]:
        """Run a statement with the joined sides as they are written."""
        with _as_written(self.con):
            return self.con.execute(query).fetchall()

    def paths(self, files: str) -> Sequence[str]:
        """Return those of the files of a ``read_parquet`` expression that hold a row with a wanted key."""
        return [row[0] for row in self.execute(self.query(files, "DISTINCT s.filename"))]


@contextmanager
def _as_written(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    con.execute("SET disabled_optimizers = 'build_side_probe_side'")
    try:
        yield
    finally:
        con.execute("RESET disabled_optimizers")
