"""Others act on the target, or on the process, while a session is under way: the session ends right or says why it cannot."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.types import StringType

from airflow_incremental.core.errors import (
    ForeignSession,
    ScopeOverlap,
    SessionBusy,
    SessionSuperseded,
    TargetChanged,
    TransformError,
    WatermarkLost,
)
from airflow_incremental.core.plan import Owner
from airflow_incremental.iceberg.locks import end_session
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Process, Session
from tests.support.modes import world_of
from tests.support.tables import compact, roll_back
from tests.support.world import TARGET, World, hour

ALL = pytest.mark.parametrize("mode", ["append", "overwrite", "stateful", "merge"])


def begun(tmp_path: Path, mode: str, uri: str | None, **options: Any) -> World:
    world = world_of(tmp_path, mode, catalog_uri=uri, **options).set_up()
    world.land(0.1, 1, 2)
    steps.run(world.process())
    world.land(1.5, 3, 3.2)
    return world


def opened(process: Process) -> Session:
    session = plan(process)
    assert isinstance(session, Session)
    return session


def foreign_row(world: World, at: float) -> pa.Table:
    values = {"id": -1, "ts": hour(at), "hour_ts": hour(at), **dict.fromkeys(("region", "customer"), "zz")}
    values |= dict.fromkeys(("v10", "n", "total", "balance"), 0)
    return pa.table({n: [values[n]] for n in world.target_schema.names}, schema=world.target_schema)


@ALL
def test_two_runs_at_once(tmp_path: Path, mode: str, catalog_uri: str | None) -> None:
    """Of runs that start together one works; the others are told who does, and find nothing to do afterwards."""
    world = begun(tmp_path, mode, catalog_uri, over=lambda _owner: False)
    outcomes: list[str] = []

    def work(n: int) -> None:
        try:
            outcomes.append(steps.run(world.process(f"racer{n}")).outcome)
        except SessionBusy as busy:
            outcomes.append("busy" if "locked" in str(busy) else str(busy))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("published") == 1
    assert set(outcomes) <= {"published", "busy", "nothing_to_do"}
    world.check()
    assert steps.run(world.process("later")).outcome == "nothing_to_do"


@ALL
def test_a_run_that_is_alive_is_not_disturbed(tmp_path: Path, mode: str, catalog_uri: str | None) -> None:
    world = begun(tmp_path, mode, catalog_uri, over=lambda _owner: False)
    session = opened(world.process("alive"))
    with pytest.raises(SessionBusy, match=r"locked by session .* of run 'alive' of DAG 'dag'.*when_busy"):
        steps.run(world.process("other"))
    steps.publish(session, steps.audit(session, steps.load(session)))
    world.check()


@ALL
def test_a_run_of_another_deployment(tmp_path: Path, mode: str, catalog_uri: str | None) -> None:
    world = begun(tmp_path, mode, catalog_uri)
    opened(world.process("there"))
    elsewhere = Owner(deployment="elsewhere", dag_id="dag", run_id="r", task_id="load")
    with pytest.raises(ForeignSession, match=r"deployment 'here'.*this deployment is 'elsewhere'.*abandon"):
        steps.run(world.process(owner=elsewhere))


@ALL
def test_abandoned_by_hand(tmp_path: Path, mode: str, catalog_uri: str | None) -> None:
    world = begun(tmp_path, mode, catalog_uri, over=lambda _owner: False)
    session = opened(world.process("stuck"))
    report = steps.audit(session, steps.load(session))
    assert steps.abandon(world.catalog, TARGET, "proc", reason="its cluster is gone") == session.plan.session
    assert steps.abandon(world.catalog, TARGET, "proc", reason="again") is None
    with pytest.raises(SessionSuperseded):
        steps.publish(session, report)
    assert steps.run(world.process("next")).did_publish
    world.check()


@ALL
def test_taken_over_between_load_and_publish(tmp_path: Path, mode: str, catalog_uri: str | None) -> None:
    world = begun(tmp_path, mode, catalog_uri)
    session = opened(world.process("old"))
    report = steps.audit(session, steps.load(session))
    world.land(0.7)
    assert steps.run(world.process("new")).did_publish
    world.check()
    with pytest.raises(SessionSuperseded, match="taken over"):
        steps.publish(session, report)
    with pytest.raises(SessionSuperseded):
        steps.resume(session.process, session.plan.session, again=False)
    world.check()


@ALL
def test_somebody_appends_elsewhere(tmp_path: Path, mode: str, catalog_uri: str | None) -> None:
    """Rows outside the session's ranges are no conflict: the session is sealed again on top of them."""
    world = begun(tmp_path, mode, catalog_uri)
    session = opened(world.process())
    report = steps.audit(session, steps.load(session))
    world.target.append(foreign_row(world, 100))
    assert steps.publish(session, report).did_publish
    rows = world.target_rows()
    assert sum(n for row, n in rows.items() if "zz" in row) == 1
    assert {row: n for row, n in rows.items() if "zz" not in row} == world.oracle(world.source_rows())


