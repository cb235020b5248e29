"""The task that asks, without Airflow: what is asked, what waits, what an answer does, and that nobody is asked twice."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskAwaitingInput, TaskDeferred

from airflow_incremental import IncrementalLoad, RowCount, compat
from airflow_incremental.core.approval import Approval, Decision
from airflow_incremental.core.audit import AuditReport
from airflow_incremental.core.errors import ArgumentError, SessionSuperseded
from airflow_incremental.iceberg.state import published
from airflow_incremental.operators import approving, runtime
from airflow_incremental.operators.approve import SessionApprovalOperator
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.integration.dagtest.loads import arguments
from tests.support.approvals import ASKS, audited, lock_of
from tests.support.world import World

STAGES = {"plan": "fact.plan", "load": "fact.load", "audit": "fact.audit"}


class Desk:
    """Airflow, as far as the task sees it: results of earlier tasks, and the question that people are shown."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.asked: list[dict[str, Any]] = []
        self.shown: dict[str, Any] | None = None
        self.told: list[Any] = []
        self.results: dict[str, Any] = {}
        self.try_number = 1
        self.clear_number = 0
        monkeypatch.setattr(compat, "ask_person", self.ask_person)
        monkeypatch.setattr(approving, "catalog_of", lambda _conn_id: world.catalog)
        monkeypatch.setattr(runtime, "deployment", lambda: "here")

    def ask_person(self, _ti_id: Any, question: dict[str, Any]) -> dict[str, Any]:
        """Keep the first question, as Airflow does."""
        self.asked.append(question)
        self.shown = self.shown or {name: question[name] for name in ("subject", "body")}
        return self.shown

    def ready(self, **changes: Any) -> Session:
        """Go with a session as far as the audit."""
        session, sealed, report = audited(self.world, **changes)
        self.results = {
            "fact.plan": {"session": session.plan.session, "process": self.world.name, "target": session.plan.target},
            "fact.load": {"planned": session.plan.session, "session": session.plan.session, "rows": 2},
            "fact.audit": {"session": session.plan.session, "report": report.brief().to_json()},
        }
        assert sealed.snapshot_id == report.snapshot_id
        return session

    @property
    def context(self) -> Any:
        """The context of the task's current try."""
        ti = SimpleNamespace(
            id=f"id-{self.try_number}",
            dag_id="dag",
            run_id="asks",
            task_id="fact.approve",
            map_index=-1,
            try_number=self.try_number,
            xcom_pull=lambda task_ids, **_: self.results[task_ids],
        )
        return {"ti": ti, "task_instance": ti, "dag_run": SimpleNamespace(clear_number=self.clear_number)}

    def task(self, **changes: Any) -> SessionApprovalOperator:
        """Make the task, as the group does."""
        notifiers = [self.told.append]
        with DAG("dag", schedule=None):
            made = IncrementalLoad(
                "fact",
                **{"approval": "on_warning", **arguments(self.world, audits=ASKS), **changes},
                operator_args={"approve": {"notifiers": notifiers}},
            ).approve
        assert made is not None
        return made

    def wait(self, task: SessionApprovalOperator) -> BaseException:
        """Run the task up to its wait."""
        with pytest.raises((TaskAwaitingInput, TaskDeferred)) as caught:
            task.execute(self.context)
        return caught.value

    def answer(self, task: SessionApprovalOperator, option: str, user: str | None = "ann") -> dict[str, Any]:
        """Resume the task with an answer, as Airflow does."""
        event = {
            "chosen_options": [option],
            "params_input": {},
            "responded_at": dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc),
            "responded_by_user": None if user is None else {"id": user, "name": user.title()},
            "timedout": user is None,
        }
        found: dict[str, Any] = task.execute_complete(self.context, event)
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(home=tmp_path, over=lambda _owner: False).set_up()
    world.land(1, 2)
    return world


@pytest.fixture
def desk(world: World, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(world, monkeypatch)


def test_it_asks_and_says_so_in_the_lock(desk: Desk, world: World) -> None:
    session = desk.ready()
    task = desk.task(approvers=["ann"], approval_timeout=dt.timedelta(hours=1))
    waits = desk.wait(task)
    assert isinstance(waits, TaskAwaitingInput)
    assert (waits.method_name, waits.timeout) == ("execute_complete", dt.timedelta(hours=1))
    (asked,) = desk.asked
    assert asked["options"] == ["Approve", "Reject"]
    assert asked["defaults"] == ["Reject"]
    assert asked["assigned_users"] == [{"id": "ann", "name": "ann"}]
    snapshot = session.plan.session
    assert asked["subject"].startswith(f"Publish 2 rows to {session.plan.target}? (session {snapshot}")
    for words in ("`row_count`", "2 rows, expected at most 1", "run `asks`", "VERSION AS OF", "within 1:00:00"):
        assert words in asked["body"]
    waiting: Approval = lock_of(world).approval
    assert waiting.is_pending
    assert waiting.deadline is not None
    assert waiting.deadline - waiting.since == dt.timedelta(hours=1)
    assert (waiting.task, waiting.task_instance) == ("fact.approve", "id-1")
    assert [c["ti"].task_id for c in desk.told] == ["fact.approve"], "notifiers are told"
    assert published(world.target, world.name) is None


def test_before_airflow_3_3_it_waits_in_the_triggerer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "wait_for_answer", lambda *_: None)
    desk.ready()
    assert isinstance(desk.wait(desk.task()), TaskDeferred)


