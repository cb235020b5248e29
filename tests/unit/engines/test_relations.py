"""Names bound to rows: every value as pyiceberg reads it, whatever the files and the schema went through."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.types import DecimalType, DoubleType, FloatType, IntegerType, LongType, NestedField, StringType

from airflow_incremental.core.errors import PlanExpired, TableError, TransformError
from airflow_incremental.core.ranges import MAX_TIME, MIN_TIME
from airflow_incremental.core.reads import ReadPart, SourceRead
from airflow_incremental.engines.relations import bind, bind_ranges, open_connection
from airflow_incremental.iceberg.writer import write
from tests.support.tables import sql_catalog
from tests.support.types import EVERY_TYPE, every_type_rows
from tests.unit.engines.support import hours, plan, read_of, read_table, run

BOTH = pytest.mark.parametrize("by_path", [True, False], ids=["paths", "batches"])


@pytest.fixture
def catalog(tmp_path: Path) -> SqlCatalog:
    return sql_catalog(tmp_path)


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    opened = open_connection(tmp_path / "db", threads=2)
    yield opened
    opened.close()


@BOTH
@pytest.mark.parametrize("order_by", [(), ("big",)], ids=["as it comes", "sorted"])
def test_every_type_survives(catalog: SqlCatalog, order_by: tuple[str, ...], *, by_path: bool) -> None:
    table = catalog.create_table("raw.types", EVERY_TYPE)
    schema = table.schema().as_arrow()
    rows = every_type_rows(schema)
    written = write(table, rows.to_reader(), write_id=uuid.uuid4(), check=None)
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as snapshot:
        snapshot.append_data_file(written.files[0])
    scanned = table.scan().to_arrow()
    # A stream is whatever pyiceberg reads, and it reads a null list of structs as an empty one.
    expected = rows if by_path else scanned
    assert scanned.drop_columns(["points"]).equals(rows.drop_columns(["points"]))
    for transform in ("SELECT * FROM src", lambda relations, _: relations["src"]):
        got = run(transform, read_table(table, by_path=by_path), target=schema, order_by=order_by)
        assert got.equals(expected)
    for transform in (lambda *_: rows, lambda *_: rows.to_reader(max_chunksize=2)):
        assert run(transform, target=schema, order_by=order_by).combine_chunks().equals(rows)


@BOTH
def test_partition_values_are_read_from_the_files_and_not_from_their_paths(
    catalog: SqlCatalog, *, by_path: bool
) -> None:
    table = catalog.create_table(
        "raw.parts", Schema(NestedField(1, "part", StringType()), NestedField(2, "n", LongType()))
    )
    with table.update_spec() as update:
        update.add_identity("part")
    values = ["a/b 1", "007", "null", "", "x=y&z", "ü%2F", "[1]*?", None]
    rows = pa.table({"part": values, "n": range(len(values))}, schema=table.schema().as_arrow())
    table.append(rows)
    got = run("SELECT n, part FROM src ORDER BY n", read_table(table, by_path=by_path))
    assert got.column("part").to_pylist() == values
    assert got.column_names == ["n", "part"]


@BOTH
def test_columns_are_found_by_field_id_after_rename_add_drop_and_promotion(
    catalog: SqlCatalog, *, by_path: bool
) -> None:
    table = catalog.create_table(
        "raw.evolved",
        Schema(
            NestedField(1, "a", IntegerType()),
            NestedField(2, "b", FloatType()),
            NestedField(3, "c", StringType()),
            NestedField(4, "d", DecimalType(9, 2)),
        ),
    )
    old = pa.Table.from_pylist([{"a": 1, "b": 0.5, "c": "old", "d": None}], schema=table.schema().as_arrow())
    table.append(old)
    with table.update_schema() as update:
        update.update_column("a", LongType())
        update.update_column("b", DoubleType())
        update.update_column("d", DecimalType(18, 2))
        update.rename_column("a", "z")
        update.delete_column("c")
    with table.update_schema() as update:
        update.add_column("a", StringType())  # the old name of another column
        update.add_column("c", LongType())  # the name of a dropped one
    new = [{"z": 2**40, "b": 0.25, "d": None, "a": "new", "c": 7}]
    table.append(pa.Table.from_pylist(new, schema=table.schema().as_arrow()))
    schema = table.schema().as_arrow()
    got = run("SELECT * FROM src", read_table(table, by_path=by_path), target=schema, order_by=("z",))
    assert got.to_pylist() == [{"z": 1, "b": 0.5, "d": None, "a": None, "c": None}, *new]
    assert got.equals(table.scan().to_arrow().sort_by("z"))


def test_a_path_means_itself_and_is_no_pattern(tmp_path: Path) -> None:
    rows = pa.table({"n": [1]}, schema=pa.schema([pa.field("n", pa.int64(), metadata={"PARQUET:field_id": "1"})]))
    folder = tmp_path / "w[1]* 'q' %2F=?"
    folder.mkdir()
    for path in (folder / "part=1.parquet", folder / "part=2.parquet"):
        pq.write_table(rows, path)
    for path in (str(folder / "part=1.parquet"), f"file://{folder}/part=1.parquet"):
        part = ReadPart(paths=(path,), batches=rows.to_reader)
        read = SourceRead(name="src", schema=rows.schema, field_ids=(1,), parts=(part,))
        assert run("SELECT * FROM src", read).to_pylist() == [{"n": 1}]


def test_parts_add_up_and_a_name_can_be_used_many_times() -> None:
    rows = pa.table({"n": [1, 2, 3]})
    read = read_of(rows)
    twice = SourceRead(name="src", schema=read.schema, field_ids=read.field_ids, parts=read.parts * 2)
    assert run(
        "SELECT count(*) AS c, sum(a.n * b.n)::BIGINT AS s FROM src a JOIN src b USING (n)", twice
    ).to_pylist() == [{"c": 12, "s": 4 * (1 + 4 + 9)}]


@pytest.mark.parametrize("parts", [(), (ReadPart(paths=(), batches=lambda: None),)], ids=["no part", "no files"])
def test_a_read_without_files_has_its_columns_and_no_rows(parts: tuple[ReadPart, ...]) -> None:
    schema = EVERY_TYPE.as_arrow()
    read = SourceRead(name="src", schema=schema, field_ids=tuple(range(len(schema))), parts=parts)
    got = run("SELECT * FROM src", read, target=schema)
    assert (got.num_rows, got.schema) == (0, schema)


def test_names_are_quoted(con: duckdb.DuckDBPyConnection) -> None:
    bind(con, read_of(pa.table({'select "x"': [1], "group": [2]}), "order"))
    assert con.execute('SELECT "select ""x""", "group" FROM "order"').fetchall() == [(1, 2)]


