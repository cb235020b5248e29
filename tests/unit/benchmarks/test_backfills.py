"""What the benchmark of backfills can say without an Airflow: its plans, its oracle, how it reads a log. Never: how fast."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from airflow_incremental.iceberg import naming
from benchmarks import backfills
from benchmarks.__main__ import NAMES, ON_REQUEST
from benchmarks.backfill.lake import HOURS, Load
from benchmarks.backfill.place import read_try
from benchmarks.report import Report
from demo.landing import Lakehouse


def test_it_runs_only_when_it_is_named() -> None:
    assert "backfills" in ON_REQUEST
    assert "backfills" not in NAMES


def test_plans_are_made_without_an_airflow(tmp_path: Path) -> None:
    report = Report(name="backfills", quick=True, rounds=1, directory=tmp_path)
    backfills.plan(report, tmp_path / "home", backfills.QUICK)
    found = json.loads(report.finish().read_text())
    (cases,) = found["tables"].values()
    assert {(case["labels"]["mode"], case["labels"]["files"]) for case in cases} == {
        (mode, files) for mode in ("overwrite", "append") for files in ("every hour", "every other hour")
    }
    for case in cases:
        assert set(case["timings"]) == {"plan", "cut", "encode", "all"}
        assert case["counts"]["hours computed"] == backfills.QUICK.planned
        assert 1 < case["counts"]["chunks"] <= 100
    assert [aim["unit"] for aim in found["aims"]] == ["s", "s"]


def test_a_target_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    load = Load(lakehouse=Lakehouse(tmp_path), source="years", target="hours", hours=30)
    assert load.make() > 0
    assert (load.start, load.end) == ("2019-01-01T00:00:00Z", "2019-01-02T06:00:00Z")
    source = load.lakehouse.catalog().load_table("raw.years").scan().to_arrow()
    assert source.num_rows == 60
    with pytest.raises(AssertionError):
        load.check(1)
    rows = {"hour_ts": [], "n": [], "total": []}
    for row in source.sort_by("ts").to_pylist()[::2]:
        rows["hour_ts"].append(row["ts"].replace(minute=0))
        rows["n"].append(2)
        rows["total"].append(3 * (row["id"] * 7 % 101 + (row["id"] + 1) * 7 % 101))
    load.table.append(pa.table(rows, schema=HOURS))
    with pytest.raises(AssertionError, match=r"^set\(\)"):
        load.check(3)  # it has no watermark
    table = load.table
    head = table.current_snapshot()
    assert head is not None
    table.manage_snapshots().create_tag(head.snapshot_id, naming.watermark_tag("mart.hours")).commit()
    load.check(3)
    with pytest.raises(AssertionError):
        load.check(2)


def test_a_log_says_what_a_try_did(tmp_path: Path) -> None:
    log = tmp_path / "attempt=1.log"
    log.write_text('{"event": "events: 876 rows in 19 files (28,500 bytes)"}\n')
    begun = read_try(log)
    assert (begun.began, begun.kept, begun.computed) == (True, False, ())
    with log.open("a") as file:
        file.write('{"event": "wrote 438 rows in 438 files in 3.5 s"}\n')
        file.write('{"event": "chunk 3 of 100 of session 20261129-abc is done, 17 in all"}\n')
    ended = read_try(log)
    assert (ended.began, ended.kept, ended.computed) == (True, True, (3.5,))
    log.write_text(
        '{"event": "chunk 3 was done by an earlier try"}\n{"event": "chunk 3 of 100 of session a is done, 17 in all"}\n'
    )
    again = read_try(log)
    assert (again.began, again.kept, again.computed) == (False, True, ())
