"""Mode ``merge``: rows are inserted, updated and deleted by key, and nothing else is touched or read."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyiceberg.expressions import EqualTo
from pyiceberg.table.snapshots import Operation

from airflow_incremental.core.errors import DeclarationChanged, TargetChanged
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.tables import (
    commit_snapshot,
    compact,
    delete_rows_by_position,
    expire,
    live_files,
    position_delete_file,
)
from tests.support.totals import Totals, four_regions
from tests.support.world import SOURCE, TARGET, create, hour, rows_table


@pytest.fixture
def world(tmp_path: Path) -> Totals:
    """Four regions, each in files of its own."""
    return four_regions(tmp_path)


def seen(world: Totals) -> tuple[list[str], Any]:
    """Return a list that a run fills with the regions its transform reads, and the transform."""
    regions: list[str] = []

    def transform(relations: Any, _plan: Plan) -> Any:
        regions.extend(sorted(r[0] for r in relations["events"].select("region").distinct().fetchall()))
        return relations["events"].query("events", world.sql)

    return regions, transform


def planned(world: Totals) -> Plan:
    session = plan(world.process("look"))
    assert isinstance(session, Session)
    return session.plan


def test_rows_are_inserted_updated_and_deleted_by_key(world: Totals) -> None:
    world.land(3, region="eu")
    world.land(3, region="new")
    world.source.delete(EqualTo("region", "us"))
    regions, transform = seen(world)
    world.tick(transform=transform)
    assert regions == ["eu", "new"], "the rows of the changed keys and no others"
    world.check()
    assert {r[0] for r in world.target_rows()} == {"eu", "new", "ap", "za"}


def test_a_key_may_have_several_rows(world: Totals) -> None:
    sql = "SELECT region, id AS n, v AS total FROM events"
    world.land(3, region="eu")
    world.tick(transform=sql)
    assert sorted(r[1] for r in world.target_rows() if r[0] == "eu") == [1, 2, 10]
    world.source.delete(EqualTo("id", 2))
    world.tick(transform=sql)
    assert sorted(r[1] for r in world.target_rows() if r[0] == "eu") == [1, 10]


def test_rows_of_a_rewritten_file_that_stayed_the_same_are_no_changes(tmp_path: Path) -> None:
    world = Totals(home=tmp_path).set_up()
    world.source.append(rows_table([(i, hour(1), region, i * 3) for i, region in enumerate("abcdef")]))
    world.tick()
    world.source.delete(EqualTo("id", 2))
    assert [f.record_count for f in live_files(world.source)] == [5], "one file, rewritten for the sake of one row"
    regions, transform = seen(world)
    world.tick(transform=transform)
    assert regions == []
    world.check()
    world.source.overwrite(rows_table([(4, hour(1), "e", 7)]), EqualTo("id", 4))
    regions, transform = seen(world)
    world.tick(transform=transform)
    assert regions == ["e"]
    world.check()


def test_deletes_by_position_and_compaction(world: Totals) -> None:
    delete_rows_by_position(world.source, [3])
    regions, transform = seen(world)
    world.tick(transform=transform)
    assert regions == ["us"]
    world.check()
    compact(world.source)
    assert world.tick().outcome == "nothing_to_do"
    world.land(4, region="za")
    compact(world.source)
    delete_rows_by_position(world.source, [6])
    regions, transform = seen(world)
    world.tick(transform=transform)
    assert regions == ["ap", "za"]
    world.check()


def test_files_of_the_target_without_a_changed_key_stay(tmp_path: Path) -> None:
    world = Totals(home=tmp_path, target_fields=(("bucket[8]", "region"),)).set_up()
    for region in "abcdefgh":
        world.land(1, region=region)
    world.tick()
    before = {f.file_path: f.record_count for f in live_files(world.target)}
    assert len(before) > 2
    world.land(2, region="c")
    world.tick()
    world.check()
    gone = before.keys() - {f.file_path for f in live_files(world.target)}
    assert len(gone) == 1


def test_the_plan_says_how_much_is_searched(tmp_path: Path) -> None:
    world = Totals(home=tmp_path, keys=("id",)).set_up()
    for _ in range(5):
        world.land(1, 2)
    world.tick()
    world.source.overwrite(rows_table([(4, hour(1), "eu", 3)]), EqualTo("id", 4))
    made = planned(world)
    (source,) = made.sources
    assert source.scan_files == 2, "of six"
    assert 0 < source.scan_bytes < 400
    assert f"at most 2 files are searched for them ({source.scan_bytes} bytes of key columns)" in made.describe()
    assert "replaces the rows of the changed keys (id) in mart.result" in made.describe()
    assert steps.run(world.process("look")).did_publish
    world.check()


def test_a_horizon_leaves_out_files_that_are_too_far_away(tmp_path: Path) -> None:
    world = Totals(home=tmp_path, policies={"key_horizon": dt.timedelta(hours=30)}).set_up()
    world.land(0, region="a")
    world.land(100, region="a")
    world.land(80, region="b")
    world.tick()
    assert {(r[0], r[1]) for r in world.target_rows()} == {("a", 2), ("b", 1)}
    world.land(110, region="a")
    assert planned(world).sources[0].scan_files == 2
    regions, transform = seen(world)
    steps.run(world.process("look", transform=transform))
    assert regions == ["a"]
    assert {(r[0], r[1]) for r in world.target_rows()} == {("a", 2), ("b", 1)}, "the row of hour 0 is beyond"


def test_a_changed_row_without_an_event_time_is_within_no_horizon(tmp_path: Path) -> None:
    policies = {"key_horizon": 3600, "on_null_event_time": "own_range"}
    world = Totals(home=tmp_path, policies=policies).set_up()
    world.land(1, region="eu")
    world.land(None, region="eu")
    world.tick()
    world.land(None, region="eu")
    world.tick()
    world.check()


def test_columns_of_other_names_and_types(tmp_path: Path) -> None:
    world = Totals(home=tmp_path).set_up()
    create(world.catalog, "raw.old", pa.schema([("number", pa.int32()), ("area", pa.string())]), ())
    create(
        world.catalog,
        "mart.areas",
        pa.schema([("area", pa.large_string()), ("id", pa.int64()), ("n", pa.int64())]),
        (("bucket[3]", "id"), ("identity", "area")),
    )
    spec = ProcessSpec(
        process="areas",
        sources={
            "events": IcebergSource(SOURCE, key_columns=("id", "region")),
            "old": IcebergSource("raw.old", key_columns=("number", "area")),
        },
        target=IcebergTarget("mart.areas"),
        mode="merge",
        keys=("id", "area"),
    )
    sql = """
        SELECT id, area, count(*) AS n FROM (
            SELECT id, region AS area FROM events UNION ALL SELECT number::BIGINT, area FROM old
        ) GROUP BY ALL
    """

    def tick() -> set[tuple[Any, ...]]:
        steps.run(attrs.evolve(world.process(transform=sql), spec=spec))
        rows = world.catalog.load_table("mart.areas").scan().to_arrow().to_pylist()
        return {(r["id"], r["area"], r["n"]) for r in rows}

    old = pa.schema([("number", pa.int32()), ("area", pa.string())])
    world.land(1, region="eu")
    assert tick() == {(1, "eu", 1)}
    world.catalog.load_table("raw.old").append(pa.table({"number": [1, 1], "area": ["eu", "us"]}, schema=old))
    assert tick() == {(1, "eu", 2), (1, "us", 1)}
    world.source.delete(EqualTo("id", 1))
    assert tick() == {(1, "eu", 1), (1, "us", 1)}
    world.catalog.load_table("raw.old").delete(EqualTo("area", "us"))
    assert tick() == {(1, "eu", 1)}


def test_a_scope_keeps_to_its_rows(tmp_path: Path) -> None:
    worlds = [
        Totals(
            home=tmp_path,
            keys=("ts", "region"),
            name=region,
            scope={"region": region},
            target_fields=(("identity", "region"),),
        )
        for region in ("eu", "us")
    ]
    worlds[0].set_up()

    def tick() -> None:
        for world in worlds:
            steps.run(world.process(transform=f"SELECT * FROM ({world.sql}) WHERE region = '{world.name}'"))

    for region in ("eu", "us"):
        worlds[0].land(1, 2, region=region)
    tick()
    assert worlds[0].target_rows() == worlds[0].oracle(worlds[0].source_rows())
    worlds[0].source.delete(EqualTo("id", 1))
    worlds[0].source.delete(EqualTo("id", 3))
    tick()
    assert worlds[0].target_rows() == worlds[0].oracle(worlds[0].source_rows())


def foreign(world: Totals, region: str) -> None:
    table = world.catalog.load_table(TARGET)
    table.append(pa.table({"region": [region], "n": [0], "total": [0]}, schema=world.target_schema))


def test_rows_of_other_keys_that_others_write_meanwhile_stay(world: Totals) -> None:
    world.land(3, region="eu")
    process = world.process("run")
    session = plan(process)
    assert isinstance(session, Session)
    foreign(world, "x")
    sealed = steps.load(session)
    report = steps.audit(session, sealed)
    foreign(world, "y")
    steps.publish(session, report)
    rows = world.target_rows()
    assert {r[0] for r in rows} == {"eu", "us", "ap", "za", "x", "y"}
    assert {r: n for r, n in rows.items() if r[0] not in "xy"} == world.oracle(world.source_rows())


def test_rows_of_the_same_key_that_others_write_meanwhile_are_a_conflict(world: Totals) -> None:
    world.land(3, region="eu")
    process = world.process("run")
    session = plan(process)
    assert isinstance(session, Session)
    foreign(world, "eu")
    with pytest.raises(TargetChanged, match=r"others changed 1 files .* in the keys session .* replaces \(region\)"):
        steps.load(session)
    steps.run(world.process("run"))
    world.check()


def test_rows_that_others_delete_by_position_meanwhile_are_a_conflict(world: Totals) -> None:
    world.land(3, region="eu")
    session = plan(world.process("run"))
    assert isinstance(session, Session)
    (file,) = live_files(world.target)
    hidden = position_delete_file(world.target, [(file.file_path, 0)], like=file)
    commit_snapshot(world.target, Operation.DELETE, deletes=[hidden])
    with pytest.raises(TargetChanged, match=r"others changed 1 files .* in the keys session .* replaces \(region\)"):
        steps.load(session)


def test_other_keys_than_the_watermarks_are_refused(world: Totals) -> None:
    sources = {"events": IcebergSource(SOURCE, key_columns=("v",))}
    process = world.process(spec=attrs.evolve(world.spec, keys=("n",), sources=sources))
    with pytest.raises(DeclarationChanged, match=r"declares the keys \['n'\] .* reached by others") as error:
        steps.run(process)
    assert "declare those keys again" in str(error.value)


def test_a_lost_watermark_reloads_everything(world: Totals) -> None:
    world.land(3, region="eu")
    source = world.source
    expire(
        source,
        [s.snapshot_id for s in source.metadata.snapshots if s.snapshot_id != source.metadata.current_snapshot_id],
    )
    world.policies = {"on_lost_watermark": "reload"}
    foreign(world, "x")
    done = world.tick()
    assert done.plan is not None
    assert done.plan.kind == "reload"
    world.check()


def test_a_first_run_that_adopts_rows_replaces_only_keys_it_has(tmp_path: Path) -> None:
    world = Totals(home=tmp_path, policies={"initial": {"adopt": "all"}}).set_up()
    foreign(world, "x")
    foreign(world, "eu")
    world.land(1, 2, region="eu")
    world.tick()
    rows = world.target_rows()
    assert {r[0] for r in rows} == {"eu", "x"}
    assert sum(rows.values()) == 2
    assert [r[1] for r in rows if r[0] == "eu"] == [2]


def test_starting_from_now_computes_changed_keys_whole(tmp_path: Path) -> None:
    world = Totals(home=tmp_path, policies={"initial": "current"}).set_up()
    world.land(1, 2, region="eu")
    world.land(1, region="us")
    world.tick()
    assert not world.target_rows()
    world.land(3, region="eu")
    world.tick()
    assert {r[0]: r[1] for r in world.target_rows()} == {"eu": 3}
