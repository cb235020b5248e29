"""What a transform can ask of a driver besides its rows: what changed, in which event times, between which values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyiceberg.expressions import EqualTo
from pyiceberg.types import BooleanType, StringType

from airflow_incremental.core.errors import ArgumentError, TableError, TransformError
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.operators.reports import session_values
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.balances import BALANCES, Balances
from tests.support.tables import compact, delete_rows_by_position
from tests.support.totals import Totals
from tests.support.world import SOURCE, TARGET, World, create, hour, rows_table

BOUNDS = ("id", "ts", "region")


@attrs.define
class Bounded(World):
    """A world whose source tells the bounds of what changed."""

    bounds: tuple[str, ...] = BOUNDS

    @property
    def spec(self) -> ProcessSpec:
        declared: ProcessSpec = World.spec.fget(self)  # type: ignore[attr-defined]
        source = IcebergSource(SOURCE, event_time="ts", change_bounds=self.bounds)
        return attrs.evolve(declared, sources={"events": source})


class Asked:
    """A transform that notes what it could ask, and does what SQL would."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.changes: Counter[tuple[Any, ...]] = Counter()
        self.ranges: list[tuple[Any, ...]] = []
        self.bounds: dict[str, Any] = {}

    def __call__(self, relations: Any, plan: Plan) -> Any:
        self.changes = Counter(relations["events_changes"].select("id, _change_type").fetchall())
        self.ranges = [tuple(r.values()) for r in relations["events_ranges"].to_arrow_table().to_pylist()]
        self.bounds = {s.name: dict(s.bounds) for s in plan.sources}
        return relations["events"].query("events", self.sql)


def overwriting(world: World) -> str:
    return str(world.process("look").transform)


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_changed_rows_and_their_event_times(tmp_path: Path, mode: str) -> None:
    world = Bounded(home=tmp_path, mode=mode).set_up()
    world.land(1, 2.5)
    asked = Asked(overwriting(world))
    steps.run(world.process(transform=asked))
    assert asked.changes == {(1, "insert"): 1, (2, "insert"): 1}, "in a first run everything is new"
    world.land(2.25, 4)
    compact(world.source)
    steps.run(world.process(transform=asked))
    world.check()
    assert asked.changes == {(3, "insert"): 1, (4, "insert"): 1}
    assert asked.ranges[0][0] == hour(2.25)
    assert asked.ranges[-1][1] > hour(4)
    assert asked.bounds["events"]["id"] == [3, 4]
    assert asked.bounds["events"]["ts"] == [hour(2.25).isoformat(), hour(4).isoformat()]


def test_rows_that_went_and_rows_that_stayed(tmp_path: Path) -> None:
    world = Bounded(home=tmp_path, mode="overwrite").set_up()
    world.source.append(rows_table([(i, hour(1), "eu", 5) for i in range(5)]))
    steps.run(world.process())
    world.source.overwrite(rows_table([(3, hour(1), "eu", 6)]), EqualTo("id", 3))
    delete_rows_by_position(world.source, [0])
    asked = Asked(overwriting(world))
    steps.run(world.process(transform=asked))
    assert asked.changes == {(3, "insert"): 1, (3, "delete"): 1, (0, "delete"): 1}
    world.check()


def test_equal_rows_cancel_each_other_one_by_one(tmp_path: Path) -> None:
    world = Bounded(home=tmp_path, mode="overwrite").set_up()
    world.source.append(rows_table([(1, hour(1), "eu", 5)] * 3 + [(2, hour(1), "eu", 5)]))
    steps.run(world.process())
    world.source.overwrite(rows_table([(1, hour(1), "eu", 5)]), EqualTo("id", 1))
    asked = Asked(overwriting(world))
    steps.run(world.process(transform=asked))
    assert asked.changes == {(1, "delete"): 2}
    world.check()


SQL = """
SELECT e.region, count(*) AS n, sum(e.v)::BIGINT AS total
FROM events e
WHERE e.id BETWEEN getvariable('events_min_id') AND getvariable('events_max_id')
  AND e.ts >= (SELECT min_ts FROM EVENTS_BOUNDS)
  AND EXISTS (SELECT 1 FROM events_changes c WHERE c.id = e.id)
  AND EXISTS (SELECT 1 FROM events_ranges r WHERE e.ts >= r.range_start AND e.ts < r.range_end)
GROUP BY ALL
"""


def test_sql_reads_them_as_relations_and_as_parameters(tmp_path: Path) -> None:
    world = Bounded(home=tmp_path, mode="append").set_up()
    create(
        world.catalog, "mart.sums", pa.schema([("region", pa.string()), ("n", pa.int64()), ("total", pa.int64())]), ()
    )
    spec = attrs.evolve(world.spec, target=IcebergTarget("mart.sums"))
    world.land(1, 2)
    steps.run(world.process(spec=spec, transform=SQL))
    world.land(3, region="us")
    steps.run(world.process(spec=spec, transform=SQL))
    rows = world.catalog.load_table("mart.sums").scan().to_arrow().to_pylist()
    assert sorted((r["region"], r["n"], r["total"]) for r in rows) == [("eu", 2, 21), ("us", 1, 21)]


