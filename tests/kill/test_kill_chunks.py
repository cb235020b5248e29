"""Workers that share the chunks of a session, side by side, killed anywhere: the load takes what is there and computes the rest."""

from __future__ import annotations

import datetime as dt
import shutil
import signal
from pathlib import Path

import attrs
import pytest

from airflow_incremental.iceberg.progress import done_parts
from airflow_incremental.iceberg.sweep import leftovers, sweep
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.killing import Child
from tests.support.modes import world_of
from tests.support.world import World

NOW = dt.timedelta(0)
MODES = pytest.mark.parametrize("mode", ["append in chunks", "overwrite in chunks"])


def work(home: Path, mode: str, session: str, *chunks: int) -> None:
    """What a mapped task does, for one chunk after the other."""
    opened = steps.resume(world_of(home, mode).process("run"), session, again=False)
    assert isinstance(opened, Session)
    for chunk in chunks:
        steps.load_chunk(opened, chunk)


def planned(home: Path, mode: str) -> tuple[World, Session]:
    world = world_of(home, mode).set_up()
    world.land(0.1, 0.2, 1.5, 2.5, 4.5)
    world.land(0.3, 3.3, region="us")
    session = plan(world.process("run"))
    assert isinstance(session, Session)
    assert len(session.plan.chunks) == 3
    return world, session


def test_a_worker_killed_anywhere(tmp_path: Path) -> None:
    mode = "overwrite in chunks"
    home, kept = tmp_path / "world", tmp_path / "kept"
    world, session = planned(home, mode)
    shutil.copytree(home, kept)
    child = Child(work, home, mode, session.plan.session, 1)
    assert child.wait() == 0
    events = [e for e in child.events if e != "done"]
    assert events.count("before commit") == 1, "a chunk is one commit"
    for at in range(1, len(events) + 1):
        shutil.rmtree(home)
        shutil.copytree(kept, home)
        world = attrs.evolve(world)
        assert Child(work, home, mode, session.plan.session, 1, at=at).wait() == -9, events[at - 1]
        landed = "after commit" in events[:at]
        assert len(done_parts(world.target, session.plan, None)) == int(landed)
        # The other workers, a retry of this one, and the load.
        assert Child(work, home, mode, session.plan.session, 2, 0, 1).wait() == 0
        assert steps.run(world.process("run")).did_publish
        world.check()
        sweep(world.target, older_than=NOW)
        assert leftovers(world.target, older_than=NOW) == []
        world.check()


@MODES
def test_workers_side_by_side(tmp_path: Path, mode: str) -> None:
    """Each commits beside the others; two tries of one chunk, and one that is killed, among them."""
    for killed_at in (None, 2, 5):
        home = tmp_path / f"world-{killed_at}"
        world, session = planned(home, mode)
        workers = [
            Child(work, home, mode, session.plan.session, 0),
            Child(work, home, mode, session.plan.session, 1),
            Child(work, home, mode, session.plan.session, 1),
            Child(work, home, mode, session.plan.session, 2, at=killed_at),
        ]
        assert [worker.wait() for worker in workers] == [0, 0, 0, 0 if killed_at is None else -9]
        assert steps.run(world.process("run")).did_publish
        world.check()


@MODES
def test_a_worker_that_wakes_up_when_its_session_is_over(tmp_path: Path, mode: str) -> None:
    """Stopped at each of its events, and woken after another run has published: nothing of it is left."""
    home = tmp_path / "world"
    world, session = planned(home, mode)
    kept = tmp_path / "kept"
    shutil.copytree(home, kept)
    child = Child(work, home, mode, session.plan.session, 1)
    assert child.wait() == 0
    count = len([e for e in child.events if e != "done"])
    for at in range(1, count + 1, 2):
        shutil.rmtree(home)
        shutil.copytree(kept, home)
        world = attrs.evolve(world)
        sleeper = Child(work, home, mode, session.plan.session, 1, at=at, sig=signal.SIGSTOP)
        assert sleeper.wait_stopped()
        world.land(1.1)
        assert steps.run(world.process("other")).did_publish
        world.check()
        sleeper.go_on()
        sleeper.wait()
        world.check()
