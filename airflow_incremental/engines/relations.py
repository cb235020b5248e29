"""Source reads as DuckDB relations: each name stands for exactly the rows of its read, whatever they come from.

Files are opened by path with their columns found by Iceberg field id, so columns that were renamed, added or dropped
since a file was written read right, and nothing is guessed from the path (DuckDB's own guess reads the partition value
``a/b 1`` as ``a/b+1``). Streams are copied into a table of a database file first: a stream can be read once, a name may
be used many times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from airflow_incremental.core.errors import PlanExpired, TransformError
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.core.reads import PLAN_RANGES, ReadPart, SourceRead
from airflow_incremental.engines.filters import EventTimeColumn, filtered, internal_table, quote, text_literal
from airflow_incremental.engines.keys import KeyMatcher


def open_connection(
    directory: str | Path, *, memory_limit: str | None = None, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a new database file in ``directory``; close it before the directory is removed.

    Sessions are in UTC, nothing is downloaded, and Python variables are not visible to SQL.

    :param directory: holds the database file and what queries spill; made if it does not exist.
    :param memory_limit: what DuckDB may use before it spills, such as ``"2GB"``; default is its own, 80% of the memory it sees.
    :param threads: default is one per core.
    """
    where = Path(directory)
    where.mkdir(parents=True, exist_ok=True)
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "temp_directory": str(where / "spill"),
        # Rows need no order but what a query asks for; keeping the order of files costs memory.
        "preserve_insertion_order": "false",
        "python_enable_replacements": "false",
        # 64-bit offsets: a batch of strings may be longer than 2 GiB.
        "arrow_large_buffer_size": "true",
    }
    if memory_limit is not None:
        config["memory_limit"] = memory_limit
    if threads is not None:
        config["threads"] = str(threads)
    con = duckdb.connect(str(where / "engine.duckdb"), config=config)
    con.execute("SET enable_progress_bar = false")  # it would go to the task's standard output
    con.execute("SET GLOBAL TimeZone = 'UTC'")  # cursors of the connection too
    return con


def bind(con: duckdb.DuckDBPyConnection, read: SourceRead) -> None:
    """Make ``read.name`` a view over exactly the rows of the read.

    :raises TransformError: the name or the columns cannot be told apart in SQL, which ignores case.
    :raises TableError: the event time of the read is not a column of it, or not a date or timestamp.
    :raises PlanExpired: a file behind a stream is gone; other errors of a stream are raised as they are.
    """
    _check_names(con, read)
    types = sql_types(con, read.schema)
    matcher = None if read.keys is None else KeyMatcher.of(con, read.keys)
    found = (_part(con, read, part, types, matcher) for part in read.parts if part.paths != ())
    selects = [select for select in found if select is not None]
    if not selects:
        nothing = ", ".join(f"NULL::{t} AS {quote(c)}" for c, t in zip(read.schema.names, types, strict=True))
        selects = [f"SELECT {nothing} WHERE false"]
    con.execute(f"CREATE VIEW {quote(read.name)} AS " + "\nUNION ALL\n".join(f"({s})" for s in selects))


def bind_ranges(con: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Make ``plan_ranges`` a table of the event times the plan replaces, or else affects."""
    ranges_table(con, PLAN_RANGES, plan.replaced or plan.affected)


def ranges_table(con: duckdb.DuckDBPyConnection, name: str, event_times: EventRanges) -> None:
    """Make a table of event times: ``range_start`` and ``range_end``, half-open, in UTC, by start."""
    ranges, utc = event_times.ranges, pa.timestamp("us", "UTC")
    con.register(
        "incremental_plan_in",
        pa.table(
            {
                "range_start": pa.array([r.start for r in ranges], utc),
                "range_end": pa.array([r.end for r in ranges], utc),
            }
        ),
    )
    con.execute(f"CREATE TABLE {quote(name)} AS SELECT * FROM incremental_plan_in ORDER BY range_start")  # noqa: S608
    con.unregister("incremental_plan_in")


def sql_types(con: duckdb.DuckDBPyConnection, schema: pa.Schema) -> list[str]:
    """Return DuckDB's type of each column of an Arrow schema."""
    return [str(t) for t in con.from_arrow(pa.RecordBatchReader.from_batches(schema, [])).types]


def _check_names(con: duckdb.DuckDBPyConnection, read: SourceRead) -> None:
    taken = {
        row[0].lower()
        for row in con.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main'"
        ).fetchall()
    } | {PLAN_RANGES}
    if read.name.lower() in taken:
        raise TransformError(
            f"the source name {read.name!r} is taken",
            expected=f"names that differ by more than case, and not {PLAN_RANGES!r}",
            hint="rename the source in the DAG and in the SQL",
        )
    seen: dict[str, str] = {}
    for column in read.schema.names:
        other = seen.setdefault(column.lower(), column)
        if other != column:
            raise TransformError(
                f"source {read.name!r} has the columns {other!r} and {column!r}",
                expected="column names that differ by more than case: DuckDB cannot tell them apart",
                hint="rename one of them in the source table",
            )


