"""Attempts of Spark applications: one branch counts, and what a late application makes of the others matters to nobody."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH

from airflow_incremental.core.errors import SessionSuperseded, TargetChanged
from airflow_incremental.core.spark_job import DONE, DRIVER, DRIVER_REPORT, FAILED
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.attempts import Attempt, attempts, begin_attempt, end_of
from airflow_incremental.iceberg.locks import end_session, renew_lock
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.tables import expire
from tests.support.world import World, hour


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(home=tmp_path).set_up()
    found.land(0, 1)
    steps.run(found.process())
    found.land(2)
    return found


def opened(world: World, **changes: Any) -> Session:
    session = plan(world.process(**changes))
    assert isinstance(session, Session)
    return session


def begun(world: World, session: Session) -> Attempt:
    return begin_attempt(world.catalog, session.begin)


def written(table: Table, branch: str, count: int = 1, **properties: str) -> list[int]:
    """Append rows to a branch, as an application does, and return the snapshot."""
    row = {"id": 99, "ts": hour(2), "region": "eu", "v10": 1}
    rows = pa.Table.from_pylist([row] * count, schema=table.schema().as_arrow())
    table.append(rows, branch=branch, snapshot_properties=properties)
    return [table.metadata.refs[branch].snapshot_id]


def woken(world: World, branch: str) -> int:
    """Let an application commit that has not noticed that its branch is gone: Java makes it again, on what ``main`` is now."""
    table = world.target
    table.manage_snapshots().create_branch(table.metadata.refs[MAIN_BRANCH].snapshot_id, branch).commit()
    written(world.target, branch)
    return world.target.metadata.refs[branch].snapshot_id


def test_each_attempt_has_a_branch_of_its_own_and_the_next_one_drops_it(world: World) -> None:
    session = opened(world)
    first = begun(world, session)
    assert (first.number, first.branch) == (1, naming.scratch_ref("proc", session.plan.session, attempt=1))
    assert world.target.metadata.refs[first.branch].snapshot_id == session.plan.main
    snapshots = [*written(world.target, first.branch), *written(world.target, first.branch)]
    before = len(world.target.metadata.metadata_log)
    second = begun(world, session)
    table = world.target
    assert attempts(table, session.plan) == [second]
    assert second.number == 2
    assert len(table.metadata.metadata_log) == before + 1, "one commit"
    assert {s.snapshot_id for s in table.metadata.snapshots}.isdisjoint(snapshots)
    assert table.metadata.refs[second.branch].snapshot_id == session.plan.main


def test_numbers_do_not_go_back_for_a_branch_that_was_made_again(world: World) -> None:
    session = opened(world)
    first, second = begun(world, session), begun(world, session)
    woken(world, first.branch)
    third = begun(world, session)
    assert (second.number, third.number) == (2, 3)
    assert attempts(world.target, session.plan) == [third]


def test_a_try_without_the_lock_makes_none(world: World) -> None:
    session = opened(world)
    first = begun(world, session)
    assert renew_lock(world.catalog, session.begin, session.plan.owner) is not None
    before = world.target.metadata
    with pytest.raises(SessionSuperseded):
        begun(world, session)
    assert world.target.metadata == before
    assert attempts(world.target, session.plan) == [first]


@pytest.mark.parametrize("landed", [True, False])
def test_an_answer_that_is_lost_makes_no_second_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch, *, landed: bool
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    session = opened(world)
    real, made = SqlCatalog.commit_table, list[int]()

    def lost(self: Any, *args: Any) -> Any:
        made.append(1)
        if len(made) > 1:
            return real(self, *args)
        if landed:
            real(self, *args)
        raise CommitStateUnknownException

    monkeypatch.setattr(SqlCatalog, "commit_table", lost)
    assert begun(world, session).number == 1
    assert len(made) == (1 if landed else 2)


def test_an_application_that_commits_meanwhile_is_dropped_with_what_it_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit lands between the look at the table and the commit of the next attempt."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    session = opened(world)
    first = begun(world, session)
    real, late = SqlCatalog.commit_table, list[int]()

    def raced(self: Any, *args: Any) -> Any:
        if not late:
            late.append(0)
            late.extend(written(world.target, first.branch))
        return real(self, *args)

    monkeypatch.setattr(SqlCatalog, "commit_table", raced)
    second = begun(world, session)
    table = world.target
    assert attempts(table, session.plan) == [second]
    assert {s.snapshot_id for s in table.metadata.snapshots}.isdisjoint(late)


def test_the_snapshot_that_was_planned_on_is_expired(world: World) -> None:
    session = opened(world)
    written(world.target, MAIN_BRANCH)
    table = world.target
    tag = naming.watermark_tag("proc")
    table.manage_snapshots().remove_tag(tag).commit()
    expire(world.target, [session.plan.main])
    with pytest.raises(TargetChanged, match="has been expired"):
        begun(world, session)


@pytest.mark.parametrize("end", ["publish", "end", "abandon", "taken over"])
def test_attempts_go_with_their_session(world: World, end: str) -> None:
    session = opened(world)
    branches = [begun(world, session).branch, begun(world, session).branch]
    snapshots = written(world.target, branches[1])
    woken(world, branches[0])
    if end == "publish":
        sealed = steps.load(session)
        steps.publish(session, steps.audit(session, sealed))
    elif end == "end":
        assert end_session(world.catalog, session.begin, keep=True, reason="test")
    elif end == "abandon":
        assert steps.abandon(world.catalog, session.plan.target, "proc", reason="test") == session.plan.session
    else:
        assert opened(world).plan.session != session.plan.session
    table = world.target
    assert set(branches).isdisjoint(table.metadata.refs)
    assert {s.snapshot_id for s in table.metadata.snapshots}.isdisjoint(snapshots)


def test_a_branch_of_a_closed_session_that_is_made_again_goes_with_the_next_one(world: World) -> None:
    session = opened(world)
    branch = begun(world, session).branch
    steps.publish(session, steps.audit(session, steps.load(session)))
    head = woken(world, branch)
    table = world.target
    table.manage_snapshots().create_branch(head, f"{branch}_mine").create_branch(head, "inc_other_1").commit()
    steps.run(world.process())
    assert branch in world.target.metadata.refs, "a run without work takes no lock"
    world.land(5)
    steps.run(world.process())
    refs = world.target.metadata.refs
    assert branch not in refs
    assert {f"{branch}_mine", "inc_other_1"} <= refs.keys(), "no branches of ours"
    assert world.target_rows() == world.oracle(world.source_rows())


def test_a_process_of_a_longer_name_keeps_its_branches(world: World) -> None:
    session = opened(world)
    begun(world, session)
    other = World(home=world.home, name="proc_2")
    refs = {naming.scratch_ref(other.name, session.plan.session, attempt=1): 1}
    assert naming.attempt_of_ref(next(iter(refs)), "proc") is None
    assert naming.attempt_of_ref(next(iter(refs)), "proc_2", session.plan.session) == 1
    assert naming.attempt_of_ref(naming.scratch_ref("proc", session.plan.session), "proc") is None
    assert naming.attempt_of_ref(naming.data_ref("proc", session.plan.session), "proc") is None
    assert naming.attempt_of_ref(naming.scratch_ref("proc", session.plan.session, attempt=12), "proc") == 12


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, None),
        ({DRIVER: DONE, DRIVER_REPORT: '{"rows": 3}'}, (DONE, {"rows": 3})),
        ({DRIVER: FAILED, DRIVER_REPORT: '{"error": "x"}'}, (FAILED, {"error": "x"})),
        ({DRIVER: FAILED, DRIVER_REPORT: '{"error": "cut'}, (FAILED, {})),
        ({DRIVER: FAILED}, (FAILED, {})),
    ],
)
def test_how_an_application_ended(
    world: World, properties: dict[str, str], expected: tuple[str, dict[str, Any]] | None
) -> None:
    session = opened(world)
    attempt = begun(world, session)
    assert end_of(world.target, attempt) is None
    written(world.target, attempt.branch, 0, **properties)
    end = end_of(world.target, attempt)
    assert (None if end is None else (end.outcome, dict(end.report))) == expected
    written(world.target, attempt.branch)
    assert end_of(world.target, attempt) is None, "only the last commit counts"
