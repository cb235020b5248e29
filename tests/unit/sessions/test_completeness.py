"""Complete-through of a target: the least of its sources, each by its rule; it follows them up and down."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import TableError
from airflow_incremental.core.ranges import Grain
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg.lineage import committed_at, head_of
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Finished
from tests.support.world import OVERWRITE_SQL, SOURCE, TARGET, World, create, hour


def world_of(home: Path, rule: Any) -> World:
    """Return a world whose source has a rule."""

    @attrs.define
    class Ruled(World):
        @property
        def spec(self) -> ProcessSpec:
            source = IcebergSource(SOURCE, event_time="ts", complete_through=rule)
            return attrs.evolve(World.spec.fget(self), sources={"events": source})  # type: ignore[attr-defined]

    return Ruled(home=home, mode="overwrite").set_up()


def through(world: World, process: str = "proc", table: str = TARGET) -> dt.datetime | None:
    last = published(world.catalog.load_table(table), process)
    assert last is not None
    return last.watermark.complete_through


def run(world: World) -> Finished:
    return steps.run(world.process())


def test_the_latest_event_less_the_lateness(tmp_path: Path) -> None:
    world = world_of(tmp_path, CompleteThrough.latest_event(lateness=dt.timedelta(minutes=30)))
    world.land(0, 5.25)
    run(world)
    assert through(world) == hour(4), "05:15 less 30 minutes is in hour 4"
    world.land(5.75)
    run(world)
    assert through(world) == hour(5)
    world.land(1)
    run(world)
    assert through(world) == hour(5), "a late row takes nothing back"


def test_the_arrival_clock(tmp_path: Path) -> None:
    world = world_of(tmp_path, CompleteThrough.arrival(lateness=3600))
    world.land(0)
    run(world)
    head = head_of(world.source, "main")
    assert head is not None
    assert through(world) == Grain.HOUR.floor(committed_at(head) - dt.timedelta(hours=1))


def test_a_property_of_the_table_moves_it_without_a_row(tmp_path: Path) -> None:
    world = world_of(tmp_path, CompleteThrough.property("landing.complete"))
    world.land(0, 1)
    run(world)
    assert through(world) is None, "it does not say yet"
    for text, expected in (("2024-01-02", 24), ("2024-01-01T05:30:00Z", 5), ("2024-01-03T02:00:00+02:00", 48)):
        with world.source.transaction() as change:
            change.set_properties({"landing.complete": text})
        before = len(world.target.metadata.snapshots)
        assert run(world).published is not None
        assert through(world) == hour(expected), "also when it falls"
        assert len(world.target.metadata.snapshots) == before + 1
        assert run(world).reason == "no source has a new snapshot"
    with world.source.transaction() as change:
        change.set_properties({"landing.complete": "soon"})
    with pytest.raises(TableError, match=r"the property 'landing.complete' of table raw.events is 'soon'"):
        run(world)


def test_a_retry_after_only_the_watermark_moved_has_nothing_to_do_either(tmp_path: Path) -> None:
    world = world_of(tmp_path, CompleteThrough.property("landing.complete"))
    world.land(0, 1)
    run(world)
    with world.source.transaction() as change:
        change.set_properties({"landing.complete": "2024-01-02"})
    first, retry = steps.run(world.process("run")), steps.run(world.process("run"))
    assert (first.outcome, retry.outcome) == ("nothing_to_do", "nothing_to_do")
    assert first.published == retry.published
    assert not retry.did_publish


def test_what_the_processes_of_a_source_published(tmp_path: Path) -> None:
    """A daily table over an hourly one, without a rule: it is complete as far as the hourly one says."""
    world = World(home=tmp_path, mode="overwrite").set_up()
    catalog = world.catalog
    create(catalog, "mart.days", world.target_schema, [("day", "hour_ts")])
    spec = ProcessSpec(
        process="days",
        sources={"hours": IcebergSource(TARGET, event_time="hour_ts")},
        target=IcebergTarget("mart.days", event_time="hour_ts"),
        mode="overwrite",
    )
    sql = """
        SELECT date_trunc('day', hour_ts) AS hour_ts, region, sum(n)::BIGINT AS n, sum(total)::BIGINT AS total
        FROM hours GROUP BY ALL
    """

    def days() -> Published | None:
        return steps.run(world.process(spec=spec, transform=sql)).published

    world.land(0, 30)
    run(world)
    days()
    assert through(world) == hour(30)
    assert through(world, "days", "mart.days") == hour(24)
    world.land(47.5)
    run(world)
    days()
    assert through(world, "days", "mart.days") == hour(24), "hour 47 may still go on"
    world.land(48)
    run(world)
    days()
    assert through(world, "days", "mart.days") == hour(48)


def test_the_least_of_several_processes(tmp_path: Path) -> None:
    fields = (("identity", "region"), ("hour", "hour_ts"))
    worlds = {
        region: World(home=tmp_path, mode="overwrite", name=region, target_fields=fields, scope={"region": region})
        for region in ("eu", "us")
    }
    eu = worlds["eu"].set_up()
    reader = ProcessSpec(
        process="reader",
        sources={"hours": IcebergSource(TARGET, event_time="hour_ts")},
        target=IcebergTarget("mart.copy", event_time="hour_ts", create=True, partition_by=("hour(hour_ts)",)),
        mode="append",
        on_rewrite="overwrite",
    )

    def load(region: str) -> dt.datetime | None:
        sql = f"SELECT * FROM ({OVERWRITE_SQL}) WHERE region = '{region}'"
        steps.run(worlds[region].process(transform=sql))
        steps.run(eu.process(spec=reader, transform="SELECT * FROM hours"))
        return through(eu, "reader", "mart.copy")

    eu.land(3)
    assert load("eu") == hour(3)
    eu.land(9, region="us")
    assert load("us") == hour(3), "the other one is complete through hour 9, this one does not know it yet"
    assert load("eu") == hour(9)
