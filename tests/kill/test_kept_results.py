"""SIGKILL at every catalog commit and file write of an audit step: a retry keeps each result once, and the load goes on."""

from __future__ import annotations

import datetime as dt
import shutil
from collections import Counter
from pathlib import Path

import attrs
import pytest

from airflow_incremental.audits import NotNull, RowCount
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.iceberg.seal import find_sealed
from airflow_incremental.iceberg.sweep import leftovers, sweep
from airflow_incremental.sessions import auditing, steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Process, Session
from tests.support.killing import Child
from tests.support.world import TARGET, World

NOW = dt.timedelta(0)
NAME = f"{TARGET}__audits"


def process_of(world: World, *, fails: bool) -> Process:
    return world.process("second", audits=(NotNull("id"), RowCount(min=9 if fails else 1)))


def audit_step(home: Path, fails: bool) -> None:
    """What the audit task of a group does, on a session that is sealed."""
    process = process_of(World(home=home), fails=fails)
    session = plan(process)
    assert isinstance(session, Session)
    sealed = find_sealed(process.catalog.load_table(TARGET), session.plan)
    assert sealed is not None
    try:
        auditing.audit(session, sealed)
    except AuditFailed:
        assert fails


def prepared(home: Path, *, fails: bool, first: bool) -> World:
    """A world with a sealed session, and with earlier results unless it is the ``first`` that keeps some."""
    world = World(home=home).set_up()
    world.land(0.1, 0.2)
    steps.run(world.process("first", audits=() if first else (NotNull("id"),)))
    world.land(1.7, 0.4, 3.2)
    session = plan(process_of(world, fails=fails))
    assert isinstance(session, Session)
    steps.load(session)
    return world


def kept(world: World) -> Counter[tuple[str, str]]:
    """Session and audit of each result that is kept, with how often it is."""
    rows = world.catalog.load_table(NAME).scan().to_arrow().select(["session", "audit"]).to_pylist()
    return Counter((r["session"], r["audit"]) for r in rows)


class Killed:
    """An audit step that is killed at one event after the other, each time in a world as it was prepared."""

    def __init__(self, tmp_path: Path, *, fails: bool, first: bool) -> None:
        self.home, self.pristine, self.fails = tmp_path / "world", tmp_path / "pristine", fails
        self.world = prepared(self.home, fails=fails, first=first)
        shutil.copytree(self.home, self.pristine)
        whole = Child(audit_step, self.home, fails)
        assert whole.wait() == 0, whole.events[-1]
        self.events = [e for e in whole.events if e != "done"]

    def at(self, event: int) -> World:
        """Kill the step at an event, counted from 1."""
        shutil.rmtree(self.home)
        shutil.copytree(self.pristine, self.home)
        child = Child(audit_step, self.home, self.fails, at=event)
        assert child.wait() == -9, f"event {event}: {child.events[-1]}"
        return attrs.evolve(self.world)


def test_killed_anywhere_each_result_is_kept_once(tmp_path: Path) -> None:
    killed = Killed(tmp_path, fails=False, first=True)
    renewed = killed.events.index("after commit") + 1  # the retry's lock, which other tests kill
    assert "before parquet" in killed.events[renewed:]
    for at in range(renewed + 1, len(killed.events) + 1):
        world = killed.at(at)
        audit_step(killed.home, fails=False)
        assert list(kept(world).values()) == [1, 1], killed.events[at - 1]
        table = world.catalog.load_table(NAME)
        sweep(table, older_than=NOW)
        assert leftovers(table, older_than=NOW) == []
    assert steps.run(process_of(world, fails=False)).did_publish
    world.check()
    assert list(kept(world).values()) == [1, 1]


def test_killed_between_what_failed_and_the_end_of_its_session(tmp_path: Path) -> None:
    killed = Killed(tmp_path, fails=True, first=False)
    recorded = len(killed.events) - killed.events[::-1].index("after commit", 1)
    for at in range(recorded, len(killed.events) + 1):
        world = killed.at(at)
        before = world.target_rows()
        assert len(kept(world)) == 3
        with pytest.raises(AuditFailed):
            steps.run(process_of(world, fails=True))
        assert world.target_rows() == before
        # Killed after the session had ended, the run planned the same changes anew, as another one.
        assert list(kept(world).values()) == [1] * (5 if at == len(killed.events) else 3)
