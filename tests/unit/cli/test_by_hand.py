"""The commands for people: undo, set, reset, list, show, end; each on real tables behind a connection."""

from __future__ import annotations

import getpass
import json
import logging
from pathlib import Path

import pytest
from sqlalchemy import select

from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from airflow_incremental.store import schema
from airflow_incremental.store.database import Store
from tests.support.by_hand import last_of, loaded_twice
from tests.support.world import TARGET, World
from tests.unit.cli.test_signals import Line

WHY = ("--reason", "a bad delivery")
BY = (*WHY, "--by", "anna")


class CatalogLine(Line):
    """The command line with the connection of the tests' catalog, which bears the catalog's name."""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        conn = () if arguments[0] == "signals" else ("--iceberg-conn-id", "test")
        return super().__call__(*arguments, *conn, code=code)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Line:
    """The command line."""
    # Airflow's handlers write to what was standard error in the first test.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    return CatalogLine(monkeypatch, capsys)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store behind its connection."""
    file = tmp_path / "signals.db"
    monkeypatch.setenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    return Store.open(f"sqlite:///{file}")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> World:  # noqa: ARG001  (the commands tell it)
    """A target with two published sessions, behind its connection."""
    home = tmp_path / "lake"
    extra = {"type": "sql", "uri": f"sqlite:///{home}/catalog.db", "warehouse": f"file://{home}/warehouse"}
    monkeypatch.setenv("AIRFLOW_CONN_TEST", json.dumps({"conn_type": "iceberg", "extra": extra}))
    return loaded_twice(home, "overwrite")[0]


def test_undo(line: Line, world: World, store: Store) -> None:
    one, two = [row["session"] for row in line.json("session", "list", TARGET, "--json")][::-1]
    seen = line("rollback", TARGET, "--to", two, *BY, "--dry-run")
    assert f"would undo 1 session of process 'proc' on {TARGET}" in seen
    assert last_of(world).session == two
    said = line("rollback", TARGET, "--to", two, *BY)
    assert f"the process is again where session {one} left it" in said
    assert "in one commit, session" in said
    rollback = last_of(world).session
    assert f"undone already: anna took {TARGET} back" in line("rollback", TARGET, "proc", "--to", two, *WHY)
    again = line.json("rollback", TARGET, "proc", "--to", two, *WHY, "--json")
    assert (again["outcome"], again["rollback"], again["reason"]) == ("already_done", rollback, "a bad delivery")

    listed = line.json("session", "list", TARGET, "--json")
    assert [(r["session"], r["state"], r["kind"]) for r in listed] == [
        (rollback, "published", "rollback"),
        (two, "undone", "load"),
        (one, "published", "load"),
    ]
    assert f"undone: anna rolled back to before session {two}: a bad delivery" in line("session", "show", TARGET, two)
    with store.read() as conn:
        (row,) = conn.execute(select(schema.session)).all()
        (process,) = conn.execute(select(schema.process)).all()
        assert len(conn.execute(select(schema.signal)).all()) == 1
    assert (row.session, process.session) == (rollback, rollback)
    assert line("store", "rebuild", TARGET).startswith(f"{TARGET}: 1 processes, 3 sessions")
    steps.run(world.process())
    world.check()


def test_a_rollback_past_others_says_what_to_do(line: Line, world: World) -> None:
    two = last_of(world).session
    world.target.append(world.target.scan(limit=1).to_arrow())
    said = line("rollback", TARGET, "--to", two, *BY, code=1)
    assert said.startswith("Error: ")
    assert "another writer committed snapshot" in said
    assert "What to do: if that commit may go, set 'main' back" in said
    assert "Traceback" not in said
    assert "Missing option" in line("rollback", TARGET, "--to", two, code=2)


