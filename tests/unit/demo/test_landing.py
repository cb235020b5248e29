"""What the feed does to the landing table, and how Airflow finds it."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from airflow.providers.apache.iceberg.hooks.iceberg import IcebergHook

from demo.flights import Tick, cut_into_ticks, departing, load_flights, load_planes
from demo.landing import PLANES, SOURCE, Lakehouse, create_planes, create_source, deliver_again, land, spoil

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pyiceberg.catalog import Catalog


@pytest.fixture(scope="module")
def ticks() -> Sequence[Tick]:
    start = dt.datetime(2013, 1, 1, tzinfo=dt.timezone.utc)
    return cut_into_ticks(departing(load_flights(), start, start + dt.timedelta(days=2, hours=5)), 4)


@pytest.fixture
def lakehouse(tmp_path: Path) -> Lakehouse:
    return Lakehouse(tmp_path / "lake")


@pytest.fixture
def catalog(lakehouse: Lakehouse) -> Catalog:
    found = lakehouse.catalog()
    create_source(found)
    return found


def landed(catalog: Catalog) -> pa.Table:
    rows = catalog.load_table(SOURCE).scan().to_arrow()
    return rows.sort_by([("landed_at", "ascending"), ("flight_key", "ascending")])


def as_landed(rows: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(rows).combine_chunks()


def test_what_lands_is_what_was_sent_in_files_by_day_of_arrival(catalog: Catalog, ticks: Sequence[Tick]) -> None:
    for tick in ticks:
        land(catalog, tick.rows)
    sent = as_landed([t.rows for t in ticks])
    assert landed(catalog).cast(sent.schema).combine_chunks().equals(sent)
    files = catalog.load_table(SOURCE).inspect.files().to_pylist()
    days = {row.date() for row in sent["landed_at"].to_pylist()}
    assert {f["partition"]["landed_day"] for f in files} == days
    # The reason for this partitioning: files hold event hours of more than the day they arrived on.
    spans = [f["readable_metrics"]["time_hour"] for f in files]
    assert any(s["lower_bound"].date() < s["upper_bound"].date() for s in spans)


def test_a_delivery_sent_again_replaces_its_own_files_only(catalog: Catalog, ticks: Sequence[Tick]) -> None:
    land(catalog, ticks[0].rows)
    kept = {f["file_path"] for f in catalog.load_table(SOURCE).inspect.files().to_pylist()}
    spoiled, wrong = spoil(ticks[1].rows)
    assert wrong > 5
    land(catalog, spoiled)
    assert pc.sum(pc.less(landed(catalog)["distance"], 0)).as_py() == wrong
    deliver_again(catalog, ticks[1])
    sent = as_landed([ticks[0].rows, ticks[1].rows])
    assert landed(catalog).cast(sent.schema).combine_chunks().equals(sent)
    table = catalog.load_table(SOURCE)
    assert kept < {f["file_path"] for f in table.inspect.files().to_pylist()}
    removal = table.metadata.snapshots[-2].summary
    assert removal is not None
    assert removal["deleted-records"] == str(ticks[1].rows.num_rows), "no row of another delivery was rewritten"


def test_delivering_again_twice_changes_nothing(catalog: Catalog, ticks: Sequence[Tick]) -> None:
    for _ in range(2):
        deliver_again(catalog, ticks[0])
    assert landed(catalog).num_rows == ticks[0].rows.num_rows


def test_spoiled_rows_break_the_audits_and_no_others(ticks: Sequence[Tick]) -> None:
    rows = ticks[2].rows
    spoiled, wrong = spoil(rows, every=100)
    bad = pc.is_null(spoiled["carrier"])
    assert pc.sum(bad).as_py() == wrong == -(-rows.num_rows // 100)
    assert spoiled.filter(pc.invert(bad)).combine_chunks().equals(rows.filter(pc.invert(bad)).combine_chunks())
    assert pc.all(pc.less(spoiled.filter(bad)["distance"], 0)).as_py()
    assert spoiled.schema.equals(rows.schema)


def test_planes_land_as_they_are_known(catalog: Catalog) -> None:
    planes = load_planes()
    create_planes(catalog, planes)
    found = catalog.load_table(PLANES).scan().to_arrow()
    assert found.cast(planes.schema).combine_chunks().equals(planes.combine_chunks())


def test_airflows_hook_finds_the_same_catalog(
    lakehouse: Lakehouse, catalog: Catalog, ticks: Sequence[Tick], monkeypatch: pytest.MonkeyPatch
) -> None:
    land(catalog, ticks[0].rows)
    ((name, value),) = lakehouse.connection().items()
    assert name == "AIRFLOW_CONN_ICEBERG_DEFAULT"
    assert json.loads(value)["conn_type"] == "iceberg"
    monkeypatch.setenv(name, value)
    found = IcebergHook("iceberg_default").catalog
    assert found.load_table(SOURCE).scan().count() == ticks[0].rows.num_rows
