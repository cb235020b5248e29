"""What the benchmark of Spark measures with: its tables, and how it reads an application's log. Never: how fast."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest

from benchmarks.__main__ import NAMES, main
from benchmarks.histories import new_catalog
from benchmarks.spark_events import read_application
from benchmarks.spark_world import World


def test_a_tick_brings_a_hundredth_of_the_rows_and_a_twentieth_of_them_late(tmp_path: Path) -> None:
    world = World(catalog=new_catalog(tmp_path), rows=20_000)
    world.make()
    before = world.catalog.load_table(world.original).scan().to_arrow()
    assert before.num_rows == pc.count_distinct(before["id"]).as_py() == 20_000
    source = world.copy("copy")
    world.tick(source)
    rows = world.catalog.load_table(source).scan().to_arrow()
    assert pc.count_distinct(rows["id"]).as_py() == rows.num_rows == 20_200
    new = rows.filter(pc.greater_equal(rows["id"], 20_000))
    days = {v["values"].isoformat(): v["counts"] for v in pc.value_counts(new["ts"].cast("date32")).to_pylist()}
    assert days == {"2024-04-10": 191, "2024-04-09": 3, "2024-03-31": 3, "2024-02-20": 3}
    assert pc.max(before["ts"]).as_py() < pc.max(rows["ts"]).as_py()
    assert world.catalog.load_table(world.original).scan().count() == 20_000, "another copy has them not"


def test_a_target_that_lacks_rows_is_noticed(tmp_path: Path) -> None:
    world = World(catalog=new_catalog(tmp_path), rows=1, days=1)
    world.make()
    target, source = world.target("target", "append"), world.copy("source")
    with pytest.raises(AssertionError):
        world.check(target, ticked=False)
    world.catalog.load_table(target).append(world.catalog.load_table(source).scan().to_arrow())
    world.check(target, ticked=False)
    world.drop(source, target)
    assert world.catalog.list_tables("mart") == []
    assert world.catalog.load_table(world.original).scan().to_arrow().num_rows == 1, (
        "its files were not the copy's alone"
    )


def test_an_application_is_cut_into_driver_jobs_and_tasks(tmp_path: Path) -> None:
    events = [
        {"Event": "SparkListenerLogStart", "Spark Version": "4.1.1"},
        {"Event": "SparkListenerApplicationStart", "Timestamp": 10_000},
        {"Event": "SparkListenerJobStart", "Job ID": 0, "Submission Time": 12_000},
        {"Event": "SparkListenerJobStart", "Job ID": 1, "Submission Time": 13_000},
        {"Event": "SparkListenerTaskEnd", "Task Metrics": {"Executor Run Time": 1_500}},
        {"Event": "SparkListenerTaskEnd", "Task Metrics": {"Executor Run Time": 2_500}},
        {"Event": "SparkListenerJobEnd", "Job ID": 0, "Completion Time": 14_000},
        {"Event": "SparkListenerJobEnd", "Job ID": 1, "Completion Time": 13_500},
        {"Event": "SparkListenerJobStart", "Job ID": 2, "Submission Time": 15_000},
        {"Event": "SparkListenerJobEnd", "Job ID": 2, "Completion Time": 15_250},
        {"Event": "SparkListenerApplicationEnd", "Timestamp": 16_000},
    ]
    (tmp_path / "local-1").write_text("".join(json.dumps(e) + "\n" for e in events))
    found = read_application(tmp_path)
    assert (found.began, found.ended, found.jobs, found.tasks) == (10.0, 16.0, 2.25, 4.0)
    assert found.driver == 3.75


def test_it_is_not_among_those_that_need_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "spark" not in NAMES
    with pytest.raises(SystemExit):
        main(["sparkk"])
    assert capsys.readouterr().err.strip().endswith(", spark")
