"""A session that waits for a person: approved, rejected, replaced by a newer run, and published only with an answer of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.audits import RowCount
from airflow_incremental.core.errors import ApprovalPending, AuditFailed, NotApproved, SessionBusy, SessionSuperseded
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.locks import renew_lock
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.approving import decide, find_open, quarantine_rejected, was_kept
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Finished, Session
from tests.support.approvals import ASKS, NOW, Waiting, approval_of, ask, audited, decision_on, lock_of
from tests.support.world import TARGET, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A published session, two rows that came since, and runs that are never over."""
    world = World(home=tmp_path, over=lambda _owner: False).set_up()
    world.land(0)
    steps.run(world.process("first"))
    world.land(1, 2)
    return world


def carry_out(world: World, waiting: Waiting, decision: Any, *, end: bool = True) -> None:
    begin = find_open(world.catalog, TARGET, world.name, waiting.session.plan.session)
    assert not isinstance(begin, Finished)
    decide(world.catalog, begin, waiting.session.plan.owner, decision, end=end)


def resumed(world: World, waiting: Waiting) -> Session:
    """The session as the publishing task finds it."""
    process = world.process("asks", audits=ASKS, approval="on_warning")
    found = steps.resume(process, waiting.session.plan.session, again=False)
    assert isinstance(found, Session)
    return found


def test_approved_it_is_published_with_who_decided(world: World) -> None:
    waiting = ask(world)
    assert lock_of(world).approval == waiting.approval
    decision = decision_on(waiting)
    carry_out(world, waiting, decision)
    assert lock_of(world).approval.decision == decision

    done = steps.publish(resumed(world, waiting), waiting.report, decision)

    assert (done.outcome, done.verdict, done.decision) == ("published", "asks", decision)
    state = json.loads(world.target.metadata.properties[naming.state_property(world.name)])
    assert state["approval"] == {"by": "ann", "name": "Ann", "at": "2024-01-02T00:00:00Z"}
    world.check()


def test_deciding_twice_is_deciding_once(world: World) -> None:
    waiting = ask(world)
    carry_out(world, waiting, decision_on(waiting))
    metadata = world.target.metadata_location
    carry_out(world, waiting, decision_on(waiting))
    assert world.target.metadata_location == metadata


def test_rejected_it_ends_and_the_next_run_plans_everything(world: World) -> None:
    waiting = ask(world)
    before, rows = published(world.target, world.name), world.target_rows()
    carry_out(world, waiting, decision_on(waiting, approved=False))
    assert lock_of(world) is None
    assert was_kept(world.catalog, TARGET, waiting.session.plan.session)
    assert (published(world.target, world.name), world.target_rows()) == (before, rows)
    with pytest.raises(SessionSuperseded, match="taken over and ended"):
        find_open(world.catalog, TARGET, world.name, waiting.session.plan.session)
    world.land(3)
    assert steps.run(world.process("next")).did_publish
    world.check()


def test_rejected_with_work_left_it_stays_open(world: World) -> None:
    waiting = ask(world)
    carry_out(world, waiting, decision_on(waiting, approved=False), end=False)
    assert lock_of(world).approval.decision.approved is False
    with pytest.raises(NotApproved, match=r"was rejected by Ann \(ann\)"):
        steps.publish(resumed(world, waiting), waiting.report, decision_on(waiting, approved=False))
    assert lock_of(world) is not None


def test_rejected_rows_are_put_aside_once(world: World) -> None:
    waiting = ask(world, quarantine_rejected=True)
    carry_out(world, waiting, decision_on(waiting, approved=False), end=False)
    rows = world.target_rows()
    session = attrs.evolve(waiting.session, begin=lock_of(world))
    aside = quarantine_rejected(session, "rejected by Ann")
    assert aside.rows == 2
    kept = world.catalog.load_table(aside.table).scan().to_arrow()
    assert kept.column("quarantine_reasons").to_pylist() == [["rejected by Ann"]] * 2
    assert lock_of(world) is None
    assert world.target_rows() == rows
    assert steps.run(world.process("next")).did_publish
    world.check()
    with pytest.raises(SessionSuperseded):
        quarantine_rejected(session, "rejected by Ann")


def test_a_newer_run_is_told_whom_it_waits_for(world: World) -> None:
    waiting = ask(world)
    with pytest.raises(ApprovalPending) as caught:
        plan(world.process("newer"))
    for words in ("run 'asks' of DAG 'dag'", waiting.session.plan.session, f"since {NOW:%Y-%m-%d %H:%M:%S} UTC"):
        assert words in str(caught.value)
    carry_out(world, waiting, decision_on(waiting))
    with pytest.raises(SessionBusy) as busy:
        plan(world.process("newer"))
    assert not isinstance(busy.value, ApprovalPending), "it is on its way to be published"


