"""What each mode's job reads and writes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental_spark import DriverError
from tests.spark.driver.lake import EVERYTHING, Lake, at, ranges


def test_append_reads_exactly_the_added_rows(lake: Lake) -> None:
    lake.create("src", "id bigint, v string")
    lake.create("dst", "id bigint, v string")
    lake.insert("dst", "VALUES (0L, 'old')")
    first = lake.insert("src", "VALUES (1L, 'a')")
    second = lake.insert("src", "VALUES (2L, 'b'), (2L, 'b')")
    third = lake.insert("src", "VALUES (3L, 'c')")
    lake.insert("src", "VALUES (4L, 'later')")
    lake.branch("dst")
    source = lake.source("src", lake.read("src", start=first, end=third))
    found = lake.run(lake.document("dst", "SELECT upper(v) AS v, id FROM src", sources={"src": source}))
    assert found == {"rows": 3}
    assert lake.rows("dst.branch_attempt") == [(0, "old"), (2, "B"), (2, "B"), (3, "C")]
    assert lake.rows("dst") == [(0, "old")]
    mark, report = lake.marks("dst")
    assert (mark, report["rows"]) == ("done", 3)
    assert second != third


def test_no_row_is_done_too(lake: Lake) -> None:
    lake.create("dst", "id bigint")
    lake.insert("dst", "VALUES (0L)")
    lake.branch("dst")
    assert lake.run(lake.document("dst", "SELECT 1L AS id WHERE false")) == {"rows": 0}
    assert lake.marks("dst")[0] == "done"
    assert lake.rows("dst.branch_attempt") == [(0,)]


def overwritten(lake: Lake, sql: str, *, partition: str = "days(ts)") -> dict[str, Any]:
    lake.create("src", "id bigint, ts timestamp", "days(ts)")
    lake.create("dst", "id bigint, ts timestamp", partition)
    hours = "SELECT id, timestamp_seconds(1704067200 + id * 3600) FROM range(72)"
    pinned = lake.insert("src", hours)
    lake.insert("dst", "SELECT id + 100, timestamp_seconds(1704067200 + id * 3600) FROM range(72)")
    lake.branch("dst")
    wanted = ranges(("02 00", "03 00"))
    source = lake.source("src", lake.read("src", snapshot=pinned, keep=wanted), event_time="ts")
    document = lake.document(
        "dst",
        sql,
        sources={"src": source},
        plan_ranges=wanted,
        target_more={
            "event_time": "ts",
            "event_time_type": "timestamptz",
            "replace": {"ranges": wanted, "scope": None},
            "check": {"ranges": wanted, "scope": None, "keys": False},
        },
    )
    return lake.run(document)


def test_overwrite_replaces_the_ranges_and_nothing_else(lake: Lake) -> None:
    assert overwritten(lake, "SELECT * FROM src WHERE hour(ts) < 2") == {"rows": 2}
    rows = [r[0] for r in lake.rows("dst.branch_attempt")]
    assert rows == [24, 25, *range(100, 124), *range(148, 172)]


def test_overwrite_empties_a_range_without_rows(lake: Lake) -> None:
    assert overwritten(lake, "SELECT * FROM src WHERE false") == {"rows": 0}
    assert [r[0] for r in lake.rows("dst.branch_attempt")] == [*range(100, 124), *range(148, 172)]


def test_files_that_hold_other_rows_too_are_left_to_the_seal(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert overwritten(lake, "SELECT * FROM src", partition="") == {"rows": 24}
    assert "sealing the session rewrites them" in capsys.readouterr().out
    assert len(lake.rows("dst.branch_attempt")) == 72 + 24
    assert lake.marks("dst")[0] == "done"


def test_plan_ranges_are_a_relation(lake: Lake) -> None:
    sql = "SELECT id, ts FROM src JOIN plan_ranges ON ts >= range_start + INTERVAL 22 HOURS AND ts < range_end"
    assert overwritten(lake, sql) == {"rows": 2}


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        (
            "SELECT id, ts + INTERVAL 1 DAY AS ts FROM src",
            "24 rows whose 'ts' is outside the planned ranges, from 2024-01-03T00",
        ),
        ("SELECT id, if(id < 27, NULL, ts) AS ts FROM src", "3 rows whose event time 'ts' is null"),
    ],
)
def test_rows_outside_the_ranges_are_refused(lake: Lake, sql: str | None, found: str) -> None:
    with pytest.raises(DriverError, match=found):
        overwritten(lake, sql)
    mark, report = lake.marks("dst")
    assert mark == "failed"
    assert found in report["error"]
    assert report["where"] == "transform"
    assert report["hint"]


def test_scope_is_replaced_and_checked(lake: Lake) -> None:
    lake.create("dst", "id bigint, region string, day date", "region, day")
    lake.insert(
        "dst", "VALUES (1L, 'eu', DATE '2024-01-01'), (2L, 'us', DATE '2024-01-01'), (3L, NULL, DATE '2024-01-01')"
    )
    scope = {"region": ["eu", None], "day": ["2024-01-01"]}
    for branch, region, rows in (("one", "'eu'", [2, 9]), ("two", "'us'", None)):
        lake.branch("dst", branch)
        document = lake.document(
            "dst",
            f"SELECT 9L AS id, {region} AS region, DATE '2024-01-01' AS day",
            branch=branch,
            target_more={
                "replace": {"ranges": EVERYTHING, "scope": scope},
                "check": {"ranges": None, "scope": scope, "keys": False},
            },
        )
        if rows is None:
            with pytest.raises(DriverError, match="1 rows whose 'region' is outside the scope"):
                lake.run(document)
        else:
            lake.run(document)
            assert [r[0] for r in lake.rows(f"dst.branch_{branch}")] == rows


TOTALS = "SELECT k, sum(v) AS total FROM src GROUP BY k"


def merged(lake: Lake, added: str, removed: str, sql: str = TOTALS) -> list[tuple[Any, ...]]:
    """Run a merge over rows (k, v) that are added to, and rows that are removed from, 300 keys."""
    lake.create("src", "k bigint, v bigint", "truncate(100, k)")
    lake.create("dst", "k bigint, total bigint")
    lake.insert("dst", "VALUES (0L, 0L)")
    base = lake.insert("src", "SELECT id, 1L FROM range(300)")
    if removed:
        lake.spark.sql(f"DELETE FROM {lake.name('src')} WHERE {removed}")
    pinned = lake.insert("src", added) if added else lake.head("src")
    lake.branch("dst")
    added_read = lake.read("src", snapshot=pinned)
    source = lake.source("src", added_read, added=[added_read], removed=[lake.read("src", snapshot=base)])
    document = lake.document(
        "dst",
        sql,
        sources={"src": source},
        keys={"columns": ["k"], "sources": {"src": ["k"]}, "within": {"src": None}},
        target_more={"check": {"ranges": None, "scope": None, "keys": True}},
    )
    lake.run(document)
    return [r for r in lake.rows("dst.branch_attempt") if r != (0, 0)]


def test_merge_reads_all_rows_of_changed_keys_only(lake: Lake) -> None:
    # Key 5 gets a row, 7 loses its only one (and has no row left), the rows of rewritten files that stayed do not count.
    assert merged(lake, "VALUES (5L, 10L), (400L, 1L)", "k = 7") == [(5, 11), (400, 1)]


def test_merge_with_more_keys_than_are_listed(lake: Lake) -> None:
    found = merged(lake, "SELECT id * 3, 10L FROM range(0, 100) UNION ALL SELECT id + 1000, 1L FROM range(200)", "")
    assert len(found) == 300
    assert found[1] == (3, 11)


def test_merge_without_changed_keys(lake: Lake) -> None:
    assert merged(lake, "", "") == []


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT k + 1 AS k, 1L AS total FROM src", "3 rows whose key \\(k\\) is none of the 2 changed ones"),
        ("SELECT NULL AS k, 1L AS total FROM src LIMIT 1", "1 rows whose key \\(k\\) is null"),
    ],
)
def test_merge_refuses_rows_of_other_keys(lake: Lake, sql: str | None, found: str) -> None:
    with pytest.raises(DriverError, match=found):
        merged(lake, "VALUES (5L, 10L), (400L, 1L)", "", sql)


def stepwise(
    lake: Lake,
    sql: str | None,
    state: str,
    *,
    function: Any = None,
    parts: list[tuple[str, str]] | None = None,
    replaced: tuple[str, str] = ("03 00", "05 00"),
) -> list[tuple[Any, ...]]:
    """Run a stateful job over two days, in steps, with a history of two days before."""
    lake.create("src", "k string, v bigint, ts timestamp", "days(ts)")
    lake.create("dst", "k string, v bigint, ts timestamp", "days(ts)")
    pinned = lake.insert(
        "src",
        "VALUES ('a', 1L, TIMESTAMP '2024-01-03 01:00:00'), ('b', 1L, TIMESTAMP '2024-01-03 02:00:00'), "
        "('a', 1L, TIMESTAMP '2024-01-04 01:00:00'), (NULL, 1L, TIMESTAMP '2024-01-04 02:00:00')",
    )
    lake.insert(
        "dst",
        "VALUES ('a', 10L, TIMESTAMP '2024-01-01 05:00:00'), ('a', 20L, TIMESTAMP '2024-01-02 05:00:00'), "
        "('a', 19L, TIMESTAMP '2024-01-02 05:00:00'), (NULL, 7L, TIMESTAMP '2024-01-01 06:00:00'), "
        "('a', 99L, TIMESTAMP '2024-01-03 05:00:00')",
    )
    lake.branch("dst")
    wanted = ranges(replaced)
    # A worker leaves out what a query does not name.
    added = None if function is None else [lake.read("src", snapshot=pinned)]
    document = lake.document(
        "dst",
        sql if isinstance(sql, str) else {"kind": "function", "module": "", "name": ""},
        sources={
            "src": lake.source("src", lake.read("src", snapshot=pinned, keep=wanted), event_time="ts", added=added)
        },
        plan_ranges=wanted,
        steps={
            "parts": [[at(a), at(b)] for a, b in parts or [("03 00", "04 00"), ("04 00", "05 00")]],
            "state": {"kind": state, "columns": ["k"], "unit": "day", "replaced": wanted},
        },
        target_more={
            "event_time": "ts",
            "event_time_type": "timestamptz",
            "replace": {"ranges": wanted, "scope": None},
            "check": {"ranges": wanted, "scope": None, "keys": False},
        },
    )
    lake.run(document, function)
    return [(k, v) for k, v, ts in lake.rows("dst.branch_attempt") if ts >= dt.datetime(2024, 1, 3)]  # noqa: DTZ001 - Spark's are naive


RUNNING = "SELECT s.k, s.v + coalesce(t.v, 0L) AS v, s.ts FROM src s LEFT JOIN state t ON s.k <=> t.k"


def test_latest_state_grows_with_the_steps(lake: Lake) -> None:
    # Of the two rows of 'a' at one time the greater counts; what is replaced (99) is no state; null is a key.
    assert stepwise(lake, RUNNING, "latest_by") == [("a", 21), ("a", 22), ("b", 1), (None, 8)]


def test_state_of_the_previous_step(lake: Lake) -> None:
    sql = "SELECT 'n' AS k, (SELECT count(*) FROM state) AS v, min(ts) AS ts FROM src"
    assert stepwise(lake, sql, "previous_step") == [("n", 1), ("n", 2)]


def test_a_function_gets_each_step_with_its_own_ranges(lake: Lake) -> None:
    seen = []

    def transform(spark: Any, sources: Any, plan: Any) -> Any:
        seen.append((plan["replaced"], sorted(sources), sources["plan_ranges"].count()))
        return spark.sql("SELECT 'x' AS k, 1L AS v, TIMESTAMP '2024-01-03 00:00:00' AS ts").where(str(len(seen) == 1))

    assert stepwise(lake, None, "latest_by", function=transform) == [("x", 1)]
    assert [s[0] for s in seen] == [
        ["2024-01-03T00:00:00Z/2024-01-04T00:00:00Z"],
        ["2024-01-04T00:00:00Z/2024-01-05T00:00:00Z"],
    ]
    assert seen[0][1:] == (["plan_ranges", "src", "src_changes", "src_ranges", "state"], 1)


def test_a_step_that_writes_into_another_one_is_refused(lake: Lake) -> None:
    with pytest.raises(DriverError, match="outside the planned ranges, from 2024-01-04T02"):
        stepwise(lake, "SELECT 'x' AS k, 1L AS v, TIMESTAMP '2024-01-04 02:00:00' AS ts", "latest_by")


def test_many_steps_fold_what_they_wrote(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_incremental_spark.state.FOLD", 2)
    parts = [(f"03 {h:02}", f"03 {h + 1:02}") for h in range(6)]
    sql = "SELECT 'a' AS k, (SELECT max(v) FROM state WHERE k = 'a') + 1 AS v, min(range_start) AS ts FROM plan_ranges"
    found = stepwise(lake, sql, "latest_by", parts=parts, replaced=("03 00", "03 06"))
    assert found == [("a", v) for v in range(21, 27)]


def test_the_history_is_read_once(lake: Lake) -> None:
    seen: list[list[int]] = []

    def move(there: str, to: str) -> None:
        for path in lake.files("dst"):
            file = Path(path.removeprefix("file:"))
            file.with_name(file.name + there).rename(file.with_name(file.name + to))

    def transform(_spark: Any, sources: Any, _plan: Any) -> Any:
        seen.append(sorted(r["v"] for r in sources["state"].collect()))
        if len(seen) == 1:
            move("", ".away")
        else:
            move(".away", "")
        return sources["src"].selectExpr("'n' AS k", "1L AS v", "ts")

    parts = [("03 01", "03 02"), ("03 02", "03 03")]
    assert stepwise(lake, None, "latest_by", function=transform, parts=parts) == [("n", 1), ("n", 1)]
    assert seen == [[7, 20], [1, 7, 20]]
