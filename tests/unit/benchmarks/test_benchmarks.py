"""Every benchmark runs, in tiny sizes, checks what it measures and writes what it says. Never: how fast."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import position_of
from benchmarks.__main__ import NAMES, main
from benchmarks.histories import History, copies, make_table, new_catalog
from benchmarks.report import Report
from benchmarks.timing import Contender, Timings, child, in_turn, ratio


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run them all once."""
    output = tmp_path_factory.mktemp("bench")
    main(["--quick", "--rounds", "1", "--output", str(output)])
    return output


@pytest.fixture(params=NAMES)
def result(results: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / f"{request.param}.json").read_text())
    assert found["benchmark"] == request.param
    return found


def test_a_result_says_how_it_came_about(result: dict[str, Any]) -> None:
    assert result["quick"] is True
    assert result["rounds"] == 1
    assert {"python", "cores", "load", "pyiceberg", "duckdb", "apache-airflow"} <= set(result["environment"])
    assert result["tables"]


def test_every_case_has_labels_and_figures(result: dict[str, Any]) -> None:
    for cases in result["tables"].values():
        assert cases
        for case in cases:
            assert case["labels"]
            assert case["timings"] or case["ratios"] or case["counts"]
            assert all(r > 0 for r in case["ratios"].values())
            for timings in case["timings"].values():
                assert timings["wall_ms"]
                assert len(timings["wall_ms"]) == len(timings["cpu_ms"])
                assert min(timings["wall_ms"]) <= timings["median_wall_ms"] <= max(timings["wall_ms"])


def test_every_benchmark_is_judged(result: dict[str, Any]) -> None:
    assert result["aims"]
    for aim in result["aims"]:
        assert aim["met"] is (aim["value"] >= aim["limit"] if aim["at_least"] else aim["value"] <= aim["limit"])


def test_a_session_makes_at_most_four_commits(results: Path) -> None:
    cases = json.loads((results / "commits.json").read_text())["tables"]
    (table,) = [t for title, t in cases.items() if "growth" not in title]
    assert {case["counts"][f"commits, {mode}"] for case in table for mode in ("append", "overwrite")} <= {3, 4}


def test_planning_reads_one_list_and_the_changed_manifests(results: Path) -> None:
    tables = json.loads((results / "planning.json").read_text())["tables"]
    grid = next(t for title, t in tables.items() if "window" in title)
    for case in grid:
        assert case["counts"]["reads detect"] == 1 + case["labels"]["window"]


def test_all_kinds_of_triggers_wait_and_are_woken(results: Path) -> None:
    (table,) = json.loads((results / "triggerer.json").read_text())["tables"].values()
    found = {case["labels"]["trigger"]: case["counts"] for case in table}
    assert set(found) == {"none", "SignalTrigger", "plain trigger", "ExternalTaskSensor"}
    assert all(counts["median ms"] > 0 for trigger, counts in found.items() if trigger != "none")
    asked = {trigger: counts["questions/s"] for trigger, counts in found.items()}
    assert asked.pop("ExternalTaskSensor") > max(asked.values()), "only it asks for the state of runs"


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("late")])
def test_ours_is_right_whatever_comes_late(results: Path, name: str) -> None:
    ours = [line for line in lines_of(results / f"{name}.csv") if line["contender"] == "ours"]
    assert {line["wrong"] for line in ours} == {"0"}
    assert {line["tick"] for line in ours} >= {"0", "1"}


def test_a_short_lookback_is_wrong(results: Path) -> None:
    found = {"lookback 3": 0, "lookback 200": 0, "full": 0}
    for line in lines_of(results / "late.csv"):
        if line["contender"] in found:
            found[line["contender"]] += int(line["wrong"])
    assert found.pop("lookback 3") > 0
    assert set(found.values()) == {0}


def test_where_ours_loses_is_printed(results: Path) -> None:
    tables = json.loads((results / "late.json").read_text())["tables"]
    (lost,) = [cases for title, cases in tables.items() if "loses" in title]
    # Three days are read less than those that changed, and wrong.
    assert any(case["labels"] == {"against": "lookback 3", "hop": "facts"} and case["counts"] for case in lost)


