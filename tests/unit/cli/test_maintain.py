from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from airflow_incremental import cli
from airflow_incremental.iceberg import naming
from airflow_incremental.sessions import steps
from tests.support.tables import roll_back
from tests.support.world import SOURCE, TARGET, World

KEEN = ("--expire-older-than", "0s", "--compact", "2")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Tables behind the default connection, with something to do."""
    found = World(home=tmp_path).set_up()
    for n in range(4):
        found.land(n, 0.5)
        steps.run(found.process())
    extra = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}/warehouse"}
    monkeypatch.setenv("AIRFLOW_CONN_TEST", json.dumps({"conn_type": "iceberg", "extra": extra}))
    return found


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Line:
    return Line(monkeypatch, capsys)


class Line:
    """The command line: what ``maintain`` printed, or how it failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self.monkeypatch.setattr(
            sys, "argv", ["airflow-incremental", "maintain", *arguments, "--iceberg-conn-id", "test"]
        )
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = self.capsys.readouterr()
        assert caught.value.code == code, said
        return said.out if code == 0 else said.err


def test_a_dry_run_says_what_the_run_then_does(world: World, line: Line) -> None:
    told = json.loads(line(SOURCE, TARGET, *KEEN, "--dry-run", "--json"))
    assert [found["table"] for found in told] == [SOURCE, TARGET]
    assert len(world.target.metadata.snapshots) == 5
    done = json.loads(line(SOURCE, TARGET, *KEEN, "--json"))
    assert [{**found, "dry_run": True} for found in done] == told
    assert done[1]["snapshots_expired"] == len(done[1]["snapshots"]) == 4
    assert done[1]["files_compacted"] == 4
    world.check()


def test_people_read_it_as_text(world: World, line: Line) -> None:
    table = world.target
    table.manage_snapshots().create_branch(table.metadata.snapshots[1].snapshot_id, "dev").commit()
    stray = Path(table.location().removeprefix("file://")) / "data" / "stray.parquet"
    stray.write_bytes(b"rows")
    os.utime(stray, (0, 0))
    said = line(TARGET, *KEEN, "--only", "expire", "--only", "orphans", "--dry-run")
    assert "mart.result: 5 snapshots; would be done:" in said
    assert "snapshots expired" in said
    assert "compacted" not in said
    assert "the branch 'dev' keeps 3 snapshots, from 20" in said
    assert f"nothing refers to {stray}, and no session wrote it" in said
    assert "nothing\n" in line(TARGET, "--only", "expire")
    table = world.target
    ref = naming.data_ref("proc", "20240101T000000-0123abcd")
    table.manage_snapshots().create_branch(table.metadata.snapshots[-1].snapshot_id, ref).commit()
    assert f"branch or tag {ref}: session 20240101T000000-0123abcd" in line(TARGET, "--only", "refs")


def test_consumers_that_do_not_pin(world: World, line: Line) -> None:
    world.land(5)
    world.land(6)
    found = json.loads(line(SOURCE, *KEEN, "--consumer", "mart.*", "--only", "expire", "--json"))
    assert [h["by"] for h in found[0]["held"]] == ["process 'proc' of mart.result"]
    steps.run(world.process())
    world.check()


def test_what_is_wrong_is_said_and_the_rest_is_done(world: World, line: Line) -> None:
    assert "expire_older_than is 'soon'" in line(TARGET, "--expire-older-than", "soon", code=1)
    assert "'vacuum'" in line(TARGET, "--only", "vacuum", code=1)
    said = line("mart.missing", TARGET, *KEEN, code=1)
    assert "mart.missing: the table 'mart.missing' does not exist" in said
    assert len(world.target.metadata.snapshots) == 2, "the head and its compaction"
    roll_back(world.target, world.target.metadata.snapshots[0].snapshot_id)
    world.check()