def test_to_be_replaced_it_waits_where_it_can_see_that(desk: Desk) -> None:
    session = desk.ready()
    waits = desk.wait(desk.task(when_pending="replace", poll_interval=7))
    assert isinstance(waits, TaskDeferred)
    name, found = waits.trigger.serialize()
    assert name == "airflow_incremental.triggers.approval.ApprovalTrigger"
    assert (found["session"], found["look_interval"]) == (session.plan.session, 7)
    assert len(desk.asked) == 1


def test_approved(desk: Desk, world: World) -> None:
    session = desk.ready()
    task = desk.task()
    desk.wait(task)
    found = desk.answer(task, "Approve")
    assert json.loads(json.dumps(found)) == found, "it travels by XCom"
    decision = Decision.from_json(found["decision"])
    assert (decision.approved, decision.by, decision.name, found["rejected"]) == (True, "ann", "Ann", None)
    report = AuditReport.from_json(desk.results["fact.audit"]["report"])
    process = world.process("asks", audits=ASKS, approval="on_warning")
    opened = steps.resume(process, session.plan.session, again=False)
    assert isinstance(opened, Session)
    assert steps.publish(opened, report, decision).did_publish


@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_what_was_decided_is_kept_once_with_the_results(desk: Desk, world: World, option: str) -> None:
    session = desk.ready()
    task = desk.task(approval_on_reject="quarantine")
    desk.wait(task)
    desk.answer(task, option)
    desk.answer(task, option)
    rows = world.catalog.load_table(f"{session.plan.target}__audits").scan().to_arrow().to_pylist()
    results, decided = [r for r in rows if r["kind"] != "approval"], [r for r in rows if r["kind"] == "approval"]
    assert [r["audit"] for r in results] == ["row_count"]
    (row,) = decided
    assert (row["session"], row["snapshot_id"]) == (session.plan.session, results[0]["snapshot_id"])
    assert (row["passed"], row["verdict"]) == (option == "Approve", "asks")
    assert json.loads(row["observed"]) == {"by": "ann", "name": "Ann", "at": "2024-01-02T00:00:00Z"}


def test_what_was_decided_is_not_kept_where_results_are_not(desk: Desk, world: World) -> None:
    session = desk.ready(audit_table=False)
    task = desk.task(audit_table=False)
    desk.wait(task)
    desk.answer(task, "Approve")
    assert not world.catalog.table_exists(f"{session.plan.target}__audits")


def test_rejected_fails_the_task_for_good(desk: Desk, world: World) -> None:
    session = desk.ready()
    task = desk.task()
    desk.wait(task)
    with pytest.raises(AirflowFailException, match=rf"session {session.plan.session} was rejected by Ann \(ann\)"):
        desk.answer(task, "Reject")
    assert lock_of(world) is None
    desk.try_number = 2
    with pytest.raises(AirflowFailException, match="as an earlier try"):
        task.execute(desk.context)
    assert len(desk.asked) == 1


def test_discarded_goes_on_without_it(desk: Desk, world: World) -> None:
    desk.ready()
    task = desk.task(approval_on_reject="discard", approval_timeout=dt.timedelta(hours=1))
    desk.wait(task)
    found = desk.answer(task, "Reject", user=None)
    assert "because nobody answered in time" in found["rejected"]
    assert lock_of(world) is None
    desk.try_number = 2  # killed before its result was there
    assert "as an earlier try" in task.execute(desk.context)["rejected"]


def test_rejected_for_quarantine_leaves_the_rows_to_the_publish(desk: Desk, world: World) -> None:
    desk.ready()
    task = desk.task(approval_on_reject="quarantine")
    desk.wait(task)
    found = desk.answer(task, "Reject")
    assert found["on_reject"] == "quarantine"
    assert lock_of(world).approval.decision.approved is False


@pytest.mark.parametrize(
    ("approval", "audits"), [("on_warning", ()), ("on_sensitive_data", (RowCount(max=1, severity="warn"),))]
)
def test_nobody_is_asked_without_need(desk: Desk, world: World, approval: Any, audits: Any) -> None:
    session = desk.ready(audits=audits)
    state = world.target.metadata_location
    found = desk.task(approval=approval).execute(desk.context)
    assert found == {"session": session.plan.session, "decision": None, "rejected": None}
    assert desk.asked == []
    assert world.target.metadata_location == state