def test_a_watermark_is_shown_set_and_reset(line: Line, world: World, store: Store) -> None:
    shown = line("watermark", "show", TARGET)
    assert "process 'proc' on mart.result (overwrite): load session" in shown
    assert "raw.events" in shown
    first = line.json("session", "list", TARGET, "--json")[1]["watermark"]["positions"]["events"]["snapshot"]
    given = ("watermark", "set", TARGET, "--source", f"events={first}", *BY)
    assert "would change, and nothing else" in line(*given, "--dry-run")
    assert "the next run takes the changes of 2 snapshots again" in line(*given)
    found = line.json("watermark", "show", TARGET, "--json")
    assert (found["sources"][0]["snapshot"], found["sources"][0]["behind"]) == (first, 2)
    assert found["by_hand"] == "anna set the watermark: a bad delivery"
    assert "is so already; nothing was done" in line(*given)
    assert "would be 2024-01-01T00:30:00Z" not in shown
    for arguments, words in {
        ("--source", "events"): "name=value",
        ("--source", "events=1", "--source", "events=2"): "given twice",
        ("--source", "events=7"): "snapshot 7 is not on branch 'main'",
        ("--processed-through", "2024-01-01"): "without zone|zone",
        (): "nothing is to be set",
    }.items():
        said = line("watermark", "set", TARGET, *arguments, *BY, code=1)
        assert any(word in said for word in words.split("|")), said
    said = line("watermark", "reset", TARGET, *WHY)
    assert "the next run of the load is refused unless 'initial' adopts them" in said
    assert "has no watermark, since" in line("watermark", "show", TARGET)
    assert published(world.target, "proc") is None
    assert line.json("watermark", "reset", TARGET, *WHY, "--json")["outcome"] == "unchanged"
    kinds = [row["kind"] for row in line.json("session", "list", TARGET, "--json")]
    assert kinds == ["reset", "set", "load", "load"]
    with store.read() as conn:
        assert conn.execute(select(schema.process)).all() == []
        rows = conn.execute(select(schema.session).order_by(schema.session.c.session)).all()
        assert [row.kind for row in rows] == ["set", "reset"]
        assert rows[-1].reason == f"{getpass.getuser()} reset the watermark: a bad delivery"
    line("store", "rebuild", TARGET)
    with store.read() as conn:
        assert conn.execute(select(schema.process)).all() == []


def test_a_session_is_listed_shown_and_ended(line: Line, world: World, store: Store) -> None:
    world.land(7)
    session = plan(world.process("manual__1"))
    assert isinstance(session, Session)
    steps.load(session)
    newest = line.json("session", "list", TARGET, "--json", "--limit", "1")
    assert [(r["session"], r["state"], r["by"]) for r in newest] == [
        (session.plan.session, "open", "run manual__1 of DAG dag, task load")
    ]
    shown = line("session", "show", TARGET, session.plan.session)
    assert "reads events = raw.events from snapshot" in shown
    assert (
        line.json("session", "show", TARGET, session.plan.session, "--json")["plan"]["session"] == session.plan.session
    )
    assert "tells of no session 'yesterday'" in line("session", "show", TARGET, "yesterday", code=1)
    assert "is open on mart.result, so a rollback has to wait" in line(
        "rollback", TARGET, "--to", newest[0]["previous_watermark"] and last_of(world).session, *BY, code=1
    )
    assert f"session {session.plan.session} of process 'proc' on {TARGET} was ended by anna" in line(
        "session", "abandon", TARGET, *BY
    )
    assert naming.lock_ref("proc") not in world.target.metadata.refs
    states = {row["session"]: row["state"] for row in line.json("session", "list", TARGET, "proc", "--json")}
    assert states[session.plan.session] == "failed", "its rows are kept for a look"
    assert "has no open session" in line("session", "abandon", TARGET, *BY)
    assert line.json("session", "abandon", TARGET, *BY, "--json")["abandoned"] is None
    with store.read() as conn:
        (row,) = conn.execute(select(schema.session)).all()
    assert (row.state, row.error, row.run_id) == ("ended", "ended by anna: a bad delivery", "manual__1")
    steps.run(world.process())
    world.check()


def test_a_session_shows_its_audits(line: Line, world: World) -> None:
    from airflow_incremental.audits import NotNull

    world.land(7)
    steps.run(world.process(audits=(NotNull("total", severity="warn"),)))
    session = last_of(world).session
    (audit,) = line.json("session", "show", TARGET, session, "--json")["audits"]
    assert audit["passed"]
    said = line("session", "show", TARGET, session)
    assert audit["audit"] in said
    assert "read events = raw.events: from snapshot" in said


def test_who_has_no_name_is_asked_for_one(line: Line, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr(getpass, "getuser", nobody)
    del world
    assert "say it with --by" in line("watermark", "reset", TARGET, "--reason", "late", code=1)


def test_which_process_is_meant_is_asked_for(line: Line, world: World) -> None:
    other = World(home=world.home, mode="overwrite", name="other", policies={"initial": {"adopt": "current"}})
    assert other.name not in line("session", "list", TARGET)
    said = line("watermark", "show", TARGET, "other", code=1)
    assert "no process 'other' has published to mart.result" in said
    assert "one of 'proc'" in said
    assert "the target 'mart.nothing' does not exist" in line("watermark", "show", "mart.nothing", code=1)


def test_a_store_that_does_not_answer_is_told_when_it_is_done_again(
    line: Line, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    two = last_of(world).session
    working = json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "signals.db")})
    monkeypatch.setenv(
        "AIRFLOW_CONN_INCREMENTAL_DEFAULT",
        json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "no" / "where.db")}),
    )
    assert "Error: " in line("rollback", TARGET, "--to", two, *BY, code=1)
    assert last_of(world).summary[naming.KIND] == "rollback", "what was done is done"
    monkeypatch.setenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", working)
    assert "undone already" in line("rollback", TARGET, "--to", two, *BY)
    assert line.json("signals", "list", TARGET, "--json")[0]["params"]["kind"] == "rollback"
