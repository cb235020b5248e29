"""A later try of a run takes its session over: what an earlier try still has in hand, such as an older transform, is void."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from airflow_incremental.audits import NotNull, RowCount
from airflow_incremental.core.audit import AuditReport
from airflow_incremental.core.errors import AuditFailed, CommitUnknown, IncrementalError, SessionBusy, SessionSuperseded
from airflow_incremental.core.plan import Owner
from airflow_incremental.iceberg.locks import Begin, read_lock, renew_lock
from airflow_incremental.iceberg.state import published
from airflow_incremental.iceberg.sweep import leftovers, sweep
from airflow_incremental.sessions import auditing, steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Finished, Process, Session
from tests.kill.test_kill import NOW
from tests.support.world import World

#: What the author corrected: every value is too small by one.
WRONG = "SELECT id, ts, region, v * 10 - 1 AS v10 FROM events"


def opened(process: Process) -> Session:
    session = plan(process)
    assert isinstance(session, Session)
    return session


def again(process: Process, session: Session) -> Session:
    """Resume a session as a later try of a group's stage."""
    found = steps.resume(process, session.plan.session, again=True)
    assert isinstance(found, Session)
    return found


def commit_counter(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the commits of a test from here on."""
    made: list[str] = []
    commit = SqlCatalog.commit_table

    def counted(self: Any, *args: Any) -> Any:
        found = commit(self, *args)
        made.append("commit")
        return found

    monkeypatch.setattr(SqlCatalog, "commit_table", counted)
    return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A published session, and rows that came since."""
    world = World(home=tmp_path).set_up()
    world.land(0, 1)
    steps.run(world.process())
    world.land(0.5, 2)
    return world


class Sleeper:
    """A transform that returns wrong rows and, before it does, lets a later try go as far as a test asks."""

    def __init__(self, later: Callable[[], object]) -> None:
        self.later = later

    def __call__(self, relations: Mapping[str, Any], _plan: object) -> pa.Table:
        rows = relations["events"].project("id, ts, region, v * 10 - 1 AS v10").to_arrow_table()
        self.later()
        return rows


@pytest.mark.parametrize("far", ["resumed", "sealed", "audited", "published"])
@pytest.mark.parametrize("shape", ["one task", "stage of a group"])
def test_it_wakes_in_its_load(world: World, far: str, shape: str) -> None:
    done: dict[str, Any] = {}

    def later() -> None:
        process = world.process("run")
        session = done["session"] = opened(process) if shape == "one task" else again(process, first)
        if far == "resumed":
            return
        sealed = steps.load(session)
        if far == "sealed":
            return
        done["report"] = steps.audit(session, sealed)
        if far == "published":
            done["finished"] = steps.publish(session, done["report"])

    first = opened(world.process("run", transform=Sleeper(later)))
    with pytest.raises(SessionSuperseded) as raised:
        steps.load(first)
    if far == "published":
        assert "published by another try of its own run" in str(raised.value)
    else:
        assert "by a later try of its own run" in str(raised.value)
        session = done["session"]
        assert session.plan.session == first.plan.session
        finished = steps.publish(session, done.get("report") or steps.audit(session, steps.load(session)))
        assert finished.did_publish
    world.check()
    sweep(world.target, older_than=NOW)
    assert leftovers(world.target, older_than=NOW) == []
    world.check()


@pytest.mark.parametrize("far", ["resumed", "sealed"])
def test_it_wakes_in_its_publish(world: World, far: str) -> None:
    before = world.target_rows()
    first = opened(world.process("run", transform=WRONG))
    report = steps.audit(first, steps.load(first))
    second = again(world.process("run"), first)
    if far == "sealed":
        steps.load(second)
    with pytest.raises(SessionSuperseded):
        steps.publish(first, report)
    assert world.target_rows() == before
    steps.publish(second, steps.audit(second, steps.load(second)))
    world.check()


def test_it_wakes_in_an_audit_that_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The author has corrected the audit meanwhile: the later try's session is not ended by the old one."""
    first = opened(world.process("run", audits=(RowCount(min=100),)))
    sealed = steps.load(first)
    later = []

    def run_audits(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        later.append(again(world.process("run", audits=(RowCount(min=2),)), first))
        return auditing.run_audits(*args, **kwargs)

    monkeypatch.setattr(auditing, "run_audits", run_audits)
    with pytest.raises(AuditFailed):
        steps.audit(first, sealed)
    (second,) = later
    with pytest.raises(SessionSuperseded):
        steps.audit(first, sealed)
    steps.publish(second, steps.audit(second, steps.load(second)))
    world.check()


def test_it_wakes_in_a_publish_that_the_later_try_audits_anew(world: World) -> None:
    """The same rows under a stricter audit: the old report is not enough any more."""
    before = world.target_rows()
    first = opened(world.process("run"))
    sealed = steps.load(first)
    report = steps.audit(first, sealed)
    strict = world.process("run", audits=(NotNull("v10"), RowCount(min=100)))
    second = again(strict, first)
    with pytest.raises(SessionSuperseded):
        steps.publish(first, report)
    with pytest.raises(AuditFailed):
        steps.audit(second, steps.load(second))
    assert world.target_rows() == before


def test_handing_over_costs_no_commit_and_a_retry_costs_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = commit_counter(monkeypatch)
    process = world.process("run")
    session = opened(process)
    for _ in range(2):
        found = steps.resume(process, session.plan.session, again=False)
        assert isinstance(found, Session)
        assert found.begin == session.begin
    sealed = steps.load(session)
    assert len(made) == 2
    later = again(process, session)
    assert len(made) == 3
    assert steps.load(later) == sealed, "the same transform: what is sealed stays"
    steps.publish(later, steps.audit(later, sealed))
    assert len(made) == 4
    world.check()


def test_a_retry_finds_that_the_earlier_try_published_a_moment_ago(world: World) -> None:
    """Between the look at the lock and its renewal."""
    first = opened(world.process("run"))
    report = steps.audit(first, steps.load(first))
    steps.publish(first, report)
    assert renew_lock(world.catalog, first.begin, first.process.owner) is None
    found = steps.resume(world.process("run"), first.plan.session, again=True)
    assert isinstance(found, Finished)
    assert steps.run(world.process("run")).outcome == "already_published"
    world.check()


@pytest.mark.parametrize("step", ["plan", "resume"])
def test_published_between_the_look_and_the_renewal(world: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    first = opened(world.process("run"))
    report = steps.audit(first, steps.load(first))

    def meanwhile(*args: Any) -> Begin | None:
        steps.publish(first, report)
        return renew_lock(*args)

    monkeypatch.setattr("airflow_incremental.sessions.planner.renew_lock", meanwhile)
    monkeypatch.setattr("airflow_incremental.sessions.steps.renew_lock", meanwhile)
    process = world.process("run")
    found = plan(process) if step == "plan" else steps.resume(process, first.plan.session, again=True)
    assert isinstance(found, Finished)
    assert found.outcome == "already_published"
    world.check()


def test_of_two_that_renew_at_once_one_gives_way(world: World) -> None:
    first = opened(world.process("run"))
    second = again(world.process("run"), first)
    with pytest.raises(SessionSuperseded, match="by a later try of its own run"):
        renew_lock(world.catalog, first.begin, first.process.owner)
    assert read_lock(world.target, "proc") == second.begin


@pytest.mark.parametrize("step", ["take", "renew"])
def test_a_lock_whose_commit_got_no_answer_is_recognised(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """And only as long as it is one's own: a later try may have renewed it before the answer was looked for."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    commit = SqlCatalog.commit_table
    meanwhile: list[Callable[[], object]] = []

    def cut_off(self: Any, *args: Any) -> Any:
        monkeypatch.setattr(SqlCatalog, "commit_table", commit)
        commit(self, *args)
        for other in meanwhile:
            other()
        raise OSError

    first = opened(world.process("run")) if step == "renew" else None
    monkeypatch.setattr(SqlCatalog, "commit_table", cut_off)
    mine = opened(world.process("run"))
    assert read_lock(world.target, "proc") == mine.begin
    if first is None:
        steps.abandon(world.catalog, "mart.result", "proc", reason="the next case")
    meanwhile.append(lambda: opened(world.process("run")))
    monkeypatch.setattr(SqlCatalog, "commit_table", cut_off)
    with pytest.raises(SessionSuperseded, match="by a later try of its own run"):
        opened(world.process("run"))


@pytest.mark.parametrize("over", [False, True])
def test_two_callers_without_a_run_do_not_share_a_session(world: World, over: bool) -> None:
    """Plain Python use: nobody knows whether the other caller is alive."""
    caller = Owner(deployment="here")
    process = world.process(owner=caller, run_is_over=lambda _: over)
    first = opened(process)
    if over:
        assert opened(process).plan.session != first.plan.session, "taken over, not resumed"
        return
    with pytest.raises(
        SessionBusy, match=r"nobody can tell whether .*steps\.resume\(.*session abandon mart\.result proc"
    ):
        plan(process)
    assert read_lock(world.target, "proc") == first.begin
    resumed = again(process, first)
    steps.publish(resumed, steps.audit(resumed, steps.load(resumed)))
    world.check()


def scaled(factor: int) -> Callable[..., Any]:
    """A transform that holds a number, and a list that it changes when it runs."""
    calls: list[int] = []

    def transform(relations: Mapping[str, Any], _plan: object) -> Any:
        calls.append(1)
        return relations["events"].project(f"id, ts, region, v * {factor} AS v10")

    return transform


def test_what_a_callable_holds_decides_whether_a_retry_loads_again(world: World) -> None:
    first = opened(world.process("run", transform=scaled(9)))
    sealed = steps.load(first)
    same = again(world.process("run", transform=scaled(9)), first)
    assert steps.load(same) == sealed
    corrected = again(world.process("run", transform=scaled(10)), first)
    found = steps.load(corrected)
    assert found != sealed
    steps.publish(corrected, steps.audit(corrected, found))
    world.check()


def clear_number_published(world: World) -> int:
    last = published(world.target, "proc")
    assert last is not None
    return int(last.owner["clear_number"])


@pytest.mark.parametrize("far", ["planned", "sealed", "audited"])
def test_a_cleared_run_publishes_under_its_own_clear_number(
    world: World, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(world.process("run"))
    report: AuditReport | None = None
    if far != "planned":
        report = steps.audit(first, steps.load(first))
    cleared = world.process("run", clear_number=1)
    second = opened(cleared)
    assert second.plan.session == first.plan.session
    assert second.plan.owner == cleared.owner
    made = commit_counter(monkeypatch)
    if report is None or far == "sealed":
        report = steps.audit(second, steps.load(second))
    steps.publish(second, report)
    assert len(made) == 2, "sealed again, or for the first time, and published"
    world.check()
    assert clear_number_published(world) == 1
    retried = steps.run(world.process("run", clear_number=1))
    assert retried.outcome == "already_published", "a retry after the clear does not compute everything again"
    restated = steps.run(world.process("run", clear_number=2))
    assert restated.plan is not None
    assert restated.plan.kind == "restatement", "and the next clear does"
    world.check()


def test_what_cannot_be_renewed_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog that stays silent leaves the session to the next try."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    first = opened(world.process("run"))

    def silent(*_: Any) -> Any:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(SqlCatalog, "commit_table", silent)
        with pytest.raises(CommitUnknown, match="the renewed lock of session"):
            plan(world.process("run"))
    assert read_lock(world.target, "proc") == first.begin
    steps.run(world.process("run"))
    world.check()


def test_a_session_that_another_version_planned_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1)
    with monkeypatch.context() as older:
        older.setattr("airflow_incremental.core.plan.PLAN_VERSION", 1)
        session = plan(world.process("a"))
        assert isinstance(session, Session)
        steps.load(session)
    with pytest.raises(IncrementalError, match=r"format version 1\..*session abandon mart\.result proc --reason"):
        steps.run(world.process("a"))
    assert steps.abandon(world.catalog, "mart.result", "proc", reason="upgraded") == session.plan.session
    assert steps.abandon(world.catalog, "mart.result", "proc", reason="again") is None
    assert steps.run(world.process("a")).did_publish
    world.check()
