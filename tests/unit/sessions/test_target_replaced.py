"""The target is dropped, or created anew, in the middle of a session: every commit says so, and nothing lands in the new table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

from airflow_incremental.core.errors import TableError, TargetReplaced
from airflow_incremental.core.plan import Plan
from airflow_incremental.iceberg.locks import take_lock
from airflow_incremental.iceberg.publish import publish as commit_publish
from airflow_incremental.iceberg.publish import publish_positions
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import draft, plan
from airflow_incremental.sessions.process import Session
from tests.support.world import TARGET, World, create


def drop(world: World) -> None:
    world.catalog.drop_table(TARGET)


def recreate(world: World) -> None:
    drop(world)
    create(world.catalog, TARGET, world.target_schema, world.partitioning)


def session_of(world: World) -> Session:
    found = plan(world.process("r"))
    assert isinstance(found, Session)
    return found


def take(world: World) -> Callable[[], Any]:
    process = world.process("r")
    planned = draft(process, world.target)
    assert isinstance(planned, Plan)
    return lambda: take_lock(process.catalog, process.spec, planned, over=None)


def move(world: World) -> Callable[[], Any]:
    process = world.process("r")
    planned = draft(process, world.target)
    assert isinstance(planned, Plan)
    return lambda: publish_positions(process.catalog, process.spec, planned)


def seal(world: World) -> Callable[[], Any]:
    session = session_of(world)
    output = steps.produce(session, world.target, "fingerprint")
    return lambda: steps.commit_seal(world.catalog, session.process.spec, session.begin, output)


def publish(world: World) -> Callable[[], Any]:
    session = session_of(world)
    sealed = steps.load(session)
    return lambda: commit_publish(world.catalog, session.begin, sealed, verdict="passed")


def prepared(home: Path) -> World:
    world = World(home=home).set_up()
    world.land(0, 1)
    steps.run(world.process())
    world.land(2)
    return world


COMMITS = pytest.mark.parametrize("commit", [take, move, seal, publish])


@COMMITS
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"the target 'mart\.result' was dropped before .*Register its last metadata file"),
        (recreate, r"is another table \(uuid .*dropped and created anew.*retry the task"),
    ],
)
def test_a_commit_says_that_its_table_is_gone(
    tmp_path: Path, commit: Callable[[World], Callable[[], Any]], change: Callable[[World], None], message: str
) -> None:
    world = prepared(tmp_path)
    late = commit(world)
    change(world)
    with pytest.raises(TargetReplaced, match=message):
        late()
    if change is recreate:
        assert world.target.metadata.refs == {}
        assert steps.run(world.process("r")).did_publish, "the retry loads the new table from the start"
        world.check()


@COMMITS
@pytest.mark.parametrize("change", [drop, recreate])
def test_at_the_very_last_moment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commit: Callable[[World], Callable[[], Any]],
    change: Callable[[World], None],
) -> None:
    """After the commit looked at the table and before it reached the catalog."""
    world = prepared(tmp_path)
    late = commit(world)
    real, calls = SqlCatalog.commit_table, 0

    def commit_table(self: Catalog, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            change(world)
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)
    with pytest.raises(TargetReplaced):
        late()


def test_between_two_steps(tmp_path: Path) -> None:
    world = prepared(tmp_path)
    session = session_of(world)
    recreate(world)
    with pytest.raises(TargetReplaced):
        steps.load(session)
    drop(world)
    with pytest.raises(TableError, match="does not exist"):
        steps.load(session)


def test_an_old_table_registered_again_has_its_watermark(tmp_path: Path) -> None:
    """What the error proposes."""
    world = prepared(tmp_path)
    location, before = world.target.metadata_location, published(world.target, "proc")
    drop(world)
    world.catalog.register_table(TARGET, location)
    assert published(world.target, "proc") == before
    assert steps.run(world.process()).did_publish
    world.check()
