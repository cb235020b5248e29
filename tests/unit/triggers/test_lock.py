"""The trigger that waits for a process's lock."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.triggers import lock
from airflow_incremental.triggers.lock import SessionOverTrigger
from tests.support.approvals import ask
from tests.support.world import TARGET, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with a row to load, whose catalog stands behind every connection."""
    found = World(home=tmp_path).set_up()
    found.land(1, 2)
    monkeypatch.setattr(lock, "catalog_of", lambda _conn_id: found.catalog)
    return found


def trigger(session: str, *, alive: bool, monkeypatch: pytest.MonkeyPatch, poll_interval: float = 0.02) -> Any:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    monkeypatch.setattr(RuntimeTaskInstance, "get_dr_count", staticmethod(lambda **_: int(alive)))
    return SessionOverTrigger(
        iceberg_conn_id="iceberg_default",
        target=TARGET,
        process="proc",
        session=session,
        dag_id="dag",
        run_id="run1",
        poll_interval=poll_interval,
    )


async def first(waiting: SessionOverTrigger, timeout: float = 30) -> Any:
    async def event() -> Any:
        async for found in waiting.run():
            return found.payload
        return None

    return await asyncio.wait_for(event(), timeout)


def test_it_comes_back_from_the_database_as_it_was() -> None:
    arguments = {
        "iceberg_conn_id": "lake",
        "target": TARGET,
        "process": "p",
        "session": "s",
        "dag_id": "d",
        "run_id": "r",
        "poll_interval": 3.0,
    }
    path, kept = SessionOverTrigger(**arguments).serialize()
    assert path == "airflow_incremental.triggers.lock.SessionOverTrigger"
    assert kept == arguments


def test_it_fires_when_the_run_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = plan(world.process())
    waiting = trigger(session.plan.session, alive=False, monkeypatch=monkeypatch)
    assert asyncio.run(first(waiting)) == {"session": session.plan.session, "why": "its run is over"}


def test_it_fires_when_the_lock_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = plan(world.process())
    waiting = trigger(session.plan.session, alive=True, monkeypatch=monkeypatch)
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(first(waiting, timeout=0.5))
    steps.publish(session, steps.audit(session, steps.load(session)))
    assert asyncio.run(first(waiting)) == {"session": session.plan.session, "why": "it gave up the lock"}


def test_it_fires_when_another_session_has_the_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(world.process())
    waiting = trigger("an earlier session", alive=True, monkeypatch=monkeypatch)
    assert asyncio.run(first(waiting))["why"] == "it gave up the lock"


def test_it_does_not_wait_for_a_person(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = ask(world, "run1").session.plan.session
    found = asyncio.run(first(trigger(waits, alive=True, monkeypatch=monkeypatch)))
    assert found["why"].startswith("it waits for a person's approval since")


def test_a_store_that_does_not_answer_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def catalog_of(_conn_id: str) -> Any:
        asked.append(1)
        if len(asked) < 3:
            raise ConnectionError
        return world.catalog

    monkeypatch.setattr(lock, "catalog_of", catalog_of)
    waiting = trigger("an earlier session", alive=True, monkeypatch=monkeypatch)
    assert asyncio.run(first(waiting))["why"] == "it gave up the lock"
    assert len(asked) == 3
