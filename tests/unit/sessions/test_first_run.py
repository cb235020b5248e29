"""First runs, adoption, lost watermarks, cleared runs: where a process starts from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest

from airflow_incremental.core.errors import ArgumentError, SessionSuperseded, TargetNotEmpty, WatermarkLost
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.locks import read_lock
from airflow_incremental.iceberg.seal import SUMMARY_RANGES
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.tables import expire, roll_back
from tests.support.world import EVENTS, SOURCE, TARGET, World, create, hour

MODES = pytest.mark.parametrize("mode", ["append", "overwrite"])


@MODES
def test_all_takes_everything(tmp_path: Path, mode: str) -> None:
    world = World(home=tmp_path, mode=mode).set_up()
    world.land(0, 1)
    world.land(1.5, 9)
    assert steps.run(world.process()).did_publish
    world.check()


@MODES
def test_current_loads_nothing_and_remembers_where_it_stands(tmp_path: Path, mode: str) -> None:
    world = World(home=tmp_path, mode=mode, policies={"initial": "current"}).set_up()
    world.land(0, 1, 2)
    done = steps.run(world.process())
    assert done.outcome == "nothing_to_do"
    assert world.target_rows() == {}
    found = published(world.target, "proc")
    assert found is not None
    assert found.watermark.complete_through is not None, "what lies before it is late from now on"
    later = world.land(5.5, 7)
    assert steps.run(world.process()).did_publish
    assert world.target_rows() == world.oracle(later)


@MODES
@pytest.mark.parametrize("by", ["id", "time"])
def test_a_named_position_of_the_source(tmp_path: Path, mode: str, by: str) -> None:
    world = World(home=tmp_path, mode=mode).set_up()
    world.land(0, 1)
    start = world.source.current_snapshot()
    assert start is not None
    later = world.land(5, 6.5)
    committed = dt.datetime.fromtimestamp(start.timestamp_ms / 1000, dt.timezone.utc)
    world.policies = {"initial": start.snapshot_id if by == "id" else committed}
    steps.run(world.process())
    assert world.target_rows() == world.oracle(later)


def test_a_position_the_source_does_not_have(tmp_path: Path) -> None:
    world = World(home=tmp_path, policies={"initial": 12345}).set_up()
    world.land(0)
    with pytest.raises(ArgumentError, match=r"initial names snapshot 12345, which is not on branch 'main'"):
        steps.run(world.process())


@MODES
def test_a_filled_target_is_refused_unless_adopted(tmp_path: Path, mode: str) -> None:
    world = World(home=tmp_path, mode=mode).set_up()
    world.land(0, 1)
    steps.run(world.process())
    other = World(home=tmp_path, mode=mode, name="other")
    if mode == "overwrite":
        # Whoever wrote it before is forgotten: an unknown hand filled this table.
        _forget(world)
    before = world.target_rows()
    with pytest.raises(TargetNotEmpty, match=r"has no watermark on.*adopt"):
        steps.run(other.process())
    assert world.target_rows() == before
    other.policies = {"initial": {"adopt": "current"}}
    steps.run(other.process())
    assert world.target_rows() == before
    other.land(7)
    steps.run(other.process())
    assert other.target_rows() == other.oracle(other.source_rows())


def _forget(world: World) -> None:
    """Empty the target of every trace of the process, and fill it by hand."""
    rows = world.target.scan().to_arrow()
    world.catalog.drop_table(TARGET)
    table = create(world.catalog, TARGET, world.target_schema, world.partitioning)
    table.append(rows)


def test_a_first_run_on_an_empty_source_waits(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    assert steps.run(world.process()).outcome == "nothing_to_do"
    world.land(0)
    assert steps.run(world.process()).did_publish
    world.check()


def _replace_source(world: World) -> None:
    world.catalog.drop_table(SOURCE)
    create(world.catalog, SOURCE, EVENTS, ())


def _expire_watermark(world: World) -> None:
    head = world.source.metadata.current_snapshot_id
    expire(world.source, [s.snapshot_id for s in world.source.metadata.snapshots if s.snapshot_id != head])


def _roll_back_source(world: World) -> None:
    first = min(world.source.metadata.snapshots, key=lambda s: s.sequence_number or 0)
    roll_back(world.source, first.snapshot_id)


@MODES
@pytest.mark.parametrize("lose", [_replace_source, _expire_watermark])
def test_a_lost_source_position_fails_and_a_reload_is_right(
    tmp_path: Path, mode: str, lose: Callable[[Any], None]
) -> None:
    world = World(home=tmp_path, mode=mode).set_up()
    world.land(0, 1)
    steps.run(world.process())
    world.land(2)
    world.land(3)
    lose(world)
    world.land(4)
    before = world.target_rows()
    with pytest.raises(WatermarkLost, match="on_lost_watermark"):
        steps.run(world.process())
    assert world.target_rows() == before
    world.policies = {"on_lost_watermark": "reload"}
    steps.run(world.process())
    world.check()
    world.policies = {}
    world.land(0.5)
    steps.run(world.process())
    world.check()


def test_a_source_that_was_rolled_back(tmp_path: Path) -> None:
    """Overwrite computes what was rolled back again; append cannot take rows back and says so."""
    for mode in ("append", "overwrite"):
        world = World(home=tmp_path / mode, mode=mode).set_up()
        world.land(0, 1)
        world.land(2, 3)
        steps.run(world.process())
        _roll_back_source(world)
        world.land(2.5)
        if mode == "append":
            with pytest.raises(WatermarkLost):
                steps.run(world.process())
            continue
        steps.run(world.process())
        world.check()


@MODES
def test_a_target_that_was_replaced_is_not_a_first_run(tmp_path: Path, mode: str) -> None:
    """Some engines replace a table keeping its uuid and properties: the property still claims a watermark, the rows are gone."""
    world = World(home=tmp_path, mode=mode).set_up()
    world.land(0, 1)
    steps.run(world.process())
    stored = world.target.metadata.properties[naming.state_property("proc")]
    world.catalog.drop_table(TARGET)
    create(world.catalog, TARGET, world.target_schema, world.partitioning, **{naming.state_property("proc"): stored})
    with pytest.raises(WatermarkLost, match="which this one replaced"):
        steps.run(world.process())
    world.policies = {"on_lost_watermark": "reload"}
    steps.run(world.process())
    world.check()


@MODES
def test_a_cleared_run_computes_again_what_it_wrote(tmp_path: Path, mode: str) -> None:
    """After a newer run published: the cleared one restates its ranges as of the watermark, with the repaired transform."""
    world = World(home=tmp_path, mode=mode).set_up()
    world.land(0, 1)
    sql = world.process("a").transform
    column = "v10" if mode == "append" else "total"
    wrong = f"SELECT * REPLACE ({column} + 1 AS {column}) FROM ({sql})"
    steps.run(world.process("a", transform=wrong))
    world.land(2, 0.7)
    steps.run(world.process("b"))
    loaded = world.source_rows()
    world.land(0.1, 3)
    mark = published(world.target, "proc")
    again = steps.run(world.process("a", clear_number=1))
    assert again.did_publish
    assert world.target_rows() == world.oracle(loaded), "as of the watermark: what landed since is still to come"
    after = published(world.target, "proc")
    assert mark is not None
    assert after is not None
    assert after.watermark == mark.watermark
    assert steps.run(world.process("a", clear_number=1)).outcome == "already_published"
    steps.run(world.process("c"))
    world.check()


def test_a_cleared_append_run_leaves_the_rows_of_others_alone(tmp_path: Path) -> None:
    """Another process appends to the same hours: what it wrote is not this process's to replace."""
    a = World(home=tmp_path, name="a").set_up()
    a.land(0, 1)
    steps.run(a.process("a1"))
    b = World(home=tmp_path, name="b", policies={"initial": {"adopt": "all"}})
    steps.run(b.process("b1"))
    both = a.target_rows()
    steps.run(a.process("a1", clear_number=1))
    assert a.target_rows() == both


