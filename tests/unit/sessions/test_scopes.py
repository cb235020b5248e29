"""Scopes that are declared anew, or written in another type: what the watermark does not speak of is never taken as loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyiceberg.types import TimestamptzType

from airflow_incremental.core.errors import DeclarationChanged, ScopeOverlap, TableError
from airflow_incremental.core.tables import IcebergSource, IcebergTarget, ScopeValue
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Process, Session
from tests.support.tables import roll_back
from tests.support.world import APPEND_SQL, EVENTS, OVERWRITE_SQL, SOURCE, TARGET, World, create, hour

MODES = pytest.mark.parametrize("mode", ["append", "overwrite"])
EU, EU_US = {"region": "eu"}, {"region": ["eu", "us"]}


def fields(mode: str) -> tuple[tuple[str, str], ...]:
    return (("hour", "ts" if mode == "append" else "hour_ts"), ("identity", "region"))


def process(world: World, scope: dict[str, Any] | None, run: str | None = None, **changes: Any) -> Process:
    """The process with another scope, whose transform keeps to it."""
    world.scope = scope
    wanted = None if scope is None else scope["region"]
    listed = [wanted] if isinstance(wanted, str) else wanted
    sql = APPEND_SQL if world.mode == "append" else OVERWRITE_SQL
    if listed is not None:
        sql = f"SELECT * FROM ({sql}) WHERE region IN ({', '.join(repr(v) for v in listed)})"
    return world.process(run, transform=sql, **changes)


def prepared(home: Path, mode: str, scope: dict[str, Any] | None) -> World:
    world = World(home=home, mode=mode, target_fields=fields(mode)).set_up()
    world.land(0, 1)
    world.land(0.5, 2, region="us")
    steps.run(process(world, scope))
    return world


@MODES
@pytest.mark.parametrize("wider", [EU_US, None, {"region": "us"}], ids=str)
def test_a_wider_or_other_scope_is_refused_until_it_is_loaded_again(
    tmp_path: Path, mode: str, wider: dict[str, Any] | None
) -> None:
    world = prepared(tmp_path, mode, EU)
    before = world.target_rows()
    world.land(3)
    world.land(3.5, region="us")
    with pytest.raises(
        DeclarationChanged, match=r"speaks of region in \('eu'\).*never loaded.*on_lost_watermark='reload'"
    ):
        steps.run(process(world, wider))
    assert world.target_rows() == before
    assert naming.lock_ref("proc") not in world.target.metadata.refs
    world.policies = {"on_lost_watermark": "reload"}
    assert steps.run(process(world, wider)).did_publish
    world.policies = {}
    rows = world.source_rows()
    loaded = rows if wider is None else [r for r in rows if r[2] in wider["region"]]
    stayed = {row: n for row, n in before.items() if wider is not None and "eu" not in wider["region"]}
    assert world.target_rows() == world.oracle(loaded) + type(before)(stayed)
    world.land(0.7, region="us")
    assert steps.run(process(world, wider)).did_publish


def test_the_rest_can_have_a_process_of_its_own(tmp_path: Path) -> None:
    """What the refusal proposes."""
    world = prepared(tmp_path, "overwrite", EU)
    other = World(home=tmp_path, mode="overwrite", target_fields=fields("overwrite"), name="other")
    assert steps.run(process(other, {"region": "us"})).did_publish
    assert world.target_rows() == world.oracle(world.source_rows())


@MODES
@pytest.mark.parametrize("wide", [EU_US, None], ids=str)
def test_a_narrower_scope_goes_on_and_lets_the_rest_go(tmp_path: Path, mode: str, wide: dict[str, Any] | None) -> None:
    world = prepared(tmp_path, mode, wide)
    done = steps.run(process(world, EU))
    assert "narrowed" in done.reason
    assert "rows outside stay as they are" in done.reason
    last = published(world.target, "proc")
    assert last is not None
    assert last.watermark.scope == {"region": ("eu",)}
    world.check()
    policies = {"initial": {"adopt": "current"}}
    other = World(home=tmp_path, mode=mode, target_fields=fields(mode), name="other", policies=policies)
    steps.run(process(other, {"region": "us"}))
    world.land(1.5)
    world.land(1.7, region="us")
    steps.run(process(world, EU))
    steps.run(process(other, {"region": "us"}))
    assert world.target_rows() == world.oracle(world.source_rows())
    with pytest.raises(DeclarationChanged):
        steps.run(process(world, wide))


def test_a_rollback_takes_the_scope_back_with_the_watermark(tmp_path: Path) -> None:
    world = prepared(tmp_path, "overwrite", EU)
    narrow = world.target.metadata.current_snapshot_id
    assert narrow is not None
    world.policies = {"on_lost_watermark": "reload"}
    steps.run(process(world, EU_US))
    world.policies = {}
    roll_back(world.target, narrow)
    world.land(3)
    with pytest.raises(DeclarationChanged):
        steps.run(process(world, EU_US))
    assert steps.run(process(world, EU)).did_publish


def test_a_cleared_run_does_not_restate_more_than_its_watermark_speaks_of(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite", target_fields=fields("overwrite")).set_up()
    world.land(0, region="us")
    world.land(1)
    steps.run(process(world, EU, "r1"))
    with pytest.raises(DeclarationChanged):
        steps.run(process(world, EU_US, "r1", clear_number=1))


def test_another_event_time_column_is_refused_and_a_renamed_one_is_not(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    for table, column in ((world.source, "seen_at"), (world.target, "seen_hour")):
        with table.update_schema() as update:
            update.add_column(column, TimestamptzType())
    with world.target.update_spec() as spec:
        spec.add_field("seen_hour", "hour", "seen_hour_hour")
    sql = "SELECT *, hour_ts AS seen_hour FROM ({})"

    def declared(source: str, target: str, query: str) -> Process:
        made = world.process(transform=sql.format(query))
        changed = attrs.evolve(
            made.spec,
            sources={"events": IcebergSource(SOURCE, event_time=source)},
            target=IcebergTarget(TARGET, event_time=target),
        )
        return attrs.evolve(made, spec=changed)

    world.land(0, 1)
    assert steps.run(declared("ts", "hour_ts", OVERWRITE_SQL)).did_publish
    with pytest.raises(DeclarationChanged, match=r"'seen_hour' as event time of the target.*field id 1\b"):
        steps.run(declared("ts", "seen_hour", OVERWRITE_SQL))
    with pytest.raises(DeclarationChanged, match=r"'seen_at' as event time of source 'events'.*field id 2\b"):
        steps.run(declared("seen_at", "hour_ts", OVERWRITE_SQL))
    with world.source.update_schema() as update:
        update.rename_column("ts", "happened_at")
    renamed = OVERWRITE_SQL.replace("ts)", "happened_at)")
    assert steps.run(declared("happened_at", "hour_ts", renamed)).outcome == "nothing_to_do"


KINDS = {
    "tenant": pa.int32(),
    "big": pa.int64(),
    "flag": pa.bool_(),
    "day": pa.date32(),
    "name": pa.string(),
    "at": pa.timestamp("us", "UTC"),
}
ROWS = """
SELECT date_trunc('hour', ts) AS hour_ts, (id % 2 + 7)::INT AS tenant, id % 2 AS big, id % 2 = 1 AS flag,
       DATE '2024-01-31' + (id % 2)::INT AS day, (id % 2)::VARCHAR AS name, ts AS at, v FROM events
