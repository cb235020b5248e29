"""What a merge says to bad input: keys that are missing, null or of a wrong type, and rows of other keys."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyiceberg.expressions import IsNull

from airflow_incremental.core.errors import ArgumentError, IncrementalError, NullKey, TableError, TransformError
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.iceberg.locks import read_lock
from airflow_incremental.sessions import steps
from tests.support.tables import compact, delete_rows_by_position, expire
from tests.support.totals import Totals
from tests.support.world import EVENTS, SOURCE, TARGET, create, hour


def declared(**changes: Any) -> ProcessSpec:
    values: dict[str, Any] = {
        "process": "proc",
        "sources": {"events": IcebergSource(SOURCE, event_time="ts")},
        "target": IcebergTarget(TARGET),
        "mode": "merge",
        "keys": ("region",),
    }
    return ProcessSpec(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": ()}, r"has mode='merge' and no keys.*What to do: write keys=\['customer_id'\]"),
        ({"keys": 3}, r"keys is 3\. Expected: a column name, or a list of them"),
        ({"keys": ["a", "a"]}, r"keys is \['a', 'a'\]\. Expected: each column once"),
        ({"keys": ["a", None]}, r"a column of keys is None\. Expected: a name"),
        ({"mode": "append"}, r"has mode='append' and keys\. Expected: keys in mode 'merge' only"),
        (
            {"mode": "append", "keys": (), "key_horizon": 60},
            r"mode='append' and key_horizon\. Expected: key_horizon in mode",
        ),
        (
            {"on_rewrite": "ignore"},
            r"on_rewrite .* is 'ignore' in mode 'merge'.*the keys of rewritten rows are computed again",
        ),
        ({"key_horizon": "soon"}, r"key_horizon is 'soon'\. Expected: a timedelta, a number of seconds, or None"),
        (
            {"key_horizon": dt.timedelta(-1)},
            r"key_horizon is -1 day, 0:00:00\. Expected: a duration that is not negative",
        ),
        (
            {"key_horizon": 60, "sources": {"events": IcebergSource(SOURCE)}},
            r"has a key_horizon, and its source 'events' no event_time",
        ),
        (
            {"sources": {"events": IcebergSource(SOURCE, key_columns=["a", "b"])}},
            r"source 'events' .* has key_columns \['a', 'b'\], and the process the keys \['region'\]",
        ),
        ({"state": "previous_step"}, r"mode='merge' and state='previous_step'"),
        ({"step": "hour"}, r"mode='merge' and step='hour'"),
    ],
)
def test_declarations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        declared(**changes)


def test_a_lookup_has_no_keys() -> None:
    with pytest.raises(ArgumentError, match=r"the lookup 'raw\.names' has key_columns"):
        IcebergSource("raw.names", role="lookup", key_columns=["id"])


def test_templates_are_looked_at_when_they_are_rendered() -> None:
    assert declared(key_horizon="{{ params.horizon }}").key_horizon is None
    assert declared(key_horizon="90.5").key_horizon == dt.timedelta(seconds=90.5)


@pytest.fixture
def world(tmp_path: Path) -> Totals:
    world = Totals(home=tmp_path).set_up()
    world.land(1, 2, region="eu")
    world.tick()
    world.land(3, region="us")
    return world


def refused(world: Totals, kind: type[IncrementalError], message: str, **changes: Any) -> None:
    """Assert that a run fails with a message, that nothing was written, and that the next run without the mistake is right."""
    before = world.target.metadata.snapshots
    with pytest.raises(kind, match=message):
        steps.run(world.process(**changes))
    lock = read_lock(world.target, "proc")
    assert [s for s in world.target.metadata.snapshots if lock is None or s.snapshot_id != lock.snapshot_id] == before


def finish(world: Totals) -> None:
    world.tick()
    world.check()


def test_a_key_the_target_does_not_have(world: Totals) -> None:
    spec = declared(keys=("customer",))
    refused(
        world,
        TableError,
        r"the target mart\.result has no column 'customer', which is a key.*region, n, total",
        spec=spec,
    )
    finish(world)


def test_a_key_a_source_does_not_have(world: Totals) -> None:
    spec = declared(sources={"events": IcebergSource(SOURCE, key_columns=("area",))})
    message = r"the source raw\.events has no column 'area', which is a key.*IcebergSource\(key_columns=\[\.\.\.\]\)"
    refused(world, TableError, message, spec=spec)
    finish(world)


def test_a_key_that_is_a_fraction(tmp_path: Path) -> None:
    world = Totals(home=tmp_path)
    create(world.catalog, SOURCE, EVENTS, ())
    create(world.catalog, TARGET, pa.schema([("region", pa.float64()), ("n", pa.int64())]), ())
    refused_key = r"the key 'region' of the target mart\.result is of type double.*whole numbers, decimals, strings"
    with pytest.raises(TableError, match=refused_key):
        steps.run(world.process())


def test_a_key_of_another_type_than_the_targets(world: Totals) -> None:
    sources = {"events": IcebergSource(SOURCE, key_columns=("v",))}
    message = (
        r"the key 'v' of source 'events' \(raw\.events\) is of type long, and 'region' of the target of type string"
    )
    refused(world, TableError, message, spec=declared(sources=sources))
    finish(world)


def land_without_region(world: Totals) -> None:
    world.next_id += 1
    row = {"id": [world.next_id], "ts": [hour(3)], "region": [None], "v": [1]}
    world.source.append(pa.table(row, schema=EVENTS))


def test_a_row_without_a_key(world: Totals) -> None:
    land_without_region(world)
    refused(
        world,
        NullKey,
        r"of the new rows of source 'events' \(raw\.events\) 1 have no 'region', in files such as .*parquet",
    )
    assert read_lock(world.target, "proc") is None, "found before anything is begun"
    delete_rows_by_position(world.source, [world.next_id])
    finish(world)


def test_a_row_without_a_key_in_a_first_run(tmp_path: Path) -> None:
    world = Totals(home=tmp_path).set_up()
    land_without_region(world)
    world.land(1, region="eu")
    compact(world.source)
    with pytest.raises(NullKey, match=r"1 have no 'region'"):
        world.tick()


@pytest.mark.parametrize("keys", [("region",), ("region", "id")])
def test_a_row_without_a_key_that_is_older_than_the_process_goes(tmp_path: Path, keys: tuple[str, ...]) -> None:
    fields = (("bucket[4]", "region"),)
    world = Totals(home=tmp_path, keys=keys, policies={"initial": "current"}, target_fields=fields).set_up()
    land_without_region(world)
    world.tick()
    world.land(3, region="us")
    world.source.delete(IsNull("region"))
    world.tick()
    world.check()
    assert len(world.target_rows()) == 1


def test_a_row_without_a_key_in_a_reload(tmp_path: Path) -> None:
    world = Totals(home=tmp_path, policies={"on_lost_watermark": "reload"}).set_up()
    world.land(1, region="eu")
    world.tick()
    source = world.source
    land_without_region(world)
    expire(source, [source.metadata.current_snapshot_id])
    refused(world, NullKey, r"of the new rows of source 'events' \(raw\.events\) 1 have no 'region'")


def test_a_row_of_a_key_that_did_not_change(world: Totals) -> None:
    sql = f"{world.sql} UNION ALL SELECT 'eu', 7, 7"
    refused(
        world,
        TransformError,
        r"returned 1 rows .* whose key \(region\) is none of the 1 changed ones.*carry the keys of the drivers through unchanged",
        transform=sql,
    )
    finish(world)


def test_a_returned_row_without_a_key(world: Totals) -> None:
    sql = "SELECT NULL::VARCHAR AS region, 1::BIGINT AS n, 1::BIGINT AS total"
    refused(
        world,
        TransformError,
        r"returned 1 rows .* whose key 'region' is null.*filter with region IS NOT NULL",
        transform=sql,
    )
    finish(world)


def test_writes_of_ones_own(world: Totals) -> None:
    refused(world, ArgumentError, r"has mode='merge' and no transform", transform=None)
    finish(world)


def test_the_target_is_created_with_the_keys(tmp_path: Path) -> None:
    world = Totals(home=tmp_path)
    create(world.catalog, SOURCE, EVENTS, ())
    world.land(1, 2, region="eu")
    spec = attrs.evolve(world.spec, target=IcebergTarget(TARGET, create=True, partition_by=["region"]))
    steps.run(world.process(spec=spec))
    world.check()
    world.land(3, region="us")
    steps.run(world.process(spec=spec))
    world.check()
