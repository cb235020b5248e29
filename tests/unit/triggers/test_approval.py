"""The trigger that waits for an answer, and sees that a session was replaced."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.standard.triggers import hitl

from airflow_incremental.sessions.planner import plan
from airflow_incremental.triggers import approval
from airflow_incremental.triggers.approval import ApprovalTrigger
from tests.support.approvals import ask
from tests.support.world import TARGET, World

TI = UUID(int=7)
NOW = dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc)


class Question:
    """A question as Airflow keeps it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there = True
        self.answer: list[str] | None = None
        monkeypatch.setattr(hitl, "get_hitl_detail_content_detail", self.get)
        for module in ("airflow.providers.standard.triggers.hitl", "airflow.sdk.execution_time.hitl"):
            monkeypatch.setattr(f"{module}.update_hitl_detail_response", self.update)

    def get(self, ti_id: UUID) -> Any:
        """Return the answer so far."""
        assert ti_id == TI
        if not self.there:
            raise RuntimeError("404")
        return SimpleNamespace(
            response_received=self.answer is not None,
            chosen_options=self.answer,
            params_input={},
            responded_at=None if self.answer is None else NOW,
            responded_by_user=SimpleNamespace(id="ann", name="Ann"),
        )

    def update(self, ti_id: UUID, chosen_options: list[str], params_input: dict[str, Any]) -> Any:
        """Take an answer."""
        assert (ti_id, params_input) == (TI, {})
        if self.answer is not None:
            raise RuntimeError("409")
        self.answer = chosen_options
        return SimpleNamespace(responded_at=NOW)


@pytest.fixture
def question(monkeypatch: pytest.MonkeyPatch) -> Question:
    return Question(monkeypatch)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(home=tmp_path, over=lambda _owner: False).set_up()
    found.land(1, 2)
    monkeypatch.setattr(approval, "catalog_of", lambda _conn_id: found.catalog)
    return found


def trigger(session: str, **changes: Any) -> ApprovalTrigger:
    values: dict[str, Any] = {
        "ti_id": TI,
        "options": ["Approve", "Reject"],
        "defaults": ["Reject"],
        "params": {},
        "timeout_datetime": None,
        "poke_interval": 0.02,
        "iceberg_conn_id": "lake",
        "target": TARGET,
        "process": "proc",
        "session": session,
        "look_interval": 0.02,
    }
    return ApprovalTrigger(**{**values, **changes})


def fire(waiting: ApprovalTrigger, timeout: float = 20) -> Any:
    async def event() -> Any:
        found = [e async for e in waiting.run()]
        assert len(found) == 1
        return found[0].payload

    return asyncio.run(asyncio.wait_for(event(), timeout))


def test_it_comes_back_from_the_database_as_it_was() -> None:
    name, arguments = trigger("s", timeout_datetime=NOW).serialize()
    assert name == "airflow_incremental.triggers.approval.ApprovalTrigger"
    assert ApprovalTrigger(**arguments).serialize() == (name, arguments)
    assert arguments["timeout_datetime"] == NOW


def test_an_answer_that_was_given_already_is_taken(world: World, question: Question) -> None:
    question.answer = ["Approve"]
    found = fire(trigger(ask(world).session.plan.session))
    assert (found["chosen_options"], found["responded_by_user"], found["responded_at"]) == (
        ["Approve"],
        {"id": "ann", "name": "Ann"},
        NOW,
    )


def test_it_waits_while_nobody_answers(world: World, question: Question) -> None:
    with pytest.raises(asyncio.TimeoutError):
        fire(trigger(ask(world).session.plan.session), timeout=0.5)
    assert question.answer is None


def test_nobody_answers_in_time(world: World, question: Question) -> None:
    found = fire(trigger(ask(world).session.plan.session, timeout_datetime=NOW))
    assert (found["chosen_options"], found["responded_by_user"]) == (["Reject"], None)
    assert question.answer == ["Reject"]


def test_a_replaced_session_closes_its_question(world: World, question: Question) -> None:
    waiting = trigger(ask(world).session.plan.session)
    plan(world.process("newer", replace_pending=True))
    assert fire(waiting)["error_type"] == "superseded"
    assert question.answer == ["Reject"]


def test_a_question_that_is_not_there(world: World, question: Question) -> None:
    question.there = False
    assert fire(trigger(ask(world).session.plan.session))["error_type"] == "lost"


def test_a_catalog_that_does_not_answer_is_asked_again(
    world: World, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def catalog_of(_conn_id: str) -> Any:
        asked.append(1)
        if len(asked) < 3:
            raise ConnectionError
        return world.catalog

    monkeypatch.setattr(approval, "catalog_of", catalog_of)
    assert fire(trigger("replaced long ago"))["error_type"] == "superseded"
    assert len(asked) == 3
    assert question.answer == ["Reject"]
