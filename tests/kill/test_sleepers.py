"""SIGSTOP a session, let the retry or the next run publish, SIGCONT: the sleeper changes nothing it no longer owns."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from airflow_incremental.sessions import steps
from tests.kill.test_kill import Restored, events_of_a_session, run_session
from tests.support.killing import Child


@pytest.mark.parametrize("mode", ["append", "overwrite"])
@pytest.mark.parametrize("successor", ["second", "third"], ids=["retry", "next run"])
def test_the_sleeper_changes_nothing(tmp_path: Path, mode: str, successor: str) -> None:
    events = events_of_a_session(tmp_path, mode)
    stops = [i + 1 for i, e in enumerate(events) if e in ("before commit", "before parquet", "after parquet")]
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
