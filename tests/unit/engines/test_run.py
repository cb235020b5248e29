"""Transforms, SQL and Python: what they may be and return, how rows are sorted, and what is said when they fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from airflow_incremental.core.errors import ArgumentError, TransformError
from airflow_incremental.core.plan import Plan
from airflow_incremental.engines.worker import TransformInterrupted
from tests.unit.engines.support import ENGINE, HOUR, T0, hours, plan, read_of, run

Relations = Mapping[str, duckdb.DuckDBPyRelation]

ROWS = pa.table({"id": [3, 1, 2, 4], "region": ["b", "a", None, "a"]})
SRC = read_of(ROWS)
WANT = pa.schema([("id", pa.int64()), ("region", pa.large_string())])


def reader(relation: duckdb.DuckDBPyRelation) -> pa.RecordBatchReader:
    return (getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader)(1000)


def as_relation(relations: Relations, _: Plan) -> Any:
    return relations["src"].filter("id > 1")


def as_table(relations: Relations, _: Plan) -> Any:
    return relations["src"].filter("id > 1").to_arrow_table()


def as_reader(relations: Relations, _: Plan) -> Any:
    return reader(relations["src"].filter("id > 1"))


def as_generator(relations: Relations, _: Plan) -> Any:
    rows = relations["src"].filter("id > 1").to_arrow_table()

    def batches() -> Iterator[pa.RecordBatch]:
        for i in range(rows.num_rows):
            yield from rows.slice(i, 1).to_batches()

    return pa.RecordBatchReader.from_batches(rows.schema, batches())


@pytest.mark.parametrize("target", [WANT, None], ids=["fitted", "as it is"])
@pytest.mark.parametrize(
    "transform",
    ["SELECT * FROM src WHERE id > 1", as_relation, as_table, as_reader, as_generator],
    ids=lambda transform: getattr(transform, "__name__", "sql"),
)
def test_every_kind_of_transform_gives_its_rows(transform: Any, target: pa.Schema | None) -> None:
    expected = [{"id": 3, "region": "b"}, {"id": 2, "region": None}, {"id": 4, "region": "a"}]
    got = run(transform, SRC, target=target)
    assert sorted(got.to_pylist(), key=lambda r: r["id"]) == sorted(expected, key=lambda r: r["id"])
    assert target is None or got.schema == target
    ordered = run(transform, SRC, target=target, order_by=("region", "id"))
    assert ordered.to_pylist() == [expected[2], expected[0], expected[1]]


def test_a_stream_from_the_engines_own_relations_is_sorted_whole() -> None:
    """DuckDB before 2.0 ends a stream without a word when its connection gets another query."""
    many = read_of(pa.table({"id": list(range(100_000, 0, -1))}))
    got = run(lambda relations, _: reader(relations["src"]), many, order_by=("id",))
    assert got.column("id").to_pylist() == list(range(1, 100_001))


def test_rows_are_sorted_by_the_unit_of_a_time() -> None:
    rows = pa.table({"at": [T0 + h * HOUR for h in (30, 1, 25, 2)], "id": [1, 4, 2, 3]})
    assert run("FROM src", read_of(rows), order_by=("day(at)", "id")).column("id").to_pylist() == [3, 4, 1, 2]
    with pytest.raises(TransformError, match="the transform returns no column 'gone'"):
        run("FROM src", read_of(rows), order_by=("day(gone)",))


def test_a_column_named_like_a_call_is_a_column() -> None:
    rows = pa.table({"day(at)": [2, 1], "at": [T0, T0]})
    assert run("FROM src", read_of(rows), order_by=("day(at)",)).column(0).to_pylist() == [1, 2]


def test_a_function_may_fetch_times_with_zone_as_python_values() -> None:
    def transform(relations: Any, _plan: Any) -> pa.Table:
        ((start, _),) = relations["plan_ranges"].fetchall()
        return pa.table({"start": [start.isoformat()]})

    assert run(transform, of=plan(replaced=hours(1))).to_pylist() == [{"start": "2024-01-01T01:00:00+00:00"}]


def test_a_function_gets_the_plan_and_its_ranges() -> None:
    made = plan(replaced=hours(1, 7))
    seen: list[Plan] = []

    def transform(relations: Relations, given: Plan) -> Any:
        seen.append(given)
        assert set(relations) == {"src", "plan_ranges"}
        return relations["plan_ranges"].project("range_start")

    got = run(transform, SRC, of=made)
    assert got.column("range_start").to_pylist() == [T0 + HOUR, T0 + 7 * HOUR]
    assert seen == [made]


def test_sql_may_hold_comments_and_end_in_a_semicolon() -> None:
    assert run("-- all; of it\nWITH a AS (FROM src) /* ; */ SELECT count(*) AS n FROM a; -- done", SRC).to_pylist() == [
        {"n": 4}
    ]


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT 1 AS a; SELECT 2 AS a", "SELECT, SELECT"),
        ("CREATE TABLE t AS SELECT 1", "CREATE"),
        ("INSERT INTO src VALUES (1, 'a')", "INSERT"),
        ("COPY src TO 'x.parquet'", "COPY"),
        ("SET threads = 1", "SET"),
        ("", "no statement"),
        ("-- nothing", "no statement"),
    ],
)
def test_sql_is_one_select(sql: str, found: str) -> None:
    with pytest.raises(TransformError) as caught:
        run(sql, SRC)
    assert caught.value.found == f"the transform's SQL is {found}"
    assert caught.value.expected == "one SELECT (or WITH ... SELECT) statement"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(TransformError) as caught:
        run("SELECT * FROM src JOIN flights USING (id)", SRC)
    assert str(caught.value) == (
        "Catalog Error: Table with name flights does not exist!. "
        "Expected: one of the names this transform can read: src, plan_ranges. "
        "What to do: declare 'flights' in sources, or correct the name."
    )
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", "Parser Error: syntax error at or near"),
        ("SELECT nope FROM src", 'Binder Error: Referenced column "nope" not found'),
        ("SELECT error('bad ' || id) AS id, region FROM src", "Invalid Input Error: bad"),
        ("SELECT region::INTEGER::BIGINT AS id, region FROM src", "Conversion Error: Could not convert string 'b'"),
    ],
)
@pytest.mark.parametrize("order_by", [(), ("id",)], ids=["streamed", "sorted"])
def test_sql_fails_in_duckdbs_own_words(sql: str, message: str, order_by: tuple[str, ...]) -> None:
    with pytest.raises(TransformError) as caught:
        run(sql, SRC, target=WANT, order_by=order_by)
    assert caught.value.found.startswith(message)
    assert caught.value.hint == "correct the transform; it can read src, plan_ranges"


@pytest.mark.parametrize("order_by", [(), ("id",)], ids=["streamed", "sorted"])
def test_a_function_fails_in_its_own_words(order_by: tuple[str, ...]) -> None:
    def at_once(_: Relations, __: Plan) -> Any:
        raise KeyError("fare")

    def meanwhile(relations: Relations, __: Plan) -> Any:
        rows = relations["src"].to_arrow_table()

        def batches() -> Iterator[pa.RecordBatch]:
            yield from rows.to_batches()
            raise KeyError("fare")

        return pa.RecordBatchReader.from_batches(rows.schema, batches())

    for transform, where in ((at_once, "in the transform at_once"), (meanwhile, "while the rows of the transform")):
        with pytest.raises(TransformError) as caught:
            run(transform, SRC, order_by=order_by)
        assert caught.value.found.startswith(f"KeyError: 'fare', raised {where}")
        assert isinstance(caught.value.__cause__, KeyError)
        assert caught.value.retryable


def test_an_error_of_ours_raised_in_a_function_is_left_as_it_is() -> None:
    def transform(_: Relations, __: Plan) -> Any:
        raise ArgumentError("no airport")

    with pytest.raises(ArgumentError, match="no airport"):
        run(transform, SRC)


@pytest.mark.parametrize("result", [None, [{"id": 1}], "SELECT 1", pa.array([1])], ids=lambda r: type(r).__name__)
def test_a_function_returns_rows(result: Any) -> None:
    with pytest.raises(TransformError) as caught:
        run(lambda *_: result, SRC)
    assert caught.value.found == f"the transform <lambda> returned {type(result).__name__}"
    assert "a pyarrow Table, a pyarrow RecordBatchReader or a DuckDB relation" in str(caught.value)


@pytest.mark.parametrize(
    "sql", ["SELECT '1:02:03+04'::TIMETZ AS x", "SELECT [INTERVAL 1 DAY] AS x", "SELECT {'b': '1'::BIT} AS x"]
)
def test_types_that_would_lose_something_are_refused(sql: str) -> None:
    with pytest.raises(TransformError) as caught:
        run(sql, SRC)
    assert caught.value.found.startswith("the transform returns x ")
    assert caught.value.expected == "columns of types an Iceberg table can hold"


def test_what_was_spilled_is_gone_afterwards(tmp_path: Path) -> None:
    work = tmp_path / "made" / "here"
    run("FROM src", SRC, work_dir=work)
    with pytest.raises(TransformError):
        run("SELECT error('x') FROM src", SRC, work_dir=work)
    with ENGINE.run("FROM range(10000000)", [], plan(), target_schema=None, work_dir=work) as batches:
        batches.read_next_batch()  # and leaves in the middle
        assert list(work.iterdir())
    assert list(work.iterdir()) == []


def test_too_little_memory_and_disk_is_worth_another_try(tmp_path: Path) -> None:
    small = type(ENGINE)(memory_limit="20MB", threads=1)
    sql = "SELECT list(range::VARCHAR || repeat('x', 100)) AS l FROM range(3000000)"
    with (
        pytest.raises(TransformInterrupted) as caught,
        small.run(sql, [], plan(), target_schema=None, work_dir=tmp_path) as batches,
    ):
        batches.read_all()
    assert caught.value.found.startswith("Out of Memory Error")
    assert caught.value.retryable


class TestSchema:
    def test_types_are_those_a_table_can_have(self) -> None:
        sql = (
            "SELECT 1::TINYINT AS a, 1::UINTEGER AS b, sum(id) AS c, 1.5 AS d, uuid() AS e, 'x'::ENUM('x') AS f, "
            "TIMESTAMP_NS '2024-01-01' AS g, now() AS h, [1::UBIGINT] AS i, MAP {'k': 1.0::FLOAT} AS j, "
            "{'p': DATE '2024-01-01', 'q': [1, 2]::INTEGER[2]} AS k FROM src"
        )
        assert ENGINE.schema(sql, [SRC], plan()) == pa.schema(
            [
                ("a", pa.int32()),
                ("b", pa.int64()),
                ("c", pa.int64()),
                ("d", pa.decimal128(2, 1)),
                ("e", pa.uuid()),
                ("f", pa.large_string()),
                ("g", pa.timestamp("us")),
                ("h", pa.timestamp("us", "UTC")),
                ("i", pa.large_list(pa.decimal128(20, 0))),
                ("j", pa.map_(pa.large_string(), pa.float32())),
                ("k", pa.struct([("p", pa.date32()), ("q", pa.large_list(pa.int32()))])),
            ]
        )

    def test_what_it_says_is_what_comes_out(self) -> None:
        sql = "SELECT sum(id) AS total, uuid() AS key, 'x'::ENUM('x') AS kind, min(TIMESTAMP_NS '2024-01-01') AS t FROM src"
        schema = ENGINE.schema(sql, [SRC], plan())
        assert run(sql, SRC, target=schema).schema == schema

    def test_sql_is_not_run_and_nothing_is_read(self) -> None:
        def batches() -> pa.RecordBatchReader:
            raise AssertionError("read")

        read = read_of(ROWS)
        unread = type(read)(
            name="src",
            schema=read.schema,
            field_ids=read.field_ids,
            parts=(type(read.parts[0])(paths=None, batches=batches),),
        )
        assert ENGINE.schema("SELECT id, error('run')::VARCHAR AS e FROM src", [unread], plan()).names == ["id", "e"]

    @pytest.mark.parametrize("transform", [as_relation, as_table, as_reader])
    def test_a_function_is_run(self, transform: Any) -> None:
        assert ENGINE.schema(transform, [SRC], plan()) == WANT

    def test_a_type_no_table_has_is_refused(self) -> None:
        table = pa.table({"s": pa.array([1], pa.duration("s"))})
        with pytest.raises(TransformError, match="the transform returns s INTERVAL"):
            ENGINE.schema(lambda *_: table, [SRC], plan())
