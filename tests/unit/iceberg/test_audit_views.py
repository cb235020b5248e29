"""What an engine that reads whole snapshots is shown of a sealed session."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental.core.errors import SessionSuperseded
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.audit_views import make_views
from airflow_incremental.iceberg.seal import Sealed
from airflow_incremental.iceberg.touched import read_touched
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.auditing import audit
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.world import World


def rows_at(world: World, snapshot_id: int) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(r.values()) for r in world.target.scan(snapshot_id=snapshot_id).to_arrow().to_pylist())


def audit_branches(world: World, session: Session) -> list[str]:
    of = (session.plan.process, session.plan.session)
    return [name for name in world.target.metadata.refs if naming.audit_of_ref(name, *of)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(home=tmp_path, mode="overwrite").set_up()
    found.land(0.1, 1.1, 2.1, 3.1)
    steps.run(found.process())
    found.land(1.2, 3.2)
    found.land(0.2, region="us")
    return found


@pytest.fixture
def opened(world: World) -> tuple[Session, Sealed]:
    session = plan(world.process())
    assert isinstance(session, Session)
    return session, steps.load(session)


def test_each_scope_is_a_snapshot(world: World, opened: tuple[Session, Sealed]) -> None:
    session, sealed = opened
    views = make_views(session.process.catalog, session.begin, sealed, ["rows", "partitions", "table"])
    whole = rows_at(world, sealed.snapshot_id)
    shown = {over: rows_at(world, snapshot) for over, snapshot in views.snapshots.items()}
    assert shown["table"] == whole
    assert shown["rows"].total() == sealed.output.rows == 4  # two regions in hour 0
    touched = read_touched(world.target, "rows", sealed.snapshot_id)
    assert shown["partitions"].total() == touched.rows == 4
    assert shown["rows"] <= shown["partitions"] < whole
    assert world.target.metadata.refs[views.branch].snapshot_id == views.head == views.snapshots["partitions"]
    assert views.snapshots["table"] == sealed.snapshot_id


def test_a_new_attempt_drops_the_ones_before_it(world: World, opened: tuple[Session, Sealed]) -> None:
    session, sealed = opened
    catalog = session.process.catalog
    first = make_views(catalog, session.begin, sealed, ["rows", "partitions"])
    second = make_views(catalog, session.begin, sealed, ["table"])
    assert audit_branches(world, session) == [second.branch]
    assert (first.branch[-2:], second.branch[-2:]) == ("_1", "_2")
    left = {s.snapshot_id for s in world.target.metadata.snapshots}
    assert left.isdisjoint(first.snapshots.values())
    assert sealed.snapshot_id in left
    # Where nothing but the table is looked at, the branch begins with a snapshot of its own that shows nothing.
    assert second.snapshots == {"table": sealed.snapshot_id}
    assert rows_at(world, second.head) == {}


def test_they_go_with_the_session(world: World, opened: tuple[Session, Sealed]) -> None:
    session, sealed = opened
    make_views(session.process.catalog, session.begin, sealed, ["rows", "partitions"])
    assert steps.publish(session, audit(session, sealed)).outcome == "published"
    world.check()
    ancestors = {s.snapshot_id for s in world.target.history()}
    assert {s.snapshot_id for s in world.target.metadata.snapshots} <= ancestors


def test_only_who_holds_the_lock_makes_them(world: World, opened: tuple[Session, Sealed]) -> None:
    session, sealed = opened
    steps.abandon(world.catalog, session.plan.target, session.plan.process, reason="by hand")
    before = world.target.metadata.refs
    with pytest.raises(SessionSuperseded):
        make_views(session.process.catalog, session.begin, sealed, ["rows"])
    assert world.target.metadata.refs == before
