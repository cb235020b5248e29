"""The traps of pyiceberg 0.12 that a load can fall into, each with proof that a session does not.

Numbers are those of the list in docs/iceberg-traps.md.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import AssertRefSnapshotId, SetSnapshotRefUpdate

from airflow_incremental.core.errors import SessionSuperseded
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.publish import SealOutdated
from airflow_incremental.iceberg.publish import publish as commit_publish
from airflow_incremental.iceberg.seal import find_sealed
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Process, Session
from tests.support.tables import expire
from tests.support.world import World


def open_session(process: Process) -> Session:
    session = plan(process)
    assert isinstance(session, Session)
    return session


def test_t1_sessions_on_branches_of_one_table_do_not_fail_each_other(tmp_path: Path) -> None:
    """Commits to different branches race for the sequence number; pyiceberg raises a bare ValueError and gives up."""
    world = World(home=tmp_path).set_up()
    worlds = [World(home=tmp_path, name=f"p{i}", policies={"initial": {"adopt": "all"}}) for i in range(4)]
    world.land(0, 1, 2)
    errors: list[BaseException] = []

    def work(one: World) -> None:
        try:
            for n in range(3):
                steps.run(one.process(f"{one.name}-{n}"))
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(w,)) for w in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    expected = world.oracle(world.source_rows())
    assert world.target_rows() == {row: 4 * n for row, n in expected.items()}


def test_t2_a_retried_append_does_not_land_twice(tmp_path: Path) -> None:
    """pyiceberg's retry applies an append again to whatever main has become; here two tries of one session give one publish."""
    world = World(home=tmp_path).set_up()
    world.land(0, 1)
    first, second = world.process("r"), world.process("r")
    a = open_session(first)
    report = steps.audit(a, steps.load(a))
    b = open_session(second)
    assert a.plan == b.plan, "the retry resumes"
    with pytest.raises(SessionSuperseded):
        steps.publish(a, report)
    assert steps.publish(b, steps.audit(b, steps.load(b))).did_publish
    assert steps.publish(a, report).did_publish, "it finds the publish of its session"
    world.check()


def test_t3_a_watermark_never_goes_back(tmp_path: Path) -> None:
    """pyiceberg's retry replays set_properties blindly: an older watermark overwrites a newer one."""
    world = World(home=tmp_path).set_up()
    world.land(0)
    old = open_session(world.process("old"))
    report = steps.audit(old, steps.load(old))
    world.land(1)
    steps.run(world.process("new"))
    newest = published(world.target, "proc")
    with pytest.raises(SessionSuperseded):
        steps.publish(old, report)
    assert published(world.target, "proc") == newest
    world.check()


def test_t4_both_the_data_branch_and_main_are_asserted(tmp_path: Path) -> None:
    """pyiceberg de-duplicates requirements by class, so one of two ref assertions is dropped."""
    world = World(home=tmp_path).set_up()
    world.land(0)
    session = open_session(world.process())
    report = steps.audit(session, steps.load(session))
    sealed = find_sealed(world.target, session.plan)
    assert sealed is not None
    table = world.target
    table.append(table.scan().to_arrow(), branch=naming.data_ref("proc", session.plan.session))
    with pytest.raises(SealOutdated):
        commit_publish(world.catalog, session.begin, sealed, verdict="passed")
    assert report.snapshot_id == sealed.snapshot_id
    assert world.target_rows() == {}


def test_t5_a_publish_does_not_throw_away_a_newer_main(tmp_path: Path) -> None:
    """set_current_snapshot has no fast-forward check and silently drops what main got meanwhile."""
    world = World(home=tmp_path).set_up()
    world.land(0, 1)
    session = open_session(world.process())
    report = steps.audit(session, steps.load(session))
    foreign = World(home=tmp_path)
    foreign.target.append(world.target.scan().to_arrow().schema.empty_table())
    import pyarrow as pa

    row = pa.Table.from_pylist([{"id": -1, "ts": None, "region": "zz", "v10": 0}], schema=world.target_schema)
    foreign.target.append(row)
    assert steps.publish(session, report).did_publish
    rows = world.target_rows()
    assert rows.pop((-1, None, "zz", 0)) == 1
    assert rows == world.oracle(world.source_rows())


def test_t6_no_branch_without_a_parent(tmp_path: Path) -> None:
    """append(branch=...) of a branch that does not exist makes an orphan; publishing it would drop main's rows."""
    world = World(home=tmp_path).set_up()
    world.land(0)
    steps.run(world.process())
    world.land(1)
    session = open_session(world.process(transform=None))
    branch = naming.scratch_ref("proc", session.plan.session)
    assert world.target.metadata.refs[branch].snapshot_id == session.plan.main, "the scratch branch is forked from main"
    index = {s.snapshot_id: s for s in world.target.metadata.snapshots}
    assert index[session.begin.snapshot_id].parent_snapshot_id == session.plan.main


def test_t9_expiry_on_the_target_does_not_lose_the_watermark(tmp_path: Path) -> None:
    """Expiry nulls the parent of the next snapshot and cuts the lineage; the tag keeps the publish, the property names it."""
    world = World(home=tmp_path).set_up()
    world.land(0, 1)
    steps.run(world.process())
    mine = published(world.target, "proc")
    assert mine is not None
    empty = world.target.scan().to_arrow().schema.empty_table()
    for _ in range(3):
        world.target.append(empty)
    table = world.target
    keep = {table.metadata.current_snapshot_id, mine.snapshot_id}
    expire(table, [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id not in keep])
    found = published(world.target, "proc")
    assert found is not None
    assert found.session == mine.session
    assert found.watermark == mine.watermark
    world.land(0.5, 2)
    assert steps.run(world.process()).did_publish
    world.check()


def test_t10_history_grows_by_one_snapshot_a_session(tmp_path: Path) -> None:
    """Every commit costs what the history is long; scratch snapshots must not stay in it."""
    world = World(home=tmp_path).set_up()
    world.land(0)
    steps.run(world.process())
    before = len(world.target.metadata.snapshots)
    for n in range(5):
        world.land(n)
        steps.run(world.process())
    assert len(world.target.metadata.snapshots) == before + 5


def test_a_begin_record_cannot_turn_sequence_numbers_back(tmp_path: Path) -> None:
    """pyiceberg takes a snapshot without a parent at any sequence number, and the table's counter with it."""
    world = World(home=tmp_path).set_up()
    for n in range(3):
        world.land(n)
        session = open_session(world.process())
        world.target.append(world.target.scan().to_arrow().schema.empty_table())
        steps.publish(session, steps.audit(session, steps.load(session)))
    numbers = [s.sequence_number for s in world.target.metadata.snapshots]
    assert len(set(numbers)) == len(numbers)
    assert world.target.metadata.last_sequence_number == max(n or 0 for n in numbers)


def test_a_hand_moved_ref_is_refused_by_the_catalog(tmp_path: Path) -> None:
    """The fence itself: a commit that asserts the lock fails once somebody else has it."""
    world = World(home=tmp_path).set_up()
    world.land(0)
    session = open_session(world.process())
    with pytest.raises(CommitFailedException):
        world.catalog.commit_table(
            world.target,
            (AssertRefSnapshotId(ref=naming.lock_ref("proc"), snapshot_id=1),),
            (SetSnapshotRefUpdate(ref_name="x", type="branch", snapshot_id=session.plan.main),),
        )