@pytest.mark.parametrize("many", [False, True])
def test_a_cleared_run_leaves_adopted_rows_between_its_ranges_alone(tmp_path: Path, many: bool) -> None:
    """Many ranges are merged where they are kept with the snapshot, and what lies between them is not the run's."""
    world = World(home=tmp_path, mode="overwrite", policies={"initial": {"adopt": "all"}}).set_up()
    adopted = {"hour_ts": hour(3), "region": "zz", "n": 1, "total": 1}
    world.target.append(pa.Table.from_pylist([adopted], schema=world.target_schema))
    world.land(*range(0, 2 * SUMMARY_RANGES + 2 if many else 8, 2))
    steps.run(world.process("a"))
    rows = world.target_rows()
    again = steps.run(world.process("a", clear_number=1))
    assert again.did_publish is not many
    assert world.target_rows() == rows


def test_a_cleared_append_run_keeps_rows_whose_deletion_was_ignored(tmp_path: Path) -> None:
    """A source that drops what is old, and a target that keeps it: computed again, the rows would be gone."""
    world = World(home=tmp_path, policies={"on_rewrite": "ignore"}).set_up()
    world.land(0, 1)
    steps.run(world.process("a"))
    world.source.delete("id = 1")
    world.land(6)
    steps.run(world.process("b"))
    rows = world.target_rows()
    assert rows.total() == 3
    assert not steps.run(world.process("a", clear_number=1)).did_publish
    assert world.target_rows() == rows


def test_a_cleared_run_whose_publish_is_expired_says_that_it_only_loads_what_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(0, 1)
    first = steps.run(world.process("a")).published
    world.land(2)
    steps.run(world.process("b"))
    assert first is not None
    expire(world.target, [first.snapshot_id])
    assert "was cleared" not in caplog.text
    assert steps.run(world.process("a", clear_number=1)).outcome == "nothing_to_do"
    assert "this run was cleared, and no publish of it is kept" in caplog.text
    world.check()


def test_a_session_of_another_declaration_is_not_resumed(tmp_path: Path) -> None:
    """The DAG was corrected between two tries: the plan of the first one is about something else."""
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(0, 1)
    first = plan(world.process("r"))
    assert isinstance(first, Session)
    world.policies = {"on_null_event_time": "own_range"}
    world.land(None)
    assert steps.run(world.process("r")).did_publish
    world.check()


@pytest.mark.parametrize("stage", ["load", "publish"])
def test_a_session_of_another_declaration_is_not_handed_to_the_next_stage(tmp_path: Path, stage: str) -> None:
    """The DAG was changed while the tasks of a group ran: ranges planned by one rule are not replaced by another."""
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(0, 5)
    steps.run(world.process())
    before = world.target_rows()
    world.land(0.5)
    session = plan(world.process("r"))
    assert isinstance(session, Session)
    if stage == "publish":
        steps.load(session)
    spec = world.spec
    other = attrs.evolve(spec, mode="append", target=attrs.evolve(spec.target, event_time=None))
    with pytest.raises(SessionSuperseded, match="planned from another declaration"):
        steps.resume(world.process("r", spec=other), session.plan.session, again=stage == "publish")
    assert read_lock(world.target, "proc") is None, "nobody has to wait for it"
    assert world.target_rows() == before
    steps.run(world.process("r"))
    world.check()