def test_what_is_published_is_not_asked_about(desk: Desk) -> None:
    session = desk.ready(audits=(), approval=None)
    steps.publish(session, steps.audit(session, steps.load(session)))
    assert desk.task(approval="always").execute(desk.context)["decision"] is None


def test_nothing_to_do_is_nothing_to_ask(desk: Desk) -> None:
    desk.results = {"fact.plan": {"finished": {"reason": "nothing new"}}}
    with pytest.raises(AirflowSkipException, match="nothing new"):
        desk.task().execute(desk.context)


def test_a_retry_while_it_waits_does_not_ask_again(desk: Desk, world: World) -> None:
    """Airflow would take an answer away that was given since."""
    desk.ready()
    task = desk.task(approval_timeout=dt.timedelta(hours=1))
    desk.wait(task)
    first: Approval = lock_of(world).approval
    desk.try_number = 2
    waits = desk.wait(task)
    assert isinstance(waits, TaskDeferred)
    assert waits.trigger.serialize()[1]["timeout_datetime"] == first.deadline, "the time goes on"
    assert lock_of(world).approval == attrs.evolve(first, task_instance="id-2")
    assert len(desk.asked) == len(desk.told) == 1
    assert desk.answer(task, "Approve")["decision"]["by"] == "ann"


def test_a_retry_after_the_answer_does_not_ask_at_all(desk: Desk) -> None:
    desk.ready()
    task = desk.task()
    desk.wait(task)
    given = desk.answer(task, "Approve")
    desk.try_number = 2
    assert task.execute(desk.context) == given
    assert len(desk.asked) == 1


def test_a_question_that_airflow_has_lost_is_asked_anew(desk: Desk) -> None:
    desk.ready()
    task = desk.task()
    desk.wait(task)
    with pytest.raises(TaskAwaitingInput):
        task.execute_complete(desk.context, {"error": "gone", "error_type": "lost"})
    assert len(desk.asked) == 2


def test_a_cleared_task_asks_again_about_the_same(desk: Desk) -> None:
    desk.ready()
    task = desk.task()
    desk.wait(task)
    desk.answer(task, "Approve")
    desk.clear_number, desk.try_number = 1, 2
    assert isinstance(desk.wait(task), TaskAwaitingInput)
    assert len(desk.asked) == 2


def test_people_are_never_shown_an_earlier_question(desk: Desk, world: World) -> None:
    desk.ready()
    desk.shown = {"subject": "Publish 9 rows? (session before)", "body": "..."}
    with pytest.raises(
        AirflowFailException, match=r"an earlier question of this run, 'Publish 9 rows.*start a new run"
    ):
        desk.task().execute(desk.context)
    assert lock_of(world).approval is None, "nobody is said to wait"


@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_an_answer_after_it_was_replaced_changes_nothing(desk: Desk, world: World, option: str) -> None:
    desk.ready()
    task = desk.task()
    desk.wait(task)
    newer = plan(world.process("newer", replace_pending=True))
    assert isinstance(newer, Session)
    state = world.target.metadata_location
    with pytest.raises(AirflowSkipException, match=r"by session .* of run 'newer'.*the answer changes nothing"):
        desk.answer(task, option)
    with pytest.raises(AirflowSkipException, match="the answer changes nothing"):
        task.execute_complete(desk.context, {"error": "it lost the lock", "error_type": "superseded"})
    assert world.target.metadata_location == state


def test_taken_over_before_it_asks(desk: Desk, world: World) -> None:
    desk.ready()
    world.over = lambda _owner: True
    assert isinstance(plan(world.process("newer")), Session)
    with pytest.raises(SessionSuperseded):
        desk.task().execute(desk.context)
    assert desk.asked == []


@pytest.mark.parametrize(("stage", "value"), [("session", "another"), ("snapshot", 1)])
def test_an_audit_of_something_else_is_not_asked_about(desk: Desk, stage: str, value: Any) -> None:
    desk.ready()
    if stage == "session":
        desk.results["fact.audit"]["session"] = value
    else:
        desk.results["fact.audit"]["report"]["snapshot_id"] = value
    with pytest.raises(AirflowFailException, match=r"clear the task 'fact\.plan'") as caught:
        desk.task().execute(desk.context)
    assert isinstance(caught.value.__cause__, ArgumentError)


def test_no_row_is_shown(desk: Desk) -> None:
    desk.ready()
    desk.results["fact.audit"]["report"]["results"][0]["samples"] = [{"id": 1, "region": "secret"}]
    desk.wait(desk.task())
    assert "secret" not in json.dumps(desk.asked[0]["body"])
