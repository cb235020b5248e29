"""SIGKILL at every catalog commit and every file write of a rollback, a set and a reset: doing it again does it once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.state import published, words_of
from airflow_incremental.iceberg.sweep import leftovers, sweep
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.undoing import undo
from airflow_incremental.sessions.watermarks import reset_watermark, set_watermark
from tests.kill.test_kill import NOW, places
from tests.support.by_hand import ACT, last_of, loaded_twice
from tests.support.killing import Child
from tests.support.modes import MODES, world_of
from tests.support.world import TARGET, World


def roll_back(home: Path, mode: str, session: str) -> None:
    """What the command does: all of it."""
    undo(world_of(home, mode).catalog, TARGET, "proc", session, act=ACT)


def set_back(home: Path, mode: str, session: str) -> None:
    set_watermark(world_of(home, mode).catalog, TARGET, "proc", {"events": session}, act=ACT, append_again=True)


def reset(home: Path, mode: str, session: str) -> None:  # noqa: ARG001  (all three are called alike)
    reset_watermark(world_of(home, mode).catalog, TARGET, "proc", act=ACT)


def acts(world: World) -> list[str]:
    """Return what people did to the target, by its snapshots."""
    found = map(words_of, world.target.metadata.snapshots)
    return [words[naming.KIND] for words in found if naming.BY in words]


#: A set or a reset touches no file of rows, so two modes stand for all.
CASES = [
    *((roll_back, "rollback", mode) for mode in MODES),
    *((act, kind, mode) for act, kind in ((set_back, "set"), (reset, "reset")) for mode in ("append", "stateful")),
]


@pytest.mark.parametrize(("act", "kind", "mode"), CASES)
def test_killed_anywhere_doing_it_again_does_it_once(
    tmp_path: Path, act: Callable[[Path, str, str], None], kind: str, mode: str
) -> None:
    home, kept = tmp_path / "world", tmp_path / "kept"
    world, (one, two) = loaded_twice(home, mode)
    at = one.watermark.positions["events"].snapshot_id
    pin = naming.pin_tag("proc", "events")
    world.source.manage_snapshots().create_tag(two.watermark.positions["events"].snapshot_id or 0, pin).commit()
    argument = two.session if kind == "rollback" else str(at)
    before = world.target_rows()
    shutil.copytree(home, kept)
    probe = Child(act, home, mode, argument)
    assert probe.wait() == 0, probe.events
    events = [e for e in probe.events if e != "done"]
    assert events.count("before commit") == (1 if kind == "reset" else 2), "the commit, and the pin"
    after, state = world.target_rows(), published(world.target, "proc")
    for n in places(events):
        shutil.rmtree(home)
        shutil.copytree(kept, home)
        child = Child(act, home, mode, argument, at=n)
        assert child.wait() == -9, f"event {n}: {child.events[-1]}"
        assert world.target_rows() in (before, after), f"killed {events[n - 1]}: all or nothing"
        act(home, mode, argument)
        assert world.target_rows() == after
        assert acts(world) == [kind], f"killed {events[n - 1]}: once"
        now = published(world.target, "proc")
        assert (now and now.watermark) == (state and state.watermark)
        wanted = two if kind == "reset" else one
        assert world.source.metadata.refs[pin].snapshot_id == wanted.watermark.positions["events"].snapshot_id
        sweep(world.target, older_than=NOW)
        assert leftovers(world.target, older_than=NOW) == []
        assert world.target_rows() == after
    if kind == "rollback":
        steps.run(world.process())
        world.check()
        assert last_of(world).watermark.positions["events"] == two.watermark.positions["events"]
