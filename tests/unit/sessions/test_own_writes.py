"""The author's own writes to the scratch branch: what is sealed, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.expressions import AlwaysTrue, And, GreaterThanOrEqual, LessThan

from airflow_incremental.core.errors import TargetChanged, TransformError
from airflow_incremental.iceberg import naming
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.tables import compact, expire
from tests.support.world import World


def opened(world: World) -> tuple[Session, str]:
    session = plan(world.process(transform=None))
    assert isinstance(session, Session)
    return session, naming.scratch_ref("proc", session.plan.session)


def rows(world: World, source: list[Any]) -> pa.Table:
    found = [
        dict(zip(world.target_schema.names, r, strict=True)) for r, n in world.oracle(source).items() for _ in range(n)
    ]
    return pa.Table.from_pylist(found, schema=world.target_schema)


def finish(session: Session) -> None:
    steps.publish(session, steps.audit(session, steps.load(session)))


def test_append(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(0, 1)
    steps.run(world.process())
    new = world.land(0.5, 2)
    session, branch = opened(world)
    world.target.append(rows(world, new), branch=branch)
    finish(session)
    world.check()


def test_overwrite_of_the_planned_ranges_and_a_second_try(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(0, 1, 2)
    steps.run(world.process())
    world.land(1.5, 3)
    session, branch = opened(world)
    wanted = [r for r in world.source_rows() if r[1] is not None and session.plan.replaced.contains(r[1])]
    for _ in range(2):  # the task was retried: it overwrites its own earlier try
        for part in session.plan.replaced.ranges:
            inside = And(
                GreaterThanOrEqual("hour_ts", part.start.isoformat()), LessThan("hour_ts", part.end.isoformat())
            )
            here = [r for r in wanted if r[1] is not None and part.start <= r[1] < part.end]
            world.target.overwrite(rows(world, here), overwrite_filter=inside, branch=branch)
    finish(session)
    world.check()


def test_an_empty_commit_empties_the_planned_ranges(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(0, 1)
    steps.run(world.process())
    world.land(1.5)
    session, branch = opened(world)
    world.target.append(world.target_schema.empty_table(), branch=branch)
    finish(session)
    left = [r for r in world.source_rows() if r[1] is not None and not session.plan.replaced.contains(r[1])]
    world.check(rows=left)


def test_writes_that_never_arrived_are_not_an_empty_result(tmp_path: Path) -> None:
    for mode in ("append", "overwrite"):
        world = World(home=tmp_path / mode, mode=mode).set_up()
        world.land(0, 1)
        session, _ = opened(world)
        with pytest.raises(TransformError, match="nothing was committed to the scratch branch"):
            steps.load(session)


def test_writes_done_again_after_the_seal_are_what_is_published(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    new = world.land(0, 1)
    session, branch = opened(world)
    world.target.append(rows(world, new[:1]), branch=branch)
    steps.load(session)
    world.target.overwrite(rows(world, new), branch=branch)
    finish(session)
    world.check()


def test_rows_outside_the_plan_are_refused(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(0, 1, 2)
    steps.run(world.process())
    before = world.target_rows()
    world.land(1.5)
    session, branch = opened(world)
    world.target.append(rows(world, world.source_rows()), branch=branch)
    with pytest.raises(TransformError, match=r"rows of .* lie outside the planned ranges"):
        steps.load(session)
    assert world.target_rows() == before


def test_appended_rows_outside_the_scope_are_refused(tmp_path: Path) -> None:
    fields = (("identity", "region"), ("hour", "ts"))
    for region, refused in (("us", True), ("eu", False)):
        world = World(home=tmp_path / region, target_fields=fields, scope={"region": "eu"}).set_up()
        new = world.land(0, 1, region=region)
        session, branch = opened(world)
        world.target.append(rows(world, new), branch=branch)
        if refused:
            with pytest.raises(TransformError, match=r"1 rows of .* lie outside the scope"):
                steps.load(session)
            assert not world.target_rows()
        else:
            finish(session)
            world.check()


def test_removing_more_than_the_plan_is_refused(tmp_path: Path) -> None:
    for mode in ("append", "overwrite"):
        world = World(home=tmp_path / mode, mode=mode).set_up()
        world.land(0, 1, 2)
        steps.run(world.process())
        world.land(1.5)
        session, branch = opened(world)
        world.target.delete(AlwaysTrue(), branch=branch)
        with pytest.raises(TransformError, match=r"cannot be published.*remove"):
            steps.load(session)


def test_a_dropped_scratch_branch(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(0)
    session, branch = opened(world)
    with world.target.manage_snapshots() as refs:
        refs.remove_branch(branch)
    with pytest.raises(TransformError, match=r"scratch branch .* is gone"):
        steps.load(session)


def test_the_snapshot_that_was_planned_on_is_expired(tmp_path: Path) -> None:
    """What was written cannot be told from what was there; the session ends, and a new one starts over."""
    world = World(home=tmp_path).set_up()
    world.land(0, 1)
    steps.run(world.process())
    new = world.land(2)
    session, branch = opened(world)
    world.target.append(rows(world, new), branch=branch)
    compact(world.target)
    with world.target.manage_snapshots() as refs:
        refs.remove_tag(naming.watermark_tag("proc"))
    expire(world.target, [session.plan.main])
    with pytest.raises(TargetChanged, match="has been expired"):
        steps.load(session)
    steps.run(world.process())
    world.check()
