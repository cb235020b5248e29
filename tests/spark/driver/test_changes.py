"""What changed in a driver: its rows, their event times and their least and greatest values."""

from __future__ import annotations

import pytest

from airflow_incremental_spark import DriverError
from tests.spark.driver.lake import Lake, ranges

COLUMNS = "id bigint, x double, s struct<a: int>, m map<string, timestamp>"


def changed(
    lake: Lake, before: str, after: str, sql: str = "SELECT id, _change_type AS kind FROM src_changes"
) -> list[tuple]:
    """Return the result of a query over the changes from one state of the source to another one."""
    lake.create("dst", "id bigint, kind string")
    lake.insert("dst", "VALUES (-1L, 'base')")
    old = lake.insert("src", before)
    lake.spark.sql(f"INSERT OVERWRITE {lake.name('src')} {after}")
    lake.branch("dst")
    new = lake.read("src", snapshot=lake.head("src"))
    source = lake.source("src", new, removed=[lake.read("src", snapshot=old)])
    lake.run(lake.document("dst", sql, sources={"src": source}))
    return [r for r in lake.rows("dst.branch_attempt") if r[0] != -1]


def test_rows_are_counted_one_by_one(lake: Lake) -> None:
    lake.create("src", COLUMNS)
    row = "({}, named_struct('a', 1), map('k', TIMESTAMP '2024-01-01 00:00:00.000001'))"
    same = row.format("1L, double('NaN')")
    two = row.format("2L, 0.0D")
    before = f"VALUES {same}, {same}, {two}, {two}, (3L, NULL, NULL, NULL), (4L, 1.0D, NULL, NULL)"
    after = (
        f"VALUES {same}, {row.format('2L, -0.0D')}, {two}, {two}, (3L, NULL, NULL, NULL), "
        "(4L, 1.0D, NULL, map('k', TIMESTAMP '2024-01-01 00:00:00.000002')), (5L, 1.0D, NULL, NULL), (5L, 1.0D, NULL, NULL)"
    )
    assert changed(lake, before, after) == [
        (1, "delete"),
        (2, "insert"),
        (4, "delete"),
        (4, "insert"),
        (5, "insert"),
        (5, "insert"),
    ]


def test_the_name_of_the_added_column_is_taken(lake: Lake) -> None:
    lake.create("src", "id bigint, _Change_Type string")
    with pytest.raises(DriverError, match="source 'src' has a column '_change_type'"):
        changed(lake, "VALUES (1L, 'a')", "VALUES (2L, 'a')", "SELECT id, 'x' AS kind FROM src_changes")
    assert lake.marks("dst")[1]["where"] == "read"


def test_ranges_and_bounds(lake: Lake) -> None:
    lake.create("src", "id bigint, ts timestamp")
    pinned = lake.insert("src", "VALUES (1L, TIMESTAMP '2024-01-01 00:00:00')")
    lake.create("dst", "a bigint, b timestamp, c string, d timestamp, e timestamp, n bigint")
    lake.insert("dst", "SELECT NULL, NULL, NULL, NULL, NULL, -1L")
    lake.branch("dst")
    source = lake.source(
        "src",
        lake.read("src", snapshot=pinned),
        ranges=ranges(("01 00", "01 05"), ("02 00", "02 01")),
        bounds={"id": [3, 2**53 + 1], "ts": ["2024-01-01T00:00:00.000001Z", "2024-01-02T00:00:00Z"], "no": None},
        bounds_types={"id": "bigint", "ts": "timestamp", "no": "string"},
    )
    sql = (
        "SELECT max_id AS a, min_ts AS b, min_no AS c, (SELECT min(range_start) FROM SRC_RANGES) AS d, "
        "(SELECT max(range_end) FROM src_ranges) AS e, (SELECT count(*) FROM src_ranges) AS n FROM src_bounds"
    )
    lake.run(lake.document("dst", sql, sources={"src": source}))
    (row,) = [r for r in lake.rows("dst.branch_attempt") if r[5] != -1]
    assert row[0] == 2**53 + 1
    assert row[2] is None
    assert row[5] == 2
    assert [t.isoformat() for t in (row[1], row[3], row[4])] == [
        "2024-01-01T00:00:00.000001",
        "2024-01-01T00:00:00",
        "2024-01-02T01:00:00",
    ]


def test_a_lookup_has_no_changes(lake: Lake) -> None:
    lake.create("src", "id bigint")
    lake.insert("src", "VALUES (1L)")
    lake.create("dst", "id bigint")
    lake.insert("dst", "VALUES (0L)")
    lake.branch("dst")
    with pytest.raises(DriverError, match="src_changes") as caught:
        lake.run(lake.document("dst", "SELECT id FROM src_changes", sources={"src": lake.lookup("src")}))
    assert "one of the names this transform can read: src, plan_ranges" in str(caught.value)
