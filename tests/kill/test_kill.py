"""SIGKILL at every catalog commit and every file write of a session: the retry converges, nothing is lost, doubled or left over."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import attrs
import pytest

from airflow_incremental.core.audit import AuditReport
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.iceberg.sweep import leftovers, sweep
from airflow_incremental.sessions import steps
from tests.support.killing import Child
from tests.support.modes import IN_PARTS, MODES, world_of
from tests.support.world import World

NOW = dt.timedelta(0)


ALL = pytest.mark.parametrize("mode", [*MODES, "overwrite in chunks"])


def run_session(home: Path, mode: str, run_id: str) -> None:
    """What a task process does: one run of all steps."""
    steps.run(world_of(home, mode).process(run_id, keep_parts_every=0.0))


def prepared(home: Path, mode: str) -> World:
    """A world with one published session, and on-time and late rows that came since."""
    world = world_of(home, mode).set_up()
    world.land(0.1, 0.2, 1.5, 2.5)
    world.land(0.3, region="us")
    steps.run(world.process("first"))
    world.check()
    world.land(1.7, 3.2)
    world.land(3.3, 0.4)
    return world


class Restored:
    """A prepared world that is put back as it was, at the same path (table metadata holds absolute ones), as often as needed."""

    def __init__(self, home: Path, mode: str) -> None:
        self.home, self.world = home, prepared(home, mode)
        self.kept = home.with_name(f"{home.name}-kept")
        shutil.copytree(home, self.kept)

    def __call__(self) -> World:
        """Return the world as it was prepared."""
        shutil.rmtree(self.home)
        shutil.copytree(self.kept, self.home)
        return attrs.evolve(self.world)


def events_of_a_session(tmp_path: Path, mode: str) -> list[str]:
    prepared(tmp_path / "probe", mode)
    child = Child(run_session, tmp_path / "probe", mode, "second")
    assert child.wait() == 0
    return [e for e in child.events if e != "done"]


def places(events: list[str]) -> list[int]:
    """Return the numbers of the events at which to kill: after something was done the world is what it is before the next thing."""
    return [*(n for n, name in enumerate(events, start=1) if name.startswith("before")), len(events)]


@ALL
def test_killed_anywhere_the_retry_converges(tmp_path: Path, mode: str) -> None:
    events = events_of_a_session(tmp_path, mode)
    if mode not in IN_PARTS:  # which keep each finished one here
        assert events.count("before commit") <= 4, "a whole session makes at most four commits"
    home = tmp_path / "world"
    restored = Restored(home, mode)
    for at in places(events):
        world = restored()
        child = Child(run_session, home, mode, "second", at=at)
        assert child.wait() == -9, f"event {at}: {child.events[-1]}"
        retried = steps.run(world.process("second"))
        assert retried.did_publish, events[at - 1]
        world.check()
        again = steps.run(world.process("second"))
        assert again.outcome == "already_published"
        published = [s for s in world.target.metadata.snapshots if s.summary and s.summary.get("incremental.session")]
        assert len(published) == 2, f"killed {events[at - 1]}: one publish per session"
        sweep(world.target, older_than=NOW)
        assert leftovers(world.target, older_than=NOW) == []
        world.check()


@ALL
def test_killed_anywhere_the_next_run_takes_over(tmp_path: Path, mode: str) -> None:
    """The run never comes back: the next one takes its lock over and loads old and new changes together."""
    events = events_of_a_session(tmp_path, mode)
    home = tmp_path / "world"
    restored = Restored(home, mode)
    for at in places(events)[::2]:
        world = restored()
        child = Child(run_session, home, mode, "second", at=at)
        assert child.wait() == -9
        world.land(0.9, 4.5)
        assert steps.run(world.process("third")).did_publish
        world.check()


def test_a_retry_killed_while_it_renews_the_lock(tmp_path: Path) -> None:
    events = events_of_a_session(tmp_path, "append")
    locked = events.index("after commit") + 1
    home = tmp_path / "world"
    restored = Restored(home, "append")
    restored()
    assert Child(run_session, home, "append", "second", at=locked).wait() == -9
    retry = Child(run_session, home, "append", "second")
    assert retry.wait() == 0
    for at in range(1, retry.events.index("after commit") + 2):
        world = restored()
        assert Child(run_session, home, "append", "second", at=locked).wait() == -9
        child = Child(run_session, home, "append", "second", at=at)
        assert child.wait() == -9, f"event {at}: {child.events[-1]}"
        assert steps.run(world.process("second")).did_publish
        world.check()
        sweep(world.target, older_than=NOW)
        assert leftovers(world.target, older_than=NOW) == []


def fail_audit(home: Path, mode: str) -> None:
    """Run a session whose blocking audit fails."""
    from airflow_incremental.audits import NotNull

    world = World(home=home, mode=mode)
    column = "v10" if mode == "append" else "total"
    sql = world.process("second").transform
    assert isinstance(sql, str)
    broken = f"SELECT * REPLACE (NULL::BIGINT AS {column}) FROM ({sql})"
    try:
        steps.run(world.process("second", transform=broken, audits=(NotNull(column),)))
    except AuditFailed:
        return
    raise AssertionError


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_killed_while_a_failed_session_ends(tmp_path: Path, mode: str) -> None:
    """A failed audit publishes nothing, wherever it dies; the repaired transform then loads everything."""
    prepared(tmp_path / "probe", mode)
    child = Child(fail_audit, tmp_path / "probe", mode)
    assert child.wait() == 0
    events = [e for e in child.events if e != "done"]
    home = tmp_path / "world"
    restored = Restored(home, mode)
    for at in range(len(events) - 3, len(events) + 1):
        world = restored()
        before = world.target_rows()
        assert Child(fail_audit, home, mode, at=at).wait() == -9
        assert world.target_rows() == before, "nothing unaudited is visible"
        assert steps.run(world.process("third")).did_publish
        world.check()


def test_a_report_of_another_snapshot_is_not_believed(tmp_path: Path) -> None:
    world = prepared(tmp_path, "append")
    from airflow_incremental.audits import NotNull

    process = world.process(
        "second", transform="SELECT id, ts, region, NULL::BIGINT AS v10 FROM events", audits=(NotNull("v10"),)
    )
    from airflow_incremental.sessions.planner import plan
    from airflow_incremental.sessions.process import Session

    session = plan(process)
    assert isinstance(session, Session)
    steps.load(session)
    with pytest.raises(AuditFailed):
        steps.publish(session, AuditReport(snapshot_id=1, rows=None))
