"""SIGKILL at every commit while a session is asked about, decided on, and published, ended or put aside: the retry converges."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.seal import find_sealed
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.approving import decide, find_open, note, quarantine_rejected
from airflow_incremental.sessions.process import Finished, Session
from airflow_incremental.sessions.quarantine import settle_process
from tests.kill.test_kill import places
from tests.support.approvals import ASKS, Waiting, approval_of, audited, decision_on, lock_of
from tests.support.killing import Child
from tests.support.world import TARGET, World


def world_at(home: Path) -> World:
    return World(home=home, over=lambda _owner: False)


def answer(home: Path, option: str) -> None:
    """What the tasks that ask and publish do of a session that is audited, until it is decided and over."""
    world = world_at(home)
    aside = option == "quarantine"
    process = world.process("asks", audits=ASKS, approval="on_warning", quarantine_rejected=aside)
    lock = lock_of(world)
    if lock is None:  # an earlier try went as far as that
        settle_process(process)
        return
    session = steps.resume(process, lock.plan.session, again=True)
    assert isinstance(session, Session)
    sealed = find_sealed(world.target, session.plan)
    assert sealed is not None
    report = steps.audit(session, sealed)
    asked = approval_of(session, sealed, report)
    decision = decision_on(Waiting(session, sealed, report, asked), approved=option == "approve")
    begin = session.begin
    if begin.approval is None:
        begin = note(world.catalog, begin, process.owner, asked)
    decide(world.catalog, begin, process.owner, decision, end=not aside)
    if option == "reject":
        return
    found = find_open(world.catalog, TARGET, world.name, session.plan.session)
    assert not isinstance(found, Finished)
    opened = Session(process=process, begin=found)
    if aside:
        quarantine_rejected(opened, "rejected")
    else:
        steps.publish(opened, report, decision)


@pytest.mark.parametrize("option", ["approve", "reject", "quarantine"])
def test_killed_anywhere_the_retry_converges(tmp_path: Path, option: str) -> None:
    home, kept = tmp_path / "world", tmp_path / "kept"
    world = world_at(home).set_up()
    world.land(0)
    steps.run(world.process("first"))
    world.land(1, 2)
    audited(world, quarantine_rejected=option == "quarantine")
    before = world.target_rows()
    shutil.copytree(home, kept)
    child = Child(answer, home, option)
    assert child.wait() == 0, child.events[-1]
    events = [e for e in child.events if e != "done"]
    for at in [n for n in places(events) if "commit" in events[n - 1]]:
        shutil.rmtree(home)
        shutil.copytree(kept, home)
        assert Child(answer, home, option, at=at).wait() == -9
        answer(home, option)
        assert lock_of(world) is None
        if option == "approve":
            state = json.loads(world.target.metadata.properties[naming.state_property(world.name)])
            assert state["approval"]["by"] == "ann"
            world.check()
            continue
        assert world.target_rows() == before, "nothing rejected is visible"
        if option == "quarantine":
            assert world.catalog.load_table(f"{TARGET}__quarantine").scan().to_arrow().num_rows == 2, "each row once"
        assert steps.run(world.process("next")).did_publish
        world.check()