@pytest.mark.parametrize(("first", "second"), [("src", "SRC"), ("src", "plan_ranges")])
def test_names_that_sql_cannot_tell_apart_are_refused(con: duckdb.DuckDBPyConnection, first: str, second: str) -> None:
    bind(con, read_of(pa.table({"n": [1]}), first))
    with pytest.raises(TransformError, match=f"the source name '{second}' is taken"):
        bind(con, read_of(pa.table({"n": [1]}), second))


def test_columns_that_sql_cannot_tell_apart_are_refused(con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(TransformError, match="source 'src' has the columns 'n' and 'N'"):
        bind(con, read_of(pa.table({"n": [1], "N": [2]})))


@pytest.mark.parametrize(
    ("event_time", "message"),
    [("gone", "source 'src' has no column 'gone'"), ("n", "the event time 'n' of source 'src' is of type int64")],
)
def test_an_event_time_that_is_none_is_refused(con: duckdb.DuckDBPyConnection, event_time: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        bind(con, read_of(pa.table({"n": [1]}), event_time=event_time, keep=hours(1)))


def test_plan_ranges_holds_what_is_replaced_or_else_affected(con: duckdb.DuckDBPyConnection) -> None:
    bind_ranges(con, plan(affected=hours(5, 1)))
    ends = "SELECT range_start::VARCHAR, range_end::VARCHAR FROM plan_ranges ORDER BY ALL"
    assert con.execute(ends).fetchall() == [
        ("2024-01-01 01:00:00+00", "2024-01-01 02:00:00+00"),
        ("2024-01-01 05:00:00+00", "2024-01-01 06:00:00+00"),
    ]
    con.execute("DROP TABLE plan_ranges")
    bind_ranges(con, plan(affected=hours(5, 1), replaced=hours(2)))
    assert con.execute(ends).fetchall() == [("2024-01-01 02:00:00+00", "2024-01-01 03:00:00+00")]


def test_plan_ranges_can_hold_all_of_time() -> None:
    everything = plan(replaced=hours(1).everything())
    got = run("SELECT range_start, range_end FROM plan_ranges", of=everything).to_pylist()
    assert got == [{"range_start": MIN_TIME, "range_end": MAX_TIME}]


def test_a_missing_file_ends_the_plan(catalog: SqlCatalog) -> None:
    table = catalog.create_table("raw.gone", Schema(NestedField(1, "n", LongType())))
    for n in range(2):
        table.append(pa.table({"n": [n]}, schema=table.schema().as_arrow()))
    path = next(iter(table.scan().plan_files())).file.file_path
    Path(path.removeprefix("file://")).unlink()
    for by_path in (True, False):
        with pytest.raises(PlanExpired, match="a file of source 'src' that the plan reads is gone"):
            run("SELECT * FROM src", read_table(table, by_path=by_path))


def test_a_stream_that_fails_is_heard_in_its_own_words() -> None:
    def batches() -> pa.RecordBatchReader:
        def rows() -> Iterator[pa.RecordBatch]:
            yield pa.record_batch({"n": [1]})
            raise TableError("the delete file is broken")

        return pa.RecordBatchReader.from_batches(pa.schema([("n", pa.int64())]), rows())

    part = ReadPart(paths=None, batches=batches)
    read = SourceRead(name="src", schema=pa.schema([("n", pa.int64())]), field_ids=(1,), parts=(part,))
    with pytest.raises(TableError, match="the delete file is broken"):
        run("SELECT * FROM src", read)


def test_sql_sees_no_python_variable_and_loads_no_extension(con: duckdb.DuckDBPyConnection) -> None:
    rows = pa.table({"n": [1]})
    with pytest.raises(duckdb.CatalogException):
        con.execute("SELECT * FROM rows")
    assert rows.num_rows == 1
    settings = ("autoinstall_known_extensions", "autoload_known_extensions")
    assert [con.execute(f"SELECT current_setting('{s}')").fetchone() for s in settings] == [(False,), (False,)]


def test_days_are_those_of_utc_in_every_connection(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    day = "SELECT date_trunc('day', TIMESTAMPTZ '2024-01-01 23:30:00+00')::DATE::VARCHAR"
    assert con.execute(day).fetchall() == con.cursor().execute(day).fetchall() == [("2024-01-01",)]