def test_a_scale_is_for_late_bench(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["late", "noop", "--ticks", "3"])
    assert "are for late" in capsys.readouterr().err


def test_a_benchmark_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plannning"])
    assert "there is no benchmark plannning" in capsys.readouterr().err


def changes_of(table: Table, length: int) -> ChangeSet:
    snapshots = table.metadata.snapshots
    base = position_of(table, snapshots[-1 - length])
    return detect(table, base, snapshots[-1].snapshot_id, event_time="ts", mode="append")


def test_a_history_made_by_hand_reads_like_one_of_appends(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    table = make_table(catalog, "raw.events", History(snapshots=150, files=450))
    assert len(table.metadata.snapshots) == 151
    assert len(changes_of(table, 100).added) == 300
    head = table.current_snapshot()
    assert head is not None
    listed = head.manifests(table.io)
    assert len(listed) == len({m.manifest_path for m in listed}) == 150
    assert sum(m.added_files_count or 0 for m in listed) == 450
    assert sorted(m.sequence_number for m in listed) == list(range(2, 152))


def test_the_same_files_change_in_a_table_of_many(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    history = History(snapshots=150, files=1_280, window_files=3, manifests=7)
    table = make_table(catalog, "raw.events", history)
    assert len(changes_of(table, 100).added) == 300
    head = table.current_snapshot()
    assert head is not None
    listed = head.manifests(table.io)
    assert len(listed) == 101 + 7
    assert sum((m.added_files_count or 0) + (m.existing_files_count or 0) for m in listed) == 101 * 3 + 49 * 19


def test_copies_share_a_history_and_not_what_follows(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    table = make_table(catalog, "raw.events", History(snapshots=3, files=3))
    names = copies(catalog, table, "raw.copy")
    one, two = (catalog.load_table(next(names)) for _ in range(2))
    one.append(one.schema().as_arrow().empty_table())
    assert len(catalog.load_table(".".join(one.name())).metadata.snapshots) == 5
    assert len(catalog.load_table(".".join(two.name())).metadata.snapshots) == 4


def test_contenders_take_turns_and_all_see_every_round() -> None:
    order: list[str] = []
    contenders = {name: Contender(lambda _, n=name: order.append(n)) for name in "abc"}
    timings = in_turn(contenders, rounds=3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert all(len(t.wall) == len(t.cpu) == 3 for t in timings.values())


def test_only_the_work_is_timed() -> None:
    steps: list[str] = []
    contender = Contender(steps.append, lambda: steps.append("prepare") or "work", lambda _: steps.append("clean"))
    contender.once()
    assert steps == ["prepare", "work", "clean"]


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was ten times as slow in the second round, for both.
    assert ratio((2.0, 20.0, 2.0), (1.0, 10.0, 1.0)) == 2.0


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="no such luck"):
        child("-c", "raise SystemExit('no such luck')")


def test_a_child_says_what_it_used() -> None:
    ballast = bytearray(b"x" * (200 * 2**20))
    used = child("-c", "data = bytearray(b'x' * (64 * 2**20)); print(len(data))")
    assert used.output.strip() == str(64 * 2**20)
    # What the parent holds is not the child's.
    assert 64 < used.peak_mib < len(ballast) / 2**20
    assert 0 < used.cpu < used.wall + 1


def test_an_aim_has_a_bound(tmp_path: Path) -> None:
    report = Report(name="some", quick=True, rounds=1, directory=tmp_path)
    report.aim("as fast as can be", 3.0, most=2.0, unit="ms")
    report.aim("as much as can be", 3.0, least=2.0, unit="rows")
    with pytest.raises(ValueError, match="bound"):
        report.aim("boundless", 1.0, unit="ms")
    found = json.loads(report.finish().read_text())
    assert [a["met"] for a in found["aims"]] == [False, True]


def test_medians() -> None:
    timings = Timings(wall=(0.001, 0.009, 0.002), cpu=(0.001, 0.001, 0.003))
    assert (timings.wall_ms, timings.cpu_ms) == (2.0, 1.0)
