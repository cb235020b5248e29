"""The rows of a READ: which, and under which columns."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pytest

from airflow_incremental_spark.reads import SourceReader
from airflow_incremental_spark.times import MAX_TIME, MIN_TIME, Ranges, TimeColumn, local_frame
from tests.spark.driver.lake import Lake, ranges

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
HOUR = 3_600_000_000
DAY = 24 * HOUR


def read(lake: Lake, source: dict) -> list[tuple]:
    frame = SourceReader(lake.spark, "lake", source).frame(source["rows"])
    return sorted((tuple(r) for r in frame.collect()), key=lambda row: [(v is None, v) for v in row])


def test_snapshots_incremental_reads_and_files(lake: Lake) -> None:
    lake.create("src", "id bigint")
    ids = [lake.insert("src", f"VALUES ({i}L)") for i in range(4)]
    lake.branch("src")
    files = {r["file_path"]: r["record_count"] for r in lake.spark.table(lake.name("src.files")).collect()}
    first = lake.spark.sql(f"SELECT DISTINCT _file FROM {lake.name('src')} WHERE id = 0").collect()[0][0]
    assert len(files) == 4

    def of(**more: object) -> list[tuple]:
        return read(lake, lake.source("src", lake.read("src", **more)))

    assert of(snapshot=ids[1]) == [(0,), (1,)]
    assert of(start=ids[0], end=ids[2]) == [(1,), (2,)]
    assert of(snapshot=ids[3], files=[first]) == [(0,)]
    assert of(snapshot=ids[3], not_files=[first]) == [(1,), (2,), (3,)]
    both = lake.source("src", lake.read("src", snapshot=ids[0]), lake.read("src", start=ids[1], end=ids[3]))
    assert read(lake, both) == [(0,), (2,), (3,)]
    assert read(lake, lake.source("src")) == []


def test_columns_of_the_pinned_snapshot(lake: Lake) -> None:
    """Renamed, added, promoted and nested columns read the same from before they were changed."""
    name = lake.create(
        "src", "id int, old string, gone string, s struct<a: int>, l array<struct<a: int>>, m map<string, int>"
    )
    first = lake.insert(
        "src",
        "VALUES (1, 'x', 'g', named_struct('a', 7), array(named_struct('a', 8)), map('k', 9)), (2, NULL, NULL, NULL, NULL, NULL)",
    )
    for change in (
        "RENAME COLUMN old TO new",
        "DROP COLUMN gone",
        "ALTER COLUMN id TYPE bigint",
        "ADD COLUMN more decimal(10,2)",
        "ADD COLUMN s.b string",
        "ADD COLUMN l.element.b string",
        "ALTER COLUMN m.value TYPE bigint",
    ):
        lake.spark.sql(f"ALTER TABLE {name} {change}")
    old = lake.read("src", snapshot=first)
    old["columns"] = {"old": "new", "id": "id", "s": "s", "l": "l", "m": "m"}
    found = SourceReader(lake.spark, "lake", lake.source("src", old)).frame([old])
    assert found.schema.simpleString() == lake.spark.table(name).schema.simpleString()
    rows = sorted(found.collect(), key=lambda r: r["id"])
    assert rows[0].asDict(recursive=True) == {
        "id": 1,
        "new": "x",
        "s": {"a": 7, "b": None},
        "l": [{"a": 8, "b": None}],
        "m": {"k": 9},
        "more": None,
    }
    assert tuple(rows[1])[1:] == (None,) * 5


def test_rows_are_kept_and_dropped_by_event_time(lake: Lake) -> None:
    lake.create("src", "ts timestamp")
    pinned = lake.insert(
        "src", "SELECT timestamp_seconds(1704067200 + id * 3600) FROM range(4) UNION ALL SELECT CAST(NULL AS TIMESTAMP)"
    )

    def shown(**more: object) -> list[object]:
        source = lake.source("src", lake.read("src", snapshot=pinned, **more), event_time="ts")
        return [None if t is None else t.hour for (t,) in read(lake, source)]

    assert shown(keep=ranges(("01 01", "01 03"))) == [1, 2]
    assert shown(keep=ranges(("01 01", None), nulls=True)) == [1, 2, 3, None]
    assert shown(keep=ranges((None, None))) == [0, 1, 2, 3]
    assert shown(drop=ranges(("01 01", "01 03"))) == [0, 3, None]
    assert shown(drop=ranges((None, "01 01"), nulls=True)) == [1, 2, 3]
    assert shown(keep=ranges((None, "01 03")), drop=ranges(("01 01", "01 02"))) == [0, 2]
    assert shown(keep=ranges()) == []


def _ranges(rng: random.Random, count: int, *, unit: int) -> Ranges:
    """Return disjoint ranges around 1970, of which some are shorter than a unit and some longer; with open ends now and then."""
    cuts = sorted(rng.sample(range(-300 * unit, 300 * unit, unit // 4 + 1), count * 2))
    found = [(cuts[i], cuts[i + 1]) for i in range(0, len(cuts), 2)]
    if rng.random() < 0.5:
        found[0] = (None, found[0][1])
    if rng.random() < 0.5:
        found[-1] = (found[-1][0], None)
    return Ranges(found, nulls=rng.random() < 0.5)


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize("count", [3, 150])
def test_ranges_few_or_many_hold_what_they_hold(spark: Any, kind: str, count: int) -> None:
    rng = random.Random(f"{kind}{count}")
    unit = DAY if kind == "date" else HOUR
    wanted = _ranges(rng, count, unit=unit)
    ends = [v for pair in wanted.ranges for v in pair if v is not None]
    values = [rng.choice(ends) + rng.choice([-1, 0, 1]) for _ in range(60)]
    values += [rng.randrange(-310 * unit, 310 * unit) for _ in range(60)]
    if kind == "date":
        values = [v // DAY * DAY for v in values]
    rows = [*((v,) for v in dict.fromkeys(values)), (None,)]
    types = {
        "timestamptz": "timestamp_micros(v)",
        "timestamp": "CAST(timestamp_micros(v) AS TIMESTAMP_NTZ)",
        "date": "CAST(timestamp_micros(v) AS DATE)",
    }
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    frame = local_frame(spark, rows, "v bigint").selectExpr("v", f"{types[kind]} AS `t x`")

    def holds(value: int | None) -> bool:
        if value is None:
            return wanted.nulls
        return any((a is None or a <= value) and (b is None or value < b) for a, b in wanted.ranges)

    column = TimeColumn("t x", kind)
    inside = {r["v"] for r in column.inside(frame, wanted).collect()}
    outside = [r["v"] for r in column.outside(frame, wanted).collect()]
    assert inside == {v for (v,) in rows if holds(v)}
    assert sorted(outside, key=str) == sorted((v for (v,) in rows if not holds(v)), key=str)


def test_a_table_of_ranges_has_the_ends_of_time_for_open_ends(spark: Any) -> None:
    found = Ranges.read(ranges((None, "01 00"), ("02 00", None))).frame(spark)
    assert found.columns == ["range_start", "range_end"]
    micros = [tuple(r) for r in found.selectExpr("unix_micros(range_start)", "unix_micros(range_end)").collect()]
    ends = [(m - EPOCH) // dt.timedelta(microseconds=1) for m in (MIN_TIME, MAX_TIME)]
    assert (micros[0][0], micros[1][1]) == tuple(ends)
    assert micros[1][0] - micros[0][1] == DAY
