"""Files that straddle what a session replaces: the rows outside stay as they are, whatever their columns hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from airflow_incremental.core.errors import TableError
from airflow_incremental.sessions import steps
from tests.support.tables import (
    commit_snapshot,
    equality_delete_file,
    live_files,
    position_delete_file,
    repartition,
)
from tests.support.world import EVENTS, SOURCE, TARGET, World, create, hour

POINTS = pa.list_(pa.struct([("a", pa.int64())]))
NOTES = pa.map_(pa.string(), pa.struct([("a", pa.int64())]))
SCHEMA = pa.schema([("hour_ts", pa.timestamp("us", "UTC")), ("n", pa.int64()), ("points", POINTS), ("notes", NOTES)])
#: One row an hour; what pyiceberg's projection would make of a null list or map is an empty one.
SQL = """
WITH hours AS (SELECT date_trunc('hour', ts) AS hour_ts, count(*) AS n FROM events GROUP BY ALL)
SELECT hour_ts, n,
       CASE hour(hour_ts) % 4 WHEN 0 THEN NULL WHEN 1 THEN [] WHEN 2 THEN [NULL] ELSE [{'a': n}] END AS points,
       CASE hour(hour_ts) % 4 WHEN 0 THEN NULL ELSE MAP {'k': {'a': n}} END AS notes
FROM hours
"""


def physical(table: Table) -> list[dict[str, Any]]:
    """Read the live files as they are, past any projection."""
    found = [r for f in live_files(table) for r in pq.read_table(f.file_path.removeprefix("file://")).to_pylist()]
    return sorted(found, key=lambda r: r["hour_ts"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Hours 0 to 7 in one file of a target that was partitioned by day and is by hour now."""
    world = World(home=tmp_path, mode="overwrite")
    create(world.catalog, SOURCE, EVENTS, ())
    create(world.catalog, TARGET, SCHEMA, [("day", "hour_ts")])
    world.land(*range(8))
    steps.run(world.process(transform=SQL))
    repartition(world.target, [("hour", "hour_ts")])
    return world


def test_null_lists_and_maps_of_structs_survive(world: World) -> None:
    before = physical(world.target)
    assert [r["points"] for r in before[:4]] == [None, [], [None], [{"a": 1}]]
    world.land(2.5)
    steps.run(world.process(transform=SQL))
    after = physical(world.target)
    assert [r for r in after if r["hour_ts"] != hour(2)] == [r for r in before if r["hour_ts"] != hour(2)]
    assert [r["n"] for r in after] == [1, 1, 2, 1, 1, 1, 1, 1]


def test_rows_that_were_deleted_by_position_stay_deleted(world: World) -> None:
    table = world.target
    (file,) = live_files(table)
    commit_snapshot(table, Operation.DELETE, deletes=[position_delete_file(table, [(file.file_path, 4)], like=file)])
    world.land(2.5)
    steps.run(world.process(transform=SQL))
    assert [r["hour_ts"] for r in physical(world.target)] == [hour(n) for n in range(8) if n != 4]


def test_equality_deletes_on_a_file_that_has_to_be_rewritten_are_refused(world: World) -> None:
    table = world.target
    (file,) = live_files(table)
    commit_snapshot(table, Operation.DELETE, deletes=[equality_delete_file(table, like=file, equality_ids=[1])])
    world.land(2.5)
    with pytest.raises(TableError, match=r"equality deletes in .* hide rows of") as refused:
        steps.run(world.process(transform=SQL))
    assert "compact the table with its own engine" in refused.value.hint


def test_append_recomputes_only_the_units_that_a_rewritten_file_holds(tmp_path: Path) -> None:
    """Its bounds span all hours between its first and its last row."""
    world = World(home=tmp_path, policies={"on_rewrite": "overwrite"}).set_up()
    world.land(0, 9)
    world.land(4)
    steps.run(world.process())
    world.source.delete("id = 1")
    finished = steps.run(world.process())
    assert finished.plan is not None
    assert finished.plan.replaced.to_json() == [
        "2024-01-01T00:00:00Z/2024-01-01T01:00:00Z",
        "2024-01-01T09:00:00Z/2024-01-01T10:00:00Z",
    ]
    world.check()