def test_columns_are_known_before_the_target_exists(tmp_path: Path) -> None:
    world = Bounded(home=tmp_path, mode="append").set_up()
    world.land(1)
    sql = "SELECT id, ts, _change_type, getvariable('events_max_id') AS most FROM events_changes"
    spec = attrs.evolve(world.spec, target=IcebergTarget("mart.made", event_time="ts", create=True))
    steps.run(world.process(spec=spec, transform=sql))
    rows = world.catalog.load_table("mart.made").scan().to_arrow().to_pylist()
    assert rows == [{"id": 1, "ts": hour(1), "_change_type": "insert", "most": 1}]


def test_a_cleared_run_takes_all_it_computes_as_changed(tmp_path: Path) -> None:
    world = Bounded(home=tmp_path, mode="overwrite").set_up()
    world.land(1, 1.5)
    steps.run(world.process("first"))
    world.land(1.75)
    steps.run(world.process("second"))
    asked = Asked(overwriting(world))
    assert steps.run(world.process("second", clear_number=1, transform=asked)).did_publish
    assert asked.changes == {(1, "insert"): 1, (2, "insert"): 1, (3, "insert"): 1}
    assert asked.bounds["events"]["id"] == [1, 3]
    world.check()


def test_in_merge_and_in_steps(tmp_path: Path) -> None:
    merged = Totals(home=tmp_path / "merge").set_up()
    merged.land(1, region="eu")
    merged.tick()
    merged.land(2, region="eu")
    asked = Asked(merged.sql)
    merged.tick(transform=asked)
    assert asked.changes == {(2, "insert"): 1}
    merged.check()
    stepped = Balances(home=tmp_path / "steps", step="hour").set_up()
    sql = BALANCES.replace(
        "FROM events e", "FROM (SELECT * FROM events WHERE (SELECT count(*) FROM events_changes) > 0) e"
    )
    stepped.land(1, 2, 3, 4.5)
    stepped.tick()
    stepped.land(2.5)
    steps.run(stepped.process(transform=sql))
    stepped.verify()


def test_bounds_are_values_of_the_session_too(tmp_path: Path) -> None:
    world = Bounded(home=tmp_path, mode="append").set_up()
    world.land(1, 2)
    session = plan(world.process("a"))
    assert isinstance(session, Session)
    assert session_values(session.plan, branch="b")["bounds"] == {
        "events": {"id": [1, 2], "ts": [hour(1).isoformat(), hour(2).isoformat()], "region": ["eu", "eu"]}
    }


def test_files_without_bounds_are_read(tmp_path: Path) -> None:
    world = Bounded(home=tmp_path, mode="append", bounds=("id", "region")).set_up()
    with world.source.transaction() as change:
        change.set_properties({"write.metadata.metrics.default": "none"})
    world.land(1, 2)
    asked = Asked(overwriting(world))
    steps.run(world.process(transform=asked))
    assert asked.bounds["events"] == {"id": [1, 2], "region": ["eu", "eu"]}


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (("colour",), r"has no column 'colour', whose bounds are asked for.*id, ts, region, v"),
        (("flag",), r"of column 'flag' of raw\.events, which is of type boolean.*numbers, text, dates or times"),
    ],
)
def test_bounds_of_what_has_none(tmp_path: Path, bounds: tuple[str, ...], message: str) -> None:
    world = Bounded(home=tmp_path, mode="append", bounds=bounds).set_up()
    world.land(1)
    with world.source.update_schema() as update:
        update.add_column("flag", BooleanType())
    world.land(1)
    with pytest.raises(TableError, match=message):
        steps.run(world.process())


def test_names_that_are_taken(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"source name 'a_changes' .* is taken by what changed in source 'a'"):
        ProcessSpec(
            process="p",
            sources={"a_changes": IcebergSource("raw.b"), "a": IcebergSource("raw.a")},
            target=IcebergTarget(TARGET),
            mode="append",
        )
    with pytest.raises(ArgumentError, match=r"the lookup 'raw\.names' has change_bounds"):
        IcebergSource("raw.names", role="lookup", change_bounds=["id"])
    world = World(home=tmp_path, mode="append").set_up()
    with world.source.update_schema() as update:
        update.add_column("_change_type", StringType())
    schema = pa.schema([("id", pa.int64()), ("_change_type", pa.string())])
    world.source.append(pa.table({"id": [1], "_change_type": ["x"]}, schema=schema))
    with pytest.raises(TransformError, match=r"source 'events' has a column '_change_type'"):
        steps.run(
            world.process(
                transform="SELECT id, ts, region, v AS v10 FROM events_changes",
                spec=attrs.evolve(world.spec, on_null_event_time="own_range"),
            )
        )
