"""What a transform may return, and what becomes of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from airflow_incremental_spark import DriverError
from airflow_incremental_spark.output import fitted
from tests.spark.driver.lake import Lake


def target(lake: Lake, columns: str) -> None:
    lake.create("dst", columns)
    lake.spark.sql(f"ALTER TABLE {lake.name('dst')} SET TBLPROPERTIES ('write.spark.fanout.enabled'='true')")
    lake.spark.table(lake.name("dst")).limit(0).writeTo(lake.name("dst")).append()
    lake.branch("dst")


def loaded(lake: Lake, sql: str) -> Any:
    lake.run(lake.document("dst", sql))
    return lake.rows("dst.branch_attempt")


def test_columns_are_matched_by_name(lake: Lake) -> None:
    target(lake, "id bigint, `a.b c` string, s struct<x: int, y: string>")
    sql = "SELECT named_struct('y', 'v', 'x', 1) AS s, 'n' AS `a.b c`, 7 AS ID"
    assert loaded(lake, sql) == [(7, "n", (1, "v"))]


def test_values_are_cast_without_loss(lake: Lake) -> None:
    target(
        lake, "a bigint, b double, c decimal(20,4), d decimal(12,2), e int, f string, g array<bigint>, h double, i date"
    )
    sql = (
        "SELECT 1Y AS a, 2 AS b, 3 AS c, sum(1.25) AS d, count(*) AS e, CAST('x' AS VARCHAR(3)) AS f, array(1) AS g, "
        "float(0.5) AS h, NULL AS i"
    )
    assert loaded(lake, sql) == [(1, 2.0, Decimal("3.0000"), Decimal("1.25"), 1, "x", [1], 0.5, None)]


@pytest.mark.parametrize(
    ("sql", "found", "where"),
    [
        ("SELECT 3000000000L AS e", "CAST_OVERFLOW", "transform"),
        ("SELECT 1 / 0 AS e FROM range(1)", "CAST|do not fit", "transform"),
        ("SELECT CAST(1 DIV id AS INT) AS e FROM range(1)", "DIVIDE_BY_ZERO", "transform"),
        ("SELECT CAST(NULL AS INT) AS e", "(?i)null", "transform"),
    ],
)
def test_values_that_do_not_fit_stop_the_job(
    lake: Lake, sql: str, found: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target(lake, "e int NOT NULL")
    with pytest.raises(Exception, match=found):
        loaded(lake, sql)
    mark, report = lake.marks("dst")
    assert mark == "failed"
    assert report["where"] == where
    assert len(report["error"].splitlines()) < 25
    assert "\tat " not in report["error"]
    assert 'airflow-incremental: {"driver": "failed"' in capsys.readouterr().out
    assert lake.rows("dst.branch_attempt") == []


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ("bigint", "double"),
        ("double", "float"),
        ("double", "bigint"),
        ("decimal(10,4)", "decimal(10,2)"),
        ("string", "int"),
        ("int", "string"),
        ("timestamp", "timestamp_ntz"),
        ("timestamp_ntz", "timestamp"),
        ("timestamp", "date"),
        ("date", "timestamp"),
        ("binary", "string"),
        ("boolean", "int"),
        ("array<string>", "array<int>"),
        ("map<string,double>", "map<string,int>"),
        ("struct<a:string>", "struct<a:int>"),
        ("struct<a:int>", "string"),
    ],
)
def test_types_that_lose_something_are_refused(spark: Any, have: str, want: str) -> None:
    def frame(kind: str) -> Any:
        return spark.sql(f"SELECT CAST(NULL AS {kind}) AS c")

    with pytest.raises(DriverError, match="the transform's columns do not fit the target:\n  column"):
        fitted(frame(have), frame(want).schema)


def test_the_difference_is_shown(spark: Any) -> None:
    have = spark.sql(
        "SELECT 1 AS id, TIMESTAMP_NTZ '2024-01-01 00:00:00' AS ts, 'x' AS extra, named_struct('a', 1) AS s"
    )
    want = spark.sql(
        "SELECT 1L AS id, TIMESTAMP '2024-01-01 00:00:00' AS ts, 'x' AS name, named_struct('a', 1, 'b', 2) AS s"
    ).schema
    with pytest.raises(DriverError) as caught:
        fitted(have, want)
    text = str(caught.value)
    assert "  ts      timestamp_ntz      timestamp\n" in text
    assert "  name    (missing)          string\n" in text
    assert "  extra   string             (no such column)\n" in text
    assert "  s.b     (missing)          int\n" in text
    assert (
        "return CAST(ts AS timestamp) (times without zone are taken as UTC) AS ts, return name too, leave extra out"
        in text
    )


def test_a_column_twice(spark: Any) -> None:
    frame = spark.sql("SELECT 1L AS id, 2L AS ID")
    with pytest.raises(DriverError, match="returns 'ID', 'id' more than once"):
        fitted(frame, spark.sql("SELECT 1L AS id").schema)