def test_a_newer_run_replaces_it_and_the_answer_changes_nothing(world: World) -> None:
    waiting = ask(world)
    world.land(3)
    newer = plan(world.process("newer", replace_pending=True))
    assert isinstance(newer, Session)
    assert newer.plan.rows_added == 3, "old and new changes together"
    state = world.target.metadata_location
    with pytest.raises(SessionSuperseded, match=r"by session .* of run 'newer'"):
        find_open(world.catalog, TARGET, world.name, waiting.session.plan.session)
    for approved in (True, False):
        decision = decision_on(waiting, approved=approved)
        with pytest.raises(SessionSuperseded):
            decide(world.catalog, waiting.session.begin, waiting.session.plan.owner, decision, end=True)
    with pytest.raises(SessionSuperseded):
        steps.publish(waiting.session, waiting.report, decision_on(waiting))
    assert world.target.metadata_location == state
    assert steps.publish(newer, steps.audit(newer, steps.load(newer))).did_publish
    world.check()


def test_what_does_not_wait_is_not_replaced(world: World) -> None:
    audited(world)
    with pytest.raises(SessionBusy):
        plan(world.process("newer", replace_pending=True))


def test_a_later_try_of_another_step_waits_for_nobody_but_keeps_a_decision(world: World) -> None:
    waiting = ask(world)
    owner = waiting.session.plan.owner
    found = renew_lock(world.catalog, waiting.session.begin, owner)
    assert found is not None
    assert found.approval is None
    decided = attrs.evolve(waiting.approval, decision=decision_on(waiting))
    found = renew_lock(world.catalog, found, owner, approval=decided)
    assert found is not None
    again = renew_lock(world.catalog, found, owner)
    assert again is not None
    assert again.approval == decided


@pytest.mark.parametrize("changes", [{"session": "another"}, {"write_id": "others"}])
def test_an_approval_of_something_else_is_refused(world: World, changes: dict[str, Any]) -> None:
    waiting = ask(world)
    with pytest.raises(NotApproved, match=r"the approval is of session .* to be published is session"):
        steps.publish(waiting.session, waiting.report, decision_on(waiting, **changes))
    assert lock_of(world) is not None, "asking again can mend it"
    assert published(world.target, world.name).session != waiting.session.plan.session  # type: ignore[union-attr]


@pytest.mark.parametrize("policy", [None, "on_warning", "always"])
def test_without_an_answer_nothing_is_published(world: World, policy: Any) -> None:
    """A run of all steps in one task has nobody to ask."""
    rows = world.target_rows()
    with pytest.raises(NotApproved, match=r"row_count: 2 rows.*IncrementalLoad|row_count: 2 rows"):
        steps.run(world.process("one task", audits=ASKS, approval=policy))
    assert lock_of(world) is None
    assert world.target_rows() == rows


def test_a_load_that_always_asks_needs_an_answer_whatever_was_found(world: World) -> None:
    with pytest.raises(NotApproved, match="the load asks for every session"):
        steps.run(world.process("one task", approval="always"))


def test_warnings_pass_where_nobody_asks_about_them(world: World) -> None:
    warns = (RowCount(max=1, severity="warn"),)
    assert steps.run(world.process("one task", audits=warns, approval="on_sensitive_data")).verdict == "warned"


def test_when_main_moved_the_approval_of_the_same_rows_stands(world: World) -> None:
    waiting = ask(world)
    world.target.append(world.target.scan().to_arrow().slice(0, 1))
    done = steps.publish(waiting.session, waiting.report, decision_on(waiting))
    assert done.outcome == "published"
    assert done.published is not None
    assert done.published.snapshot_id != waiting.sealed.snapshot_id


@pytest.mark.parametrize(("severity", "error"), [("ask", NotApproved), ("block", AuditFailed)])
def test_when_main_moved_and_the_table_is_worse_the_session_ends(world: World, severity: Any, error: Any) -> None:
    audits = (*ASKS, RowCount(max=3, over="table", severity=severity, name="size"))
    waiting = ask(world, audits=audits)
    assert "size" not in waiting.approval.about
    world.target.append(world.target.scan().to_arrow().slice(0, 1))
    with pytest.raises(error, match="size: 4 rows"):
        steps.publish(waiting.session, waiting.report, decision_on(waiting))
    assert lock_of(world) is None
    assert was_kept(world.catalog, TARGET, waiting.session.plan.session)


def test_the_question_is_told_by_its_rows(world: World) -> None:
    session, sealed, report = audited(world)
    assert approval_of(session, sealed, report).about == {"row_count": 1}
