"""The plan's ranges and keys reach Iceberg: the physical plan holds them, and fewer files are read."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

import pytest

from airflow_incremental_spark.changes import changed_keys
from airflow_incremental_spark.keys import Keys
from airflow_incremental_spark.reads import SourceReader
from airflow_incremental_spark.times import FEW, Ranges
from tests.spark.driver.lake import Lake, at, ranges

DAYS = 10


@pytest.fixture
def source(lake: Lake) -> dict[str, Any]:
    """A table of ten days, each in a file of its own, with keys that grow with time."""
    lake.create("src", "k bigint, ts timestamp", "days(ts)")
    pinned = lake.insert("src", f"SELECT id, timestamp_seconds(1704067200 + id * 3600) FROM range({24 * DAYS})")
    assert len(lake.files("src")) == DAYS
    return lake.source("src", lake.read("src", snapshot=pinned), event_time="ts")


def plan(frame: Any) -> str:
    """Return the physical plan as Spark explains it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        frame.explain()
    return out.getvalue()


def filters(frame: Any) -> str:
    """Return what Iceberg's scan of the source was given to filter by."""
    return re.search(r"filters=(.*?), (?:runtimeFilters|groupedBy)=", plan(frame)).group(1)


def rows_read(frame: Any) -> int:
    """Return how many rows come out of the files that are opened for a DataFrame, before Spark filters them itself."""
    frame.collect()
    stack, found = [frame._jdf.queryExecution().executedPlan()], 0
    while stack:
        node = stack.pop()
        if node.nodeName() == "AdaptiveSparkPlan":
            stack.append(node.executedPlan())
            continue
        if node.nodeName().startswith("BatchScan"):
            found += node.metrics().get("numOutputRows").get().value()
        children = [*(node.children().apply(i) for i in range(node.children().length()))]
        stack += (
            [node.plan()] if hasattr(node, "plan") and "QueryStage" in node.getClass().getSimpleName() else children
        )
    return found


def read(lake: Lake, source: dict[str, Any], **more: Any) -> Any:
    (given,) = source["rows"]
    return SourceReader(lake.spark, "lake", source).frame([{**given, **more}])


def test_a_range_is_given_to_iceberg(lake: Lake, source: dict[str, Any]) -> None:
    frame = read(lake, source, keep=ranges(("02 06", "02 09"), ("05 00", "06 00")))
    found = filters(frame)
    assert found.count("ts >= ") == 2
    assert "ts < " in found
    if hasattr(frame, "_jdf"):
        assert rows_read(frame) == 2 * 24  # two files of ten


def test_many_ranges_are_given_coarser_and_looked_up_exactly(lake: Lake, source: dict[str, Any]) -> None:
    # Every other hour of four days, in more ranges than are compared, and one far away.
    hours = [(f"{2 + h // 24:02} {h % 24:02}", f"{2 + (h + 1) // 24:02} {(h + 1) % 24:02}") for h in range(0, 96, 2)]
    more = [(f"08 {h:02}", f"08 {h + 1:02}") for h in range(0, 24, 2)] + [
        (f"10 {h:02}", f"10 {h + 1:02}") for h in range(0, 22, 2)
    ]
    wanted = [*hours, *more]
    assert len(wanted) > FEW
    frame = read(lake, source, keep=ranges(*wanted))
    assert filters(frame).count("ts >= ") == FEW
    assert "BroadcastHashJoin" in plan(frame)
    assert frame.count() == len(wanted)
    if hasattr(frame, "_jdf"):
        assert rows_read(frame) == 6 * 24


def test_what_is_left_out_is_given_to_iceberg(lake: Lake, source: dict[str, Any]) -> None:
    frame = read(lake, source, drop=ranges((None, "03 00"), ("04 00", None)))
    assert "ts >= " in filters(frame)
    if hasattr(frame, "_jdf"):
        assert rows_read(frame) == 24


def test_incremental_reads_open_added_files_only(lake: Lake, source: dict[str, Any]) -> None:
    before = lake.head("src")
    lake.insert("src", "VALUES (1000L, TIMESTAMP '2024-02-01 00:00:00')")
    (given,) = source["rows"]
    reads = [{**{k: v for k, v in given.items() if k != "snapshot"}, "start": before, "end": lake.head("src")}]
    frame = SourceReader(lake.spark, "lake", source).frame(reads)
    assert [r["k"] for r in frame.collect()] == [1000]
    if hasattr(frame, "_jdf"):
        assert rows_read(frame) == 1


def keys(lake: Lake, sql: str) -> Keys:
    return Keys(changed_keys(lake.spark.sql(sql), None, {"key": "k"}))


def test_a_few_keys_are_listed_for_iceberg(lake: Lake, source: dict[str, Any]) -> None:
    wanted = keys(lake, "SELECT * FROM VALUES (30L), (31L), (100L) AS t(k)")
    frame = wanted.rows(read(lake, source), ["k"])
    assert "k IN (" in filters(frame)
    assert frame.count() == 3
    if hasattr(frame, "_jdf"):
        assert rows_read(frame) == 2 * 24
    wanted.forget()


def test_of_more_keys_spans_are_given_to_iceberg(lake: Lake, source: dict[str, Any]) -> None:
    # 600 keys in two clumps, most of which the source does not have.
    wanted = keys(lake, "SELECT id + 30 AS k FROM range(10) UNION ALL SELECT id + 220 FROM range(590)")
    frame = wanted.rows(read(lake, source), ["k"])
    assert "k >= 30 and k <= 39" in re.sub(r"[()]", "", filters(frame)).lower()
    assert frame.count() == 10 + 20
    if hasattr(frame, "_jdf"):
        assert rows_read(frame) == 24 + 24
    wanted.forget()


def test_rows_that_were_written_inside_are_not_opened_to_check_them(lake: Lake, source: dict[str, Any]) -> None:
    reader = SourceReader(lake.spark, "lake", source)
    wanted = Ranges.read({"ranges": [[at("01 00"), at("11 00")]], "nulls": False})
    frame = reader.time.outside(reader.frame(source["rows"]), wanted)
    assert frame.count() == 0
    if hasattr(frame, "_jdf"):
        assert rows_read(frame) == 0
