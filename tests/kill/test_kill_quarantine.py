"""SIGKILL at every commit and file write of a session that puts rows aside: each row ends in one of the two tables, once."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import attrs

from airflow_incremental.audits import Between
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.locks import end_session
from airflow_incremental.iceberg.seal import find_sealed
from airflow_incremental.iceberg.state import is_publish_of, words_of
from airflow_incremental.iceberg.sweep import leftovers, sweep
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Process, Session
from airflow_incremental.sessions.quarantine import quarantine_all, settle_process
from tests.kill.test_kill import NOW
from tests.support.killing import Child
from tests.support.quarantine import QUARANTINE, check_split, plain, quarantined_rows, staged_refs
from tests.support.world import World

LOW = Between("v10", 0, 200, severity="quarantine", name="low")


def offends(row: tuple[Any, ...]) -> list[str]:
    return ["low"] if row[3] > 200 else []


def process_of(world: World, run_id: str) -> Process:
    # How results are kept through kills is tested by itself.
    return world.process(run_id, audits=(LOW,), audit_table=False)


def run_session(home: Path, run_id: str) -> None:
    """What a task process does: one run of all steps."""
    steps.run(process_of(World(home=home), run_id))


class Restored:
    """A world with one published session that put rows aside, and rows that came since; put back as often as needed."""

    def __init__(self, home: Path) -> None:
        self.home, self.kept = home, home.with_name("kept")
        self.world = World(home=home).set_up()
        self.world.land(0.1, 0.2, 1.5, 2.5)
        steps.run(process_of(self.world, "first"))
        check_split(self.world, offends)
        self.world.land(1.7, 3.2, 3.3, 0.4, 0.5)
        shutil.copytree(home, self.kept)

    def __call__(self) -> World:
        shutil.rmtree(self.home)
        shutil.copytree(self.kept, self.home)
        return attrs.evolve(self.world)


def moments(events: list[str], *, since: int) -> list[int]:
    """Return at which events to kill, from a commit on: before every commit and every file of rows, and after the last commit.

    After a commit the world is what it is before the next thing; files of metadata make no other state.
    """
    done = [at for at, e in enumerate(events, 1) if e == "after commit"]
    return [
        at for at, e in enumerate(events, 1) if at > done[since - 1] and e in ("before commit", "before parquet")
    ] + done[-1:]


def swept(world: World) -> None:
    for table in (world.target, world.catalog.load_table(QUARANTINE)):
        sweep(table, older_than=NOW)
        assert leftovers(table, older_than=NOW) == []


def test_killed_anywhere_the_retry_or_the_next_run_converges(tmp_path: Path) -> None:
    restored = Restored(tmp_path / "world")
    restored()
    probe = Child(run_session, restored.home, "second")
    assert probe.wait() == 0
    # Lock, seal, stage, seal of the rest, publish, release.
    assert probe.events.count("before commit") == 6
    check_split(restored.world, offends)
    # Up to its first seal, such a session is like any other.
    for number, at in enumerate(moments(probe.events, since=2)):
        world = restored()
        child = Child(run_session, restored.home, "second", at=at)
        assert child.wait() == -9, f"event {at}: {child.events[-1]}"
        assert not any(map(offends, world.target_rows())), "what offends is never visible"
        run = "third" if number % 3 == 1 else "second"
        if run == "third":
            world.land(0.9, 4.5, 4.6)
        assert steps.run(process_of(world, run)).did_publish, probe.events[at - 1]
        check_split(world, offends)
    assert steps.run(process_of(world, run)).outcome == "already_published"
    swept(world)
    check_split(world, offends)


def test_a_try_that_wakes_up_late_changes_nothing(tmp_path: Path) -> None:
    restored = Restored(tmp_path / "world")
    restored()
    probe = Child(run_session, restored.home, "second")
    assert probe.wait() == 0
    commits = [at for at, e in enumerate(probe.events, 1) if e == "before commit"]
    for at, run in zip(commits[2:], ("second", "third", "second", "third"), strict=True):
        world = restored()
        sleeper = Child(run_session, restored.home, "second", at=at, sig=signal.SIGSTOP)
        assert sleeper.wait_stopped()
        steps.run(process_of(world, run))
        check_split(world, offends)
        sleeper.go_on()
        # It finds its session published, or that it holds the lock no more.
        assert sleeper.events[-1] == "done" if sleeper.wait() == 0 else "taken over" in sleeper.events[-1]
        steps.run(process_of(world, "last"))
        check_split(world, offends)


def reject(home: Path) -> None:
    """What follows a person's no, from the sealed session on; done again, it goes on where it stopped."""
    world = World(home=home)
    opened = plan(process_of(world, "second"))
    assert isinstance(opened, Session)
    steps.audit(opened, steps.load(opened))
    sealed = find_sealed(world.target, opened.plan)
    assert sealed is not None
    quarantine_all(opened, sealed, "rejected")
    end_session(opened.process.catalog, opened.begin, keep=True, reason="rejected")
    settle_process(opened.process)


def test_killed_anywhere_while_a_session_is_rejected(tmp_path: Path) -> None:
    restored = Restored(tmp_path / "world")
    world = restored()
    rejected = world.oracle(row for row in world.source_rows() if row[0] > 4)
    before = len(quarantined_rows(world))
    probe = Child(reject, restored.home)
    assert probe.wait() == 0
    after_end = 0
    # Lock, seal, stage and seal of the rest come before.
    for at in moments(probe.events, since=4):
        world = restored()
        assert Child(reject, restored.home, at=at).wait() == -9
        if "inc_proc" in world.target.metadata.refs:
            reject(restored.home)
        else:
            settle_process(process_of(world, "second"))
            after_end += 1
        rows = [row for row in quarantined_rows(world) if row["quarantine_session"] not in published_sessions(world)]
        assert Counter(map(plain, rows)) == rejected, probe.events[at - 1]
        assert len(quarantined_rows(world)) == before + len(rows)
        assert staged_refs(world) == []
    assert after_end > 1
    swept(world)


def published_sessions(world: World) -> set[str]:
    return {
        words_of(snapshot)[naming.SESSION] for snapshot in main_lineage(world.target) if is_publish_of(snapshot, "proc")
    }
