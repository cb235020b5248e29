"""What a transform may be, and how it is told what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental_spark import DriverError
from airflow_incremental_spark.settings import is_connect
from tests.spark.driver.lake import Lake


@pytest.fixture
def target(lake: Lake) -> Lake:
    lake.create("dst", "id bigint")
    lake.insert("dst", "VALUES (0L)")
    lake.branch("dst")
    return lake


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("INSERT INTO {t} VALUES (1L)", "the transform's SQL is INSERT"),
        (
            "-- SELECT\n/* a\n*/ merge into {t} using {t} s on false when not matched then insert *",
            "the transform's SQL is MERGE",
        ),
        ("CREATE TABLE {t}2 AS SELECT 1", "the transform's SQL is CREATE"),
        ("  ", "the transform's SQL is no statement"),
        ("WITH s AS (SELECT 1L AS id) INSERT INTO {t} SELECT * FROM s", "INSERT"),
        ("FROM range(3) INSERT INTO {t} SELECT id", "INSERT"),
        ("SELECT 1L AS id; SELECT 2L AS id", "PARSE_SYNTAX_ERROR"),
        ("SELECT id FRO range(3)", "PARSE_SYNTAX_ERROR"),
    ],
)
def test_sql_is_one_query(target: Lake, sql: str, found: str) -> None:
    with pytest.raises(DriverError, match=found) as caught:
        target.run(target.document("dst", sql.format(t=target.name("dst"))))
    assert "one SELECT (or WITH ... SELECT) statement" in str(caught.value)
    assert target.rows("dst") == [(0,)]
    mark, report = target.marks("dst")
    assert (mark, report["where"]) == ("failed", "transform")


@pytest.mark.parametrize(
    "sql",
    [
        "WITH s AS (SELECT 5L AS id) SELECT * FROM s",
        "(SELECT 5L AS id) UNION ALL SELECT 5L WHERE false;",
        "/* c */ FROM range(5, 6) SELECT id",
        "VALUES (5L) AS t(id)",
        "SELECT 5L AS id -- and no more",
    ],
)
def test_queries_of_all_kinds_are_run(target: Lake, sql: str) -> None:
    if sql.startswith("VALUES"):
        sql = "SELECT id FROM " + sql
    target.run(target.document("dst", sql))
    assert target.rows("dst.branch_attempt") == [(0,), (5,)]


@pytest.mark.parametrize("form", ["{t}", "`{c}`. {n}.dst"])
def test_tables_are_not_read_past_the_plan(target: Lake, form: str) -> None:
    table = target.name("dst")
    catalog, namespace, _ = table.split(".")
    named = form.format(t=table, c=catalog, n=namespace)
    with pytest.raises(DriverError, match=r"names the table \S+\.dst itself"):
        target.run(target.document("dst", f"SELECT id FROM {named}"))
    assert target.rows("dst") == [(0,)]


def test_an_unknown_source_is_named(target: Lake) -> None:
    with pytest.raises(DriverError, match=r"TABLE_OR_VIEW_NOT_FOUND.*`ordrs`") as caught:
        target.run(target.document("dst", "SELECT id FROM ordrs", sources={"orders": target.lookup("dst")}))
    assert "one of the names this transform can read: orders, plan_ranges" in str(caught.value)
    assert "\tat " not in str(caught.value)


def test_an_unknown_column_is_named(target: Lake) -> None:
    with pytest.raises(DriverError, match=r"UNRESOLVED_COLUMN.*`idd`"):
        target.run(target.document("dst", "SELECT idd AS id FROM orders", sources={"orders": target.lookup("dst")}))


def test_names_are_told_apart(target: Lake) -> None:
    sources = {"orders": target.lookup("dst"), "Orders": target.lookup("dst")}
    with pytest.raises(DriverError, match="the source name 'Orders' is taken"):
        target.run(target.document("dst", "SELECT 1L AS id", sources=sources))


FUNCTION = {"kind": "function", "module": "author", "name": "transform"}


def test_a_function_is_imported_and_gets_session_sources_and_plan(
    target: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "author.py").write_text(
        "def transform(spark, sources, plan):\n"
        "    assert plan['session'] == 's' and list(sources) == ['orders', 'plan_ranges']\n"
        "    orders = sources['orders']\n"
        "    assert orders is sources['orders']\n"
        "    return orders.selectExpr('id + 1 AS id').union(spark.range(9, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    target.run(target.document("dst", FUNCTION, sources={"orders": target.lookup("dst")}))
    sys.modules.pop("author")
    assert target.rows("dst.branch_attempt") == [(0,), (1,), (9,)]


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda *_: None, "returned None"),
        (lambda *_: [1], r"returned builtins\.list"),
        (lambda _, sources, __: sources["nope"], "asks for 'nope'"),
    ],
)
def test_functions_return_rows_of_spark(target: Lake, function: Any, found: str) -> None:
    with pytest.raises(DriverError, match=found):
        target.run(target.document("dst", FUNCTION), function)
    assert target.marks("dst")[1]["where"] == "transform"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"module": "no_such_module"}, "the module 'no_such_module' of the transform cannot be imported on the driver"),
        ({"module": "json", "name": "nope.transform"}, "the module 'json' on the driver has no 'nope.transform'"),
    ],
)
def test_functions_that_are_not_there(target: Lake, given: dict[str, Any], found: str) -> None:
    with pytest.raises(DriverError, match=found) as caught:
        target.run(target.document("dst", {**FUNCTION, **given}))
    assert "py_files" in str(caught.value)


def test_the_error_of_a_function_passes_and_is_told(target: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    def transform(*_: Any) -> None:
        raise KeyError("price")

    with pytest.raises(KeyError):
        target.run(target.document("dst", FUNCTION), transform)
    mark, report = target.marks("dst")
    assert (mark, report["error"], report["where"]) == ("failed", "KeyError: 'price'", "transform")
    assert "failed" in capsys.readouterr().out


def test_a_function_that_writes_to_the_target_is_refused(target: Lake) -> None:
    name = target.name("dst")

    def to_main(spark: Any, *_: Any) -> Any:
        spark.range(7, 8).writeTo(name).append()
        return spark.range(1)

    with pytest.raises(DriverError, match=r"the transform committed snapshot \d+ \(append\) to .*\.dst itself"):
        target.run(target.document("dst", FUNCTION), to_main)
    assert target.rows("dst.branch_attempt") == [(0,)]


def test_a_function_that_writes_to_the_branch_is_refused(target: Lake) -> None:
    name = target.name("dst.branch_attempt")

    def to_branch(spark: Any, *_: Any) -> Any:
        spark.range(7, 8).writeTo(name).append()
        return spark.range(1)

    with pytest.raises(DriverError, match="which this driver did not write"):
        target.run(target.document("dst", FUNCTION), to_branch)
    assert target.marks("dst") == (None, {})


def test_others_may_commit_to_the_target_meanwhile(target: Lake) -> None:
    """Such as another process that publishes, or compaction."""
    name = target.name("dst")

    def transform(spark: Any, *_: Any) -> Any:
        if is_connect(spark):
            marked = "spark.sql.iceberg.snapshot-property.incremental.attempt"
            spark.conf.unset(marked)
            target.insert("dst", "VALUES (8L)")
            spark.conf.set(marked, "attempt")
        else:
            load = spark._jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable
            load(spark._jsparkSession, name).newAppend().set("incremental.session", "other").commit()
        return spark.range(3, 4)

    before = target.head("dst")
    target.run(target.document("dst", FUNCTION), transform)
    assert target.head("dst") != before
    assert target.rows("dst.branch_attempt") == [(0,), (3,)]
    assert target.marks("dst")[0] == "done"
