"""Lookups: read whole at one snapshot per session, and no reason to do anything when they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest

from airflow_incremental.core.errors import ArgumentError, PlanExpired, TableError
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from tests.support.tables import expire
from tests.support.world import World, create

NAMES = pa.schema([("region", pa.string()), ("name", pa.string())])
SQL = {
    "append": "SELECT e.id, e.ts, n.name AS region, e.v * 10 AS v10 FROM events e LEFT JOIN names n USING (region)",
    "overwrite": """
        SELECT date_trunc('hour', e.ts) AS hour_ts, n.name AS region, count(*) AS n, sum(e.v)::BIGINT AS total
        FROM events e LEFT JOIN names n USING (region) GROUP BY ALL
    """,
}


@attrs.define
class Joined(World):
    """Events with the names of their regions, which a lookup knows."""

    @property
    def spec(self) -> ProcessSpec:
        declared: ProcessSpec = World.spec.fget(self)  # type: ignore[attr-defined]
        return attrs.evolve(declared, sources={**declared.sources, "names": IcebergSource("raw.names", role="lookup")})

    def call(self, **names: str) -> None:
        """Replace the lookup's rows."""
        rows = [{"region": region, "name": name} for region, name in names.items()]
        self.catalog.load_table("raw.names").overwrite(pa.Table.from_pylist(rows, schema=NAMES))

    def tick(self) -> Any:
        return steps.run(self.process(transform=SQL[self.mode]))

    def names_by_hour(self) -> dict[int, set[str | None]]:
        found: dict[int, set[str | None]] = {}
        for row in self.target_rows():
            time = row[1] if self.mode == "append" else row[0]
            found.setdefault(time.hour, set()).add(row[2] if self.mode == "append" else row[1])
        return found


@pytest.fixture(params=["append", "overwrite"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Joined:
    world = Joined(home=tmp_path, mode=request.param)
    world.set_up()
    create(world.catalog, "raw.names", NAMES, ())
    return world


def test_rows_are_as_the_lookup_was_when_they_were_written(world: Joined) -> None:
    world.call(eu="Europe")
    world.land(0, 1)
    assert world.tick().did_publish
    world.call(eu="EU")
    assert world.tick().outcome == "nothing_to_do", "only the lookup changed"
    world.land(1.5, 2)
    world.tick()
    late = {"Europe", "EU"} if world.mode == "append" else {"EU"}
    assert world.names_by_hour() == {0: {"Europe"}, 1: late, 2: {"EU"}}
    last = published(world.target, "proc")
    assert last is not None
    assert set(last.watermark.positions) == {"events"}, "a lookup has no watermark"


def test_a_retry_reads_what_was_planned(world: Joined) -> None:
    world.call(eu="planned")
    world.land(0)
    process = world.process("run", transform=SQL[world.mode])
    plan(process)
    world.call(eu="later")
    steps.run(world.process("run", transform=SQL[world.mode]))
    assert world.names_by_hour() == {0: {"planned"}}


def test_an_empty_lookup_has_no_rows(world: Joined) -> None:
    world.land(0)
    world.tick()
    assert world.names_by_hour() == {0: {None}}


def test_a_cleared_run_joins_the_lookup_as_it_is(world: Joined) -> None:
    world.call(eu="old")
    world.land(0)
    steps.run(world.process("run", transform=SQL[world.mode]))
    world.call(eu="new")
    steps.run(world.process("run", transform=SQL[world.mode], clear_number=1))
    assert world.names_by_hour() == {0: {"new"}}


def test_a_lookup_that_is_not_there(world: Joined) -> None:
    world.catalog.drop_table("raw.names")
    world.land(0)
    with pytest.raises(TableError, match=r"the source 'raw\.names' does not exist"):
        world.tick()


def replace(world: Joined) -> None:
    world.catalog.drop_table("raw.names")
    create(world.catalog, "raw.names", NAMES, ())
    world.call(eu="new")


def expire_all(world: Joined) -> None:
    world.call(eu="new")
    table = world.catalog.load_table("raw.names")
    head = table.metadata.current_snapshot_id
    expire(table, [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id != head])


@pytest.mark.parametrize(
    ("lose", "message"),
    [
        (replace, r"source 'names' \(raw\.names\) was replaced since session .* was planned"),
        (expire_all, r"snapshot \d+ of table raw\.names, which the plan reads, does not exist any more"),
    ],
)
def test_a_lookup_that_is_lost_after_the_plan_ends_the_session(
    world: Joined, lose: Callable[[Joined], None], message: str
) -> None:
    world.call(eu="planned")
    world.land(0)
    plan(world.process("run", transform=SQL[world.mode]))
    lose(world)
    with pytest.raises(PlanExpired, match=message) as found:
        steps.run(world.process("run", transform=SQL[world.mode]))
    assert "plans anew" in found.value.hint
    assert found.value.retryable
    assert list(world.target.metadata.refs) == ["main"], "the session is over"
    assert steps.run(world.process("run", transform=SQL[world.mode])).did_publish
    assert world.names_by_hour() == {0: {"new"}}


def test_a_lookup_that_is_dropped_after_the_plan(world: Joined) -> None:
    world.call(eu="planned")
    world.land(0)
    plan(world.process("run", transform=SQL[world.mode]))
    world.catalog.drop_table("raw.names")
    with pytest.raises(TableError, match=r"the source 'raw\.names' does not exist in catalog"):
        steps.run(world.process("run", transform=SQL[world.mode]))
    assert world.target_rows() == {}


def test_only_lookups_are_no_sources() -> None:
    with pytest.raises(ArgumentError, match=r"the lookup 'raw\.x' has a complete_through"):
        IcebergSource("raw.x", role="lookup", complete_through="latest_event")