def test_somebody_writes_the_same_range(tmp_path: Path, catalog_uri: str | None) -> None:
    world = begun(tmp_path, "overwrite", catalog_uri)
    process = world.process()
    session = opened(process)
    report = steps.audit(session, steps.load(session))
    world.target.append(foreign_row(world, 3.5))
    with pytest.raises(TargetChanged, match=r"others changed 1 files .* in the ranges session .* replaces"):
        steps.publish(session, report)
    assert sum(n for row, n in world.target_rows().items() if "zz" in row) == 1, "nothing was overwritten unseen"
    steps.run(process)
    world.check()


def test_what_others_committed_and_rolled_back_is_not_removed_with_the_session(
    tmp_path: Path, catalog_uri: str | None
) -> None:
    """The session's snapshots stand on it, but somebody may want to go forward to it again."""
    world = begun(tmp_path, "append", catalog_uri)
    before = world.target.metadata.current_snapshot_id
    assert before is not None
    session = opened(world.process())
    world.target.append(foreign_row(world, 100))
    theirs = world.target.metadata.current_snapshot_id
    steps.load(session)
    roll_back(world.target, before)
    assert end_session(world.catalog, session.begin, keep=False, reason="the next case")
    assert {s.snapshot_id for s in world.target.metadata.snapshots} >= {before, theirs}
    assert steps.run(world.process()).did_publish
    world.check()


@ALL
def test_the_target_is_compacted(tmp_path: Path, mode: str, catalog_uri: str | None) -> None:
    for between in ("plan", "seal"):
        world = begun(tmp_path / between, mode, catalog_uri if between == "seal" else None)
        session = opened(world.process())
        if between == "plan":
            compact(world.target)
        sealed = steps.load(session)
        if between == "seal":
            compact(world.target)
        assert steps.publish(session, steps.audit(session, sealed)).did_publish
        world.check()


@ALL
@pytest.mark.parametrize("what", ["schema", "spec"])
def test_the_target_changes_shape(tmp_path: Path, mode: str, what: str, catalog_uri: str | None) -> None:
    world = begun(tmp_path, mode, catalog_uri)
    process = world.process()
    session = opened(process)
    report = steps.audit(session, steps.load(session))
    if what == "schema":
        with world.target.update_schema() as update:
            update.add_column("note", StringType())
    else:
        with world.target.update_spec() as update:
            update.add_identity("customer" if mode == "stateful" else "region")
    with pytest.raises(TargetChanged, match="changed to schema"):
        steps.publish(session, report)
    transform = process.transform
    if what == "schema":
        transform = f"SELECT *, NULL::VARCHAR AS note FROM ({process.transform})"
    assert steps.run(world.process("again", transform=transform)).did_publish
    world.check()