"""


def typed(home: Path, *columns: str) -> World:
    """A world whose target has a column of every type, partitioned by hour and some of them."""
    world = World(home=home, mode="overwrite")
    create(world.catalog, SOURCE, EVENTS, ())
    schema = pa.schema([("hour_ts", pa.timestamp("us", "UTC")), *KINDS.items(), ("v", pa.int64())])
    create(world.catalog, TARGET, schema, [("hour", "hour_ts"), *(("identity", c) for c in columns)])
    return world


def scoped(world: World, name: str, column: str, values: Any, where: str) -> Process:
    made = world.process(transform=f"SELECT * FROM ({ROWS}) WHERE {where}")
    target = IcebergTarget(TARGET, event_time="hour_ts", scope={column: values})
    return attrs.evolve(made, spec=attrs.evolve(made.spec, process=name, target=target))


@pytest.mark.parametrize(
    ("column", "one", "same", "other", "where"),
    [
        ("tenant", "7", 7, 8, "tenant = {}"),
        ("big", "0", [0], "1", "big = {}"),
        ("flag", "True", True, "false", "flag = {}"),
        ("day", "2024-01-31", ["2024-01-31"], "2024-02-01", "day = DATE '{}'"),
        ("name", "0", ["0"], "1", "name = '{}'"),
    ],
)
def test_text_is_read_as_a_value_of_the_column(
    tmp_path: Path, column: str, one: str, same: ScopeValue, other: ScopeValue, where: str
) -> None:
    """Replacing finds the rows of the scope and no others, and two ways to write one scope are one scope."""
    world = typed(tmp_path, column)
    world.land(0, 0.1, 1, 1.1)
    first, second = where.format(one), where.format(other)
    assert steps.run(scoped(world, "first", column, one, first)).did_publish
    assert steps.run(scoped(world, "second", column, other, second)).did_publish
    world.land(0.2, 0.3)
    assert steps.run(scoped(world, "first", column, same, first)).did_publish, "the same scope: its watermark goes on"
    assert steps.run(scoped(world, "second", column, other, second)).did_publish
    assert sorted(world.target.scan().to_arrow()["v"].to_pylist()) == sorted(v for *_, v in world.source_rows())
    with pytest.raises(ScopeOverlap):  # before anything is said of the rows that are there
        steps.run(scoped(world, "third", column, same, first))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("tenant", "seven", r"'tenant' .* of type int, to be 'seven' \(str\).*a whole number"),
        ("tenant", "007", r"'007'.*without leading zeros"),
        ("tenant", "7.0", r"'7\.0'"),
        ("tenant", True, r"True \(bool\)"),
        ("tenant", 2**31, r"2147483648.*32 bits"),
        ("big", "", r"''"),
        ("flag", 1, r"1 \(int\).*a boolean"),
        ("day", "31.01.2024", r"'31\.01\.2024'.*'2024-01-31'"),
        ("day", 20240131, r"20240131 \(int\)"),
        ("name", 7, r"7 \(int\).*in quotes"),
        ("at", "2024-01-31T00:00:00Z", r"'at' .* is of type timestamptz.*strings, whole numbers, booleans or dates"),
    ],
)
def test_what_is_no_value_of_the_column_is_refused(
    tmp_path: Path, column: str, value: ScopeValue, message: str
) -> None:
    world = typed(tmp_path, column)
    world.land(0)
    with pytest.raises(TableError, match=message):
        steps.run(scoped(world, "p", column, value, "true"))
    assert [r for r in world.target.metadata.refs if r != "main"] == []


def test_complete_through_starts_anew_with_another_event_time_column(tmp_path: Path) -> None:
    """Appended rows are the same by any column, but hours seen by one say nothing of the other."""
    world = World(home=tmp_path).set_up()
    with world.source.update_schema() as update:
        update.add_column("seen_at", TimestamptzType())
    world.land(5)
    steps.run(world.process())
    row = {"id": 9, "ts": hour(7), "region": "eu", "v": 1, "seen_at": hour(1)}
    world.source.append(pa.Table.from_pylist([row], schema=EVENTS.append(pa.field("seen_at", EVENTS.field("ts").type))))
    made = world.process()
    other = attrs.evolve(made.spec, sources={"events": IcebergSource(SOURCE, event_time="seen_at")})
    assert steps.run(attrs.evolve(made, spec=other)).did_publish
    last = published(world.target, "proc")
    assert last is not None
    assert last.watermark.complete_through == hour(1)
    world.check()


def test_an_overlap_says_how_to_retire_a_process(tmp_path: Path) -> None:
    """And what it says is enough, for a process that published and for one that died in its session."""
    world = prepared(tmp_path, "overwrite", EU)
    world.land(3)
    assert isinstance(plan(process(world, EU)), Session)
    adopting = {"initial": {"adopt": "current"}}
    new = World(home=tmp_path, mode="overwrite", target_fields=fields("overwrite"), name="new", policies=adopting)
    with pytest.raises(ScopeOverlap) as refused:
        steps.run(process(new, EU_US))
    hint = refused.value.hint
    assert f"end its session with 'airflow-incremental session abandon {TARGET} proc --reason ...'" in hint
    assert steps.abandon(world.catalog, TARGET, "proc", reason="retired") is not None
    with pytest.raises(ScopeOverlap) as refused:
        steps.run(process(new, EU_US))
    hint = refused.value.hint
    assert "abandon" not in hint
    assert "remove the table property 'incremental.process.proc' and drop the tag 'inc_wm_proc'" in hint
    with world.target.transaction() as transaction:
        transaction.remove_properties("incremental.process.proc")
    world.target.manage_snapshots().remove_tag("inc_wm_proc").commit()
    before = world.target_rows()
    assert steps.run(process(new, EU_US)).outcome == "nothing_to_do"
    assert world.target_rows() == before
    assert published(world.target, "new") is not None
