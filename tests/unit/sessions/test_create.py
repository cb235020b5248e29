"""A target that does not exist: created when asked for, else the error shows the statement."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.tables import IcebergTarget
from airflow_incremental.sessions import steps
from tests.support.world import TARGET, World

MODES = pytest.mark.parametrize("mode", ["append", "overwrite"])


def without_target(home: Path, mode: str) -> World:
    world = World(home=home, mode=mode).set_up()
    world.catalog.drop_table(TARGET)
    return world


def run(world: World, target: IcebergTarget, sql: str | None = None) -> None:
    process = world.process()
    transform = sql or process.transform
    steps.run(attrs.evolve(process, spec=attrs.evolve(process.spec, target=target), transform=transform))


@MODES
def test_created_from_what_the_transform_returns(tmp_path: Path, mode: str) -> None:
    world = without_target(tmp_path, mode)
    target = IcebergTarget(
        TARGET, event_time=world.event_time, create=True, partition_by=[f"hour({world.event_time})", "region"]
    )
    world.land(0, 1)
    run(world, target)
    world.check()
    assert [str(f.transform) for f in world.target.spec().fields] == ["hour", "identity"]
    world.land(0.5, 3)
    run(world, target)
    world.check()


@MODES
def test_the_error_shows_how_to_create_it(tmp_path: Path, mode: str) -> None:
    world = without_target(tmp_path, mode)
    world.land(0)
    with pytest.raises(TableError) as refused:
        run(world, IcebergTarget(TARGET, event_time=world.event_time))
    text = str(refused.value)
    assert "does not exist" in text
    assert "create=True" in text
    assert f"CREATE TABLE {TARGET} (\n" in text
    assert f"  {world.event_time} timestamptz" in text
    assert f"PARTITIONED BY (day({world.event_time}))" in text
    with pytest.raises(TableError, match=rf"PARTITIONED BY \(day\({world.event_time}\), region\)"):
        run(world, IcebergTarget(TARGET, event_time=world.event_time, scope={"region": ["eu", "us"]}))


def test_the_partition_column_must_be_returned(tmp_path: Path) -> None:
    world = without_target(tmp_path, "append")
    world.land(0)
    with pytest.raises(TableError, match=r"returns no column 'ts'; it returns id, region"):
        run(world, IcebergTarget(TARGET, event_time="ts", create=True), sql="SELECT id, region FROM events")


@pytest.mark.parametrize(("sql", "by"), [("CAST(ts AS VARCHAR)", "day(ts)"), ("CAST(ts AS DATE)", "hour(ts)")])
def test_the_partition_column_must_be_of_a_type_that_has_such_units(tmp_path: Path, sql: str, by: str) -> None:
    world = without_target(tmp_path, "append")
    world.land(0)
    target = IcebergTarget(TARGET, event_time="ts", create=True, partition_by=[by])
    with pytest.raises(TableError, match=r"returns 'ts' as (string|date), by whose (day|hour).*CAST ts"):
        run(world, target, sql=f"SELECT id, {sql} AS ts FROM events")
    assert not world.catalog.table_exists(TARGET)


def test_sums_and_counts_make_columns_that_later_loads_fit(tmp_path: Path) -> None:
    world = without_target(tmp_path, "overwrite")
    sql = "SELECT date_trunc('hour', ts) AS hour_ts, count(*) AS n, sum(v) AS total, avg(v) AS mean FROM events GROUP BY ALL"
    target = IcebergTarget(TARGET, event_time="hour_ts", create=True)
    for hours in ((0, 1), (0.5, 2)):
        world.land(*hours)
        run(world, target, sql=sql)
    assert world.target.scan().to_arrow().num_rows == 3