@ALL
def test_the_watermark_is_set_by_hand(tmp_path: Path, mode: str, catalog_uri: str | None) -> None:
    """Another publish of the process between seal and publish, as a hand-set watermark is one: the session gives way."""
    world = begun(tmp_path, mode, catalog_uri)
    session = opened(world.process("mine"))
    report = steps.audit(session, steps.load(session))
    head = world.target.metadata.current_snapshot_id
    assert head is not None
    first = min(s.snapshot_id for s in world.target.metadata.snapshots if s.parent_snapshot_id is None)
    roll_back(world.target, first)
    with pytest.raises((TargetChanged, WatermarkLost)):
        steps.publish(session, report)
    roll_back_to(world, head)
    found = published(world.target, "proc")
    assert found is not None
    steps.run(world.process("next"))
    world.check()


def roll_back_to(world: World, snapshot_id: int) -> None:
    with world.target.manage_snapshots() as refs:
        refs.set_current_snapshot(snapshot_id=snapshot_id)


@ALL
def test_an_old_run_is_cleared_after_a_newer_one_published(tmp_path: Path, mode: str, catalog_uri: str | None) -> None:
    world = begun(tmp_path, mode, catalog_uri)
    steps.run(world.process("second"))
    world.land(2.5, 4)
    steps.run(world.process("third"))
    before = published(world.target, "proc")
    assert steps.run(world.process("second", clear_number=1)).did_publish
    after = published(world.target, "proc")
    assert before is not None
    assert after is not None
    assert after.watermark == before.watermark
    world.check()


def test_two_scopes_on_one_target(tmp_path: Path, catalog_uri: str | None) -> None:
    """Processes that replace disjoint scopes run side by side and do not touch each other's rows."""
    fields = (("hour", "hour_ts"), ("identity", "region"))
    options: dict[str, Any] = {"mode": "overwrite", "catalog_uri": catalog_uri, "target_fields": fields}
    eu = World(home=tmp_path, name="eu", scope={"region": "eu"}, **options).set_up()
    us = World(home=tmp_path, name="us", scope={"region": ["us", "ca"]}, **options)
    sql = "SELECT * FROM ({}) WHERE region IN ({})"
    plain = eu.process().transform
    regions = {eu.name: "'eu'", us.name: "'us', 'ca'"}

    def run(world: World) -> None:
        steps.run(world.process(transform=sql.format(plain, regions[world.name])))

    errors: list[BaseException] = []

    def many(world: World) -> None:
        try:
            for _ in range(3):
                run(world)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    for tick in range(3):
        eu.land(tick, tick + 0.5, 1)
        eu.land(tick, 2, region="us")
        eu.land(tick, region="ca")
        threads = [threading.Thread(target=many, args=(w,)) for w in (eu, us)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert eu.target_rows() == eu.oracle(eu.source_rows())


def test_overlapping_scopes_are_refused(tmp_path: Path, catalog_uri: str | None) -> None:
    fields = (("hour", "hour_ts"), ("identity", "region"))
    options: dict[str, Any] = {"mode": "overwrite", "catalog_uri": catalog_uri, "target_fields": fields}
    eu = World(home=tmp_path, name="eu", scope={"region": "eu"}, **options).set_up()
    eu.land(0, 1)
    steps.run(eu.process())
    everything = World(home=tmp_path, name="all", policies={"initial": {"adopt": "all"}}, **options)
    with pytest.raises(ScopeOverlap, match=r"process 'all' \(scope the whole table\) and process 'eu'"):
        steps.run(everything.process())
    # One that is only planned so far counts as well.
    eu.land(2)
    opened(eu.process())
    also = World(
        home=tmp_path, name="also", scope={"region": ["eu", "us"]}, policies={"initial": {"adopt": "all"}}, **options
    )
    with pytest.raises(ScopeOverlap):
        steps.run(also.process())


def test_rows_outside_the_scope_fail_the_session(tmp_path: Path, catalog_uri: str | None) -> None:
    fields = (("hour", "hour_ts"), ("identity", "region"))
    eu = World(
        home=tmp_path,
        name="eu",
        mode="overwrite",
        scope={"region": "eu"},
        catalog_uri=catalog_uri,
        target_fields=fields,
    ).set_up()
    eu.land(0, region="us")
    with pytest.raises(TransformError, match="region"):
        steps.run(eu.process())
    assert eu.target_rows() == {}
