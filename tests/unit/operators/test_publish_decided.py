"""What the publishing task makes of a decision: of another session, rejected, or rejected for quarantine; also tried again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_incremental.compat import AirflowSkipException
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.operators import stages
from airflow_incremental.sessions.approving import decide
from tests.support.approvals import Waiting, ask, decision_on, lock_of
from tests.support.world import TARGET, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(home=tmp_path, over=lambda _owner: False).set_up()
    world.land(1, 2)
    return world


class Publishing:
    """The publishing task, as far as the stage sees it."""

    def __init__(self, waiting: Waiting, **answered: Any) -> None:
        session = waiting.session.plan.session
        self.process = waiting.session.process
        self.is_retry = False
        self.shown: list[str] = []
        self.show = self.shown.append
        self.operator = SimpleNamespace(
            approval="on_warning", stage_task_ids={name: name for name in ("plan", "load", "audit", "approve")}
        )
        self.states = {
            "plan": {"session": session},
            "load": {"session": session, "planned": session},
            "audit": {"session": session, "report": waiting.report.to_json()},
            "approve": {"session": session, "decision": None, "rejected": None, **answered},
        }

    def state_of(self, stage: str) -> dict[str, Any]:
        """Return what an earlier stage said."""
        return self.states[stage]

    def publish(self) -> None:
        """Run the stage, which is to end the load as skipped."""
        with pytest.raises(AirflowSkipException, match="was rejected by Ann: nothing is published"):
            stages._publish(self)  # type: ignore[arg-type]


def test_a_decision_on_another_session_is_not_believed(world: World) -> None:
    job = Publishing(ask(world), session="another")
    with pytest.raises(ArgumentError, match="the result of the approve is of session another"):
        stages._publish(job)  # type: ignore[arg-type]
    assert lock_of(world) is not None


def test_a_discarded_session_is_skipped(world: World) -> None:
    waiting = ask(world)
    decision = decision_on(waiting, approved=False)
    decide(world.catalog, waiting.session.begin, waiting.session.plan.owner, decision, end=True)
    Publishing(waiting, rejected="rejected by Ann", on_reject="discard").publish()
    assert world.target_rows().total() == 0


def test_rows_for_quarantine_are_put_aside_once(world: World) -> None:
    waiting = ask(world, quarantine_rejected=True)
    decision = decision_on(waiting, approved=False)
    decide(world.catalog, waiting.session.begin, waiting.session.plan.owner, decision, end=False)
    job = Publishing(waiting, rejected="rejected by Ann", on_reject="quarantine")
    job.publish()
    assert job.shown == [f"put 2 rows aside in {TARGET}__quarantine: rejected by Ann"]
    job.is_retry = True  # its result was lost
    job.publish()
    assert world.catalog.load_table(f"{TARGET}__quarantine").scan().to_arrow().num_rows == 2
    assert lock_of(world) is None
    assert world.target_rows().total() == 0