def _part(
    con: duckdb.DuckDBPyConnection,
    read: SourceRead,
    part: ReadPart,
    types: Sequence[str],
    matcher: KeyMatcher | None,
) -> str | None:
    """Return a query for the rows of one part; None if it has none.

    Rows of keys are few and looked for once, so they are kept in a table.
    """
    if part.paths is not None:
        if matcher is None:
            return _kept(con, read, part, _files(part.paths, read, types))
        paths = matcher.paths(_files(part.paths, read, types))
        if not paths:
            return None
        table = internal_table(con, read.name)
        matcher.execute(f"CREATE TABLE {table} AS {matcher.query(_files(paths, read, types))}")
        return f"SELECT * FROM {table}"  # noqa: S608
    table = internal_table(con, read.name)
    failures: list[Exception] = []
    con.register("incremental_stream_in", _watched(part.batches(), failures))
    try:
        rows = _kept(con, read, part, _stream(read, types))
        if matcher is None:
            con.execute(f"CREATE TABLE {table} AS {rows}")
        else:
            matcher.execute(f"CREATE TABLE {table} AS {matcher.query(f'({rows})')}")
    except duckdb.Error:
        if not failures:
            raise
    finally:
        con.unregister("incremental_stream_in")
    if failures and isinstance(failures[0], FileNotFoundError):
        raise expired(read.name, str(failures[0])) from failures[0]
    if failures:
        raise failures[0]
    return f"SELECT * FROM {table}"  # noqa: S608


def _watched(reader: pa.RecordBatchReader, failures: list[Exception]) -> pa.RecordBatchReader:
    """Return the same stream, noting what it raises: DuckDB keeps only a text of it."""

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except Exception as error:
            failures.append(error)
            raise

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def expired(source: str, path: str) -> PlanExpired:
    """Return the error of a read whose file is gone."""
    return PlanExpired(
        f"a file of source {source!r} that the plan reads is gone: {path}",
        expected="the files of the planned snapshots to exist until the session is over",
        hint="retry the task; it plans anew. If it happens again, let the source keep expired files longer",
    )


def local_path(path: str) -> str:
    """Return a path as DuckDB and the system open it; Iceberg may write it as a ``file:`` URI, without any quoting."""
    return path.removeprefix("file://")


def _kept(con: duckdb.DuckDBPyConnection, read: SourceRead, part: ReadPart, rows: str) -> str:
    """Return a query for the rows of ``rows`` that the part keeps."""
    columns = read.schema.names
    query = f"SELECT {', '.join(quote(c) for c in columns)} FROM {rows}"  # noqa: S608
    rest = None if part.drop is None else EventRanges.everything().subtract(part.drop)
    wanted = [r for r in (part.keep, rest) if r is not None]
    if not wanted:
        return query
    if read.event_time is None:
        raise TransformError(
            f"the read of {read.name!r} filters by event time and names none",
            expected="SourceRead(event_time=<column>)",
        )
    time = EventTimeColumn.of(read.schema, read.event_time, where=f"source {read.name!r}")
    for ranges in wanted:
        query = filtered(con, rows, columns, time, ranges)
        rows = f"({query})"
    return query


def _files(paths: Sequence[str], read: SourceRead, types: Sequence[str]) -> str:
    listed = ", ".join(text_literal(local_path(p)) for p in paths)
    fields = ", ".join(
        f"{i}: {{name: {text_literal(name)}, type: {text_literal(t)}, default_value: NULL}}"
        for i, name, t in zip(read.field_ids, read.schema.names, types, strict=True)
    )
    return f"read_parquet([{listed}], schema = MAP {{{fields}}}, hive_partitioning = false)"


def _stream(read: SourceRead, types: Sequence[str]) -> str:
    columns = ", ".join(f"{quote(c)}::{t} AS {quote(c)}" for c, t in zip(read.schema.names, types, strict=True))
    return f"(SELECT {columns} FROM incremental_stream_in)"  # noqa: S608
