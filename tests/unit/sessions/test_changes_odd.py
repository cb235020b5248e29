"""Bounds of columns and values that need care: names with quotes, times no calendar has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyiceberg.types import LongType

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.operators.reports import session_values
from airflow_incremental.sessions import steps
from tests.support.world import SOURCE, World, create, hour


def test_columns_whose_names_need_quotes(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="append").set_up()
    odd = {"o'clock": 5, 'say "x"': 6, "a.b": 7}
    for name in odd:
        with world.source.update_schema() as update:
            update.add_column((name,), LongType())
    schema = pa.schema([pa.field(f.name, f.type) for f in world.source.schema().as_arrow()])
    row = {"id": [1], "ts": [hour(1)], "region": ["it's"], "v": [1], **{name: [n] for name, n in odd.items()}}
    world.source.append(pa.table(row, schema=schema))
    source = IcebergSource(SOURCE, event_time="ts", change_bounds=["region", *odd])
    sql = """
        SELECT e.id, e.ts, getvariable('events_min_region') AS region,
               b."max_o'clock" + getvariable('events_max_say "x"') + b."min_a.b" + getvariable('events_min_o''clock') AS v10
        FROM events e, events_bounds b
    """
    steps.run(world.process(spec=attrs.evolve(world.spec, sources={"events": source}), transform=sql))
    assert world.target_rows() == {(1, hour(1), "it's", 23): 1}


def test_a_function_reads_them_as_a_relation(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="append").set_up()
    world.land(1, 2)
    source = IcebergSource(SOURCE, event_time="ts", change_bounds=["id"])
    seen: list[Any] = []

    def transform(relations: Any, _plan: Any) -> Any:
        seen.extend(relations["events_bounds"].fetchall())
        return relations["events"].query("events", "SELECT id, ts, region, v AS v10 FROM events")

    steps.run(world.process(spec=attrs.evolve(world.spec, sources={"events": source}), transform=transform))
    assert seen == [(1, 2)]


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC")], ids=str)
def test_times_beyond_the_year_9999(tmp_path: Path, kind: pa.DataType) -> None:
    world = World(home=tmp_path, mode="append")
    schema = pa.schema([("id", pa.int64()), ("far", kind)])
    create(world.catalog, SOURCE, schema, (), **{"write.metadata.metrics.default": "none"})
    create(world.catalog, "mart.ids", pa.schema([("id", pa.int64())]), ())
    plain = pa.int32() if pa.types.is_date(kind) else pa.int64()
    far = pa.array([3_000_000 if pa.types.is_date(kind) else 2**60], plain).cast(kind)
    world.source.append(pa.table({"id": [1], "far": far}, schema=schema))
    spec = attrs.evolve(
        world.spec, sources={"events": IcebergSource(SOURCE, change_bounds=["far"])}, target=IcebergTarget("mart.ids")
    )
    with pytest.raises(TableError, match=r"bounds are asked for of columns far of raw\.events.*years 1 to 9999"):
        steps.run(world.process(spec=spec, transform="SELECT id FROM events"))


def test_endless_numbers_are_text_where_json_has_none(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="append")
    schema = pa.schema([("id", pa.int64()), ("f", pa.float64())])
    create(world.catalog, SOURCE, schema, ())
    create(world.catalog, "mart.ids", pa.schema([("id", pa.int64())]), ())
    world.source.append(pa.table({"id": [1, 2], "f": [float("-inf"), float("inf")]}, schema=schema))
    source = IcebergSource(SOURCE, change_bounds=["f", "id"])
    spec = attrs.evolve(world.spec, sources={"events": source}, target=IcebergTarget("mart.ids"))
    sql = "SELECT id FROM events WHERE f BETWEEN getvariable('events_min_f') AND getvariable('events_max_f')"
    done = steps.run(world.process(spec=spec, transform=sql))
    assert done.plan is not None
    bounds = session_values(done.plan, branch="b")["bounds"]
    assert json.loads(json.dumps(bounds, allow_nan=False)) == {"events": {"f": ["-inf", "inf"], "id": [1, 2]}}
    assert world.catalog.load_table("mart.ids").scan().to_arrow().num_rows == 2
