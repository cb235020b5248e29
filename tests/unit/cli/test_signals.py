from __future__ import annotations

import datetime as dt
import getpass
import json
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import update

from airflow_incremental import cli
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signal_values import as_timestamp
from airflow_incremental.core.signals import ge, in_, read_dependencies
from airflow_incremental.store import waits
from airflow_incremental.store.database import Store
from airflow_incremental.store.schema import signal
from airflow_incremental.store.subscriptions import subscribe
from airflow_incremental.store.waits import find_wait, open_wait, release, wait_id
from tests.support.stores import TASK, say

WEEK = dt.timedelta(days=7)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store behind the connection."""
    file = tmp_path / "signals.db"
    monkeypatch.setenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    return Store.open(f"sqlite:///{file}")


class Line:
    """The command line: what a command printed, or how it failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command, and return what it printed."""
        self.monkeypatch.setattr(sys, "argv", ["airflow-incremental", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = self.capsys.readouterr()
        self.err = said.err
        assert caught.value.code == code, said
        return said.out if code == 0 else said.err

    def json(self, *arguments: str) -> Any:
        """Run a command that prints JSON, and return its value."""
        return json.loads(self(*arguments))


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Line:
    """The command line."""
    return Line(monkeypatch, capsys)


@pytest.mark.usefixtures("store")
def test_emit_says_what_it_did_and_list_finds_it(line: Line) -> None:
    arguments = (
        "signals",
        "emit",
        "fact",
        "-p",
        "region=eu",
        "-p",
        "hour:timestamp=2023-09-14T06:00:00+00:00",
        "--payload",
        '{"n": 1}',
    )
    emitted = line.json(*arguments)
    assert (emitted["seq"], emitted["payload"], emitted["emitter"]["source"]) == (1, {"n": 1}, "cli")
    assert emitted["new"] is True
    assert line.json(*arguments) == emitted | {"new": False}
    line("signals", "emit", "fact", "-p", "region=us", "-p", "hour=2023-09-14T07:00:00Z")

    assert [s["seq"] for s in line.json("signals", "list", "fact", "--json")] == [2, 1]
    match = json.dumps({"hour": ge("2023-09-14T07:00:00Z")})
    assert [s["seq"] for s in line.json("signals", "list", "fact", "--match", match, "--json")] == [2]
    assert "hour=2023-09-14T07:00:00+00:00 region=us" in line("signals", "list")
    assert "no such signal" in line("signals", "list", "other")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("signals", "emit", "fact", "-p", "region"), "'region' is no parameter"),
        (("signals", "emit", "fact", "-p", "hour:time=6"), "under the name of its kind"),
        (("signals", "emit", "fact", "-p", "a=1", "-p", "a=2"), "given twice"),
        (("signals", "emit", "fact", "--payload", "{"), "the payload is no JSON"),
        (("signals", "emit", "airflow_incremental:bypass"), "does not start with"),
        (("signals", "list", "--match", "{}"), "without a name"),
        (("signals", "bypass", "--reason", "x"), "which step is meant is not said"),
        (("signals", "bypass", "nowhere", "--reason", "x"), "there is no wait nowhere"),
        (("signals", "list", "--incremental-conn-id", "nowhere"), "no Airflow connection 'nowhere'"),
        (("store", "rebuild"), "which targets are meant is not said"),
        (("store", "clean", "--older-than", "soon"), "no length of time"),
        (("store", "clean", "--older-than", "36526d"), "36525d at most"),
        (("store", "clean", "--older-than", "99999999999999999999w"), "36525d at most"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(line: Line, arguments: tuple[str, ...], message: str) -> None:
    said = line(*arguments, code=1)

    assert said.startswith("Error: ")
    assert message in said
    assert "Traceback" not in said


def test_waits_are_shown_and_bypassed_by_task(line: Line, store: Store) -> None:
    identity = wait_id(TASK, max_tries=0)
    open_wait(
        store,
        identity,
        read_dependencies([{"name": "fact", "match": {"hour": ge(6)}, "join": ["day"]}]),
        TASK,
        timeout=WEEK,
    )

    (shown,) = line.json("signals", "waits", "--json")
    assert (shown["id"], shown["waits_for"]) == (identity, ["fact where hour >= 6 joined on day"])
    named = ("--dag-id", "dag", "--run-id", "run", "--task-id", "task")
    assert "does not wait" in line("signals", "bypass", *named, "--map-index", "3", "--reason", "late", code=1)
    assert "bypassed by anna: late" in line("signals", "bypass", *named, "--by", "anna", "--reason", "late")

    with store.read() as conn:
        assert find_wait(conn, identity).state == "bypassed"
    assert "nothing waits" in line("signals", "waits")
    assert "bypassed" in line("signals", "waits", "--all")


def test_what_is_waited_for_is_shown_as_people_write_it(line: Line, store: Store) -> None:
    match = {"hour": ge(as_timestamp("2023-09-14T06:00:00Z")), "region": in_(["eu", "us"])}
    wait = open_wait(store, "w", read_dependencies([{"name": "fact", "match": match}]), TASK, timeout=WEEK)

    (shown,) = line.json("signals", "waits", "--json")
    assert shown["waits_for"] == ["fact where hour >= 2023-09-14T06:00:00+00:00 and region in eu, us"]
    assert shown["since"] == wait.opened_at.isoformat()


def test_no_wait_is_left_out_without_a_word(line: Line, store: Store) -> None:
    for index in range(3):
        task = attrs.evolve(TASK, map_index=index)
        open_wait(store, wait_id(task, max_tries=0), read_dependencies([{"name": "fact"}]), task, timeout=WEEK)
    assert [one["map_index"] for one in line.json("signals", "waits", "--json", "--limit", "2")] == [2, 1]
    assert "more than the 2 newest" in line.err
    assert len(line.json("signals", "waits", "--json", "--limit", "3")) == 3
    assert line.err == ""


def test_a_mapped_task_is_bypassed_however_many_wait_after_it(
    line: Line, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = waits.find_waits
    monkeypatch.setattr(waits, "find_waits", lambda conn, **given: found(conn, **({"limit": 2} | given)))
    for index in range(3):
        task = attrs.evolve(TASK, map_index=index)
        open_wait(store, wait_id(task, max_tries=0), read_dependencies([{"name": "fact"}]), task, timeout=WEEK)
    named = ("--dag-id", "dag", "--run-id", "run", "--task-id", "task", "--map-index", "0")
    assert "bypassed by anna" in line("signals", "bypass", *named, "--by", "anna", "--reason", "late")


def test_who_has_no_name_is_asked_for_one(line: Line, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr(getpass, "getuser", nobody)
    open_wait(store, "w", read_dependencies([{"name": "fact"}]), TASK, timeout=WEEK)
    assert "say it with --by" in line("signals", "bypass", "w", "--reason", "late", code=1)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "arguments",
    [
        ("signals", "lineage", "fact", "99999999999999999999"),
        ("signals", "lineage", "fact", "1", "--depth", "0"),
        ("signals", "list", "--limit", "99999999999999999999"),
        ("signals", "waits", "--limit", "0"),
    ],
)
def test_a_number_out_of_its_range_is_refused(line: Line, arguments: tuple[str, ...]) -> None:
    assert "Invalid value" in line(*arguments, code=2)


@pytest.mark.usefixtures("store")
def test_names_are_shown_as_they_are(line: Line) -> None:
    line("signals", "emit", "ops:warning:", "-p", "note=:bomb: [red]")
    assert "ops:warning:" in line("signals", "list")
    assert "note=:bomb: [red]" in line("signals", "list")
    assert "'x:warning:'" in line("signals", "lineage", "x:warning:", "1", code=1)


@pytest.mark.usefixtures("store")
def test_a_value_is_shown_in_its_line_whatever_it_is(line: Line) -> None:
    line("signals", "emit", "fact", "-p", "note=a\nb\x1b[2J\u00fc")
    shown = r"note=a\nb\x1b[2J" + "\u00fc"
    for arguments in (("signals", "list"), ("signals", "lineage", "fact", "1")):
        assert shown in line(*arguments)


def test_upgrade_names_the_store(line: Line, store: Store) -> None:
    say(store, "fact")
    assert store.store_id in line("store", "upgrade")


def test_lineage_follows_a_signal_down_and_up(line: Line, store: Store) -> None:
    emitted = say(store, "fact", hour=6).signal
    identity = wait_id(TASK, max_tries=0)
    open_wait(store, identity, read_dependencies([{"name": "fact"}]), TASK, timeout=WEEK)
    release(store, identity, [emitted])

    assert f"wait {identity} released, dag run task" in line("signals", "lineage", "fact", "1")
    assert line.json("signals", "lineage", "fact", "1", "--up", "--json")["title"] == "fact 1 (hour=6)"
    assert "no signal 'fact' 2" in line("signals", "lineage", "fact", "2", code=1)


def test_subscriptions_are_shown_and_closed(line: Line, store: Store) -> None:
    with store.write() as conn:
        subscribe(conn, "orders", read_dependencies([{"name": "fact", "match": {"region": "eu"}}]))

    (shown,) = line.json("subscriptions", "list", "--json")
    assert (shown["name"], shown["state"], shown["signals"]) == ("orders", "open", ["fact where region = eu"])
    assert "is closed" in line("subscriptions", "close", "orders")
    assert line.json("subscriptions", "list", "--json")[0]["state"] == "closed"
    assert "no subscription 'other'" in line("subscriptions", "close", "other", code=1)


def test_clean_says_what_would_go_and_then_removes_it(line: Line, store: Store) -> None:
    for n in range(3):
        say(store, "fact", n=n)
    with store.write() as conn:
        conn.execute(update(signal).values(created_at=dt.datetime(2020, 1, 1, tzinfo=UTC)))
    would = line.json("store", "clean", "--older-than", "90d", "--dry-run", "--json")
    assert {row["table"]: row["rows"] for row in would}["signal"] == 2
    assert len(line.json("signals", "list", "--json")) == 3
    assert "removed:" in line("store", "clean", "--older-than", "90d")
    assert [s["seq"] for s in line.json("signals", "list", "--json")] == [3]
    assert "is no length of time" in line("store", "clean", "--older-than", "soon", code=1)
    for age in ("999999d", "99999999999999d"):
        assert f"{age!r} is too long" in line("store", "clean", "--older-than", age, code=1)
