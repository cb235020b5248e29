"""SIGSTOP a session, let the retry or the next run publish, SIGCONT: the sleeper changes nothing it no longer owns."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.kill.test_kill import Restored, events_of_a_session, run_session
from tests.support.killing import Child
from tests.support.modes import MODES
from tests.support.world import World


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("successor", ["second", "third"], ids=["retry", "next run"])
def test_the_sleeper_changes_nothing(tmp_path: Path, mode: str, successor: str) -> None:
    events = events_of_a_session(tmp_path, mode)
    stops = [i + 1 for i, e in enumerate(events) if e in ("before commit", "before parquet")]
    home = tmp_path / "world"
    restored = Restored(home, mode)
    for at in stops:
        world = restored()
        child = Child(run_session, home, mode, "second", at=at, sig=signal.SIGSTOP)
        assert child.wait_stopped()
        if successor == "third":
            world.land(0.9, 4.5)
        assert steps.run(world.process(successor)).did_publish
        world.check()
        state = world.target.metadata
        child.go_on()
        child.wait()
        assert world.target.metadata.current_snapshot_id == state.current_snapshot_id
        assert world.target.metadata.properties == state.properties
        world.check()
        assert steps.run(world.process("fourth")).outcome == "nothing_to_do"


def run_wrong_session(home: Path, mode: str, run_id: str) -> None:
    """A run of all steps before the author has corrected the transform."""
    wrong = "SELECT id, ts, region, v * 10 - 1 AS v10 FROM events"
    steps.run(World(home=home, mode=mode).process(run_id, transform=wrong))


def test_what_an_older_transform_made_is_not_sealed_over_a_later_trys_output(tmp_path: Path) -> None:
    """The sleeper wakes when the retry, with the corrected transform, has sealed and not published yet."""
    events = events_of_a_session(tmp_path, "append")
    locked = events.index("after commit") + 1
    published = len(events) - events[::-1].index("before commit")
    home = tmp_path / "world"
    restored = Restored(home, "append")
    for at in range(locked, published + 1):
        world = restored()
        child = Child(run_wrong_session, home, "append", "second", at=at, sig=signal.SIGSTOP)
        assert child.wait_stopped()
        session = plan(world.process("second"))
        assert isinstance(session, Session)
        sealed = steps.load(session)
        child.go_on()
        child.wait()
        assert "taken over by a later try" in child.events[-1], events[at - 1]
        assert steps.load(session) == sealed
        steps.publish(session, steps.audit(session, sealed))
        world.check()
