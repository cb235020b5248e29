"""Maintenance while a session is open, at every step of it: the session ends as if there had been none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest

from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.tables import IcebergSource
from airflow_incremental.iceberg.completeness import told_through
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.maintaining import KEEN, maintained
from tests.support.modes import MODES, world_of
from tests.support.world import SOURCE, TARGET, World, hour

ARRIVAL = CompleteThrough.arrival()


def keep_up(world: World) -> int:
    """Maintain all tables as keenly as can be, and return how many files of the target were compacted."""
    names = [".".join(name) for name in world.catalog.list_tables("raw")]
    for name in names:
        maintained(world.catalog, name, consumers=[TARGET])
    return maintained(world.catalog, TARGET).compaction.files_before


@pytest.mark.parametrize("mode", MODES)
def test_at_every_step(tmp_path: Path, mode: str) -> None:
    world = world_of(tmp_path, mode).set_up()
    for late in (0.1, 0.2, 0.3):
        world.land(late, 1 + late, 2.5)
        world.land(late + 0.05, region="us")
        steps.run(world.process())
    world.land(1.7, 0.4, 3.2)
    session = plan(world.process("slow", keep_parts_every=0.0))
    assert isinstance(session, Session)
    keep_up(world)
    sealed = steps.load(session)
    # What comes to main meanwhile, from the same load under another name or from others, is compacted under the session.
    keep_up(world)
    report = steps.audit(session, sealed)
    keep_up(world)
    finished = steps.publish(session, report)
    assert finished.did_publish
    world.check()
    keep_up(world)
    world.check()
    assert steps.run(world.process()).outcome == "nothing_to_do"


@pytest.mark.parametrize("mode", ["append in chunks", "overwrite in chunks"])
def test_between_the_workers_of_chunks(tmp_path: Path, mode: str) -> None:
    world = world_of(tmp_path, mode).set_up()
    for late in (0.1, 0.2, 0.3):
        world.land(late, 1 + late, 2.5)
    steps.run(world.process())
    world.land(1.7, 0.4, 3.2)
    world.land(0.8, 2.9)
    session = plan(world.process("slow"))
    assert isinstance(session, Session)
    chunks = len(session.plan.chunks)
    assert chunks > 1
    for chunk in range(chunks):
        keep_up(world)
        assert steps.load_chunk(session, chunk) == (chunk + 1, chunks)
    keep_up(world)
    assert steps.run(world.process("slow")).did_publish
    world.check()


@pytest.mark.parametrize("mode", ["append", "overwrite"])
@pytest.mark.parametrize("when", ["planned", "sealed"])
def test_a_compaction_of_the_very_ranges_a_session_replaces(tmp_path: Path, mode: str, when: str) -> None:
    """Its conflict check sees no change, and its seal replaces what is there now."""
    world = World(home=tmp_path, mode=mode, target_fields=(("day", "ts" if mode == "append" else "hour_ts"),)).set_up()
    for n in range(4):
        world.land(n, n + 0.5)
        steps.run(world.process())
    if mode == "overwrite":  # whose files a session replaces: others add some to the same day
        row = {"hour_ts": hour(5), "region": "zz", "n": 0, "total": 0}
        for _ in range(3):
            world.target.append(pa.Table.from_pylist([row], schema=world.target_schema))
    world.land(1.75, 3.25)
    session = plan(world.process("slow"))
    assert isinstance(session, Session)
    sealed = steps.load(session) if when == "sealed" else None
    before = world.target.metadata.current_snapshot_id
    done = maintained(world.catalog, TARGET, attrs.evolve(KEEN, compact=1))
    assert done.compaction.files_before > 1
    assert world.target.metadata.current_snapshot_id != before
    sealed = sealed or steps.load(session)
    finished = steps.publish(session, steps.audit(session, sealed))
    assert finished.did_publish
    assert {row for row in world.target_rows() if "zz" not in row} == set(world.oracle(world.source_rows()))


def test_own_writes(tmp_path: Path) -> None:
    """The author's branch stands on what main was; what it wrote is put on what main is."""
    world = World(home=tmp_path).set_up()
    for n in range(3):
        world.land(0.1, n)
        steps.run(world.process())
    new = world.land(0.2, 5)
    session = plan(world.process("own", transform=None))
    assert isinstance(session, Session)
    assert keep_up(world) > 1
    branch = next(name for name in world.target.metadata.refs if name.endswith("_0_0"))
    rows = [dict(zip(world.target_schema.names, row, strict=True)) for row in world.oracle(new)]
    world.target.append(pa.Table.from_pylist(rows, schema=world.target_schema), branch=branch)
    keep_up(world)
    sealed = steps.load(session)
    keep_up(world)
    steps.publish(session, steps.audit(session, sealed))
    world.check()


def test_a_compaction_is_no_arrival(tmp_path: Path) -> None:
    """What is complete by the clock of the last arrival does not move because files were rewritten."""
    world = World(home=tmp_path).set_up()
    source = IcebergSource(SOURCE, event_time="ts", complete_through=ARRIVAL)

    def process() -> Any:
        return attrs.evolve(world.process(), spec=attrs.evolve(world.spec, sources={"events": source}))

    for n in range(3):
        world.land(n)
    before = steps.run(process()).published
    assert before is not None
    assert before.watermark.complete_through is not None
    assert maintained(world.catalog, SOURCE, consumers=[TARGET]).compaction.snapshot_id is not None
    assert steps.run(process()).outcome == "nothing_to_do"
    head = maintained(world.catalog, SOURCE).expiry.snapshots
    assert before.watermark.positions["events"].snapshot_id in head, "only the compaction is left"
    told = told_through(world.source, "main", world.source.current_snapshot(), ARRIVAL)
    assert told == before.watermark.positions["events"].committed_at


def test_a_null_event_time(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite", policies={"on_null_event_time": "own_range"}).set_up()
    for n in range(3):
        world.land(None, n, n)
        steps.run(world.process())
        keep_up(world)
        world.check()
    world.land(None)
    keep_up(world)
    steps.run(world.process())
    world.check()
    assert steps.run(world.process()).outcome == "nothing_to_do"
