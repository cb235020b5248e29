"""The first DAG of the README and examples of ``dags/`` that have something of their own to show, run as they stand."""

from __future__ import annotations

import datetime as dt
import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import AssetAll

from airflow_incremental import iceberg_asset
from airflow_incremental.iceberg.state import published
from demo.flights import departing, load_flights, load_planes
from demo.landing import Lakehouse, create_aircraft_state, create_planes, create_source, land
from demo.report import report_target
from tests.integration.dagtest.runner import BUNDLE, run_dag

ROOT = Path(__file__).parents[3]


def imported(file: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, file.stem, module)
    spec.loader.exec_module(module)
    return module


def test_the_first_dag_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lakehouse = Lakehouse(tmp_path / "lake")
    for name, value in lakehouse.connection().items():
        monkeypatch.setenv(name, value)
    code, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) < 30
    file = tmp_path / "first_dag_of_the_readme.py"
    file.write_text(
        code.replace("with DAG(", "with (dag := DAG(").replace("max_active_runs=1):", "max_active_runs=1)):")
    )
    dag = imported(file, monkeypatch).dag
    catalog = lakehouse.catalog()
    create_source(catalog)
    flights = load_flights().slice(0, 3_000)
    # The first flight lands last: a day that was complete is computed again, and nothing else.
    for part in (flights.slice(1), flights.slice(0, 1)):
        land(catalog, part)
        run = run_dag(dag)
        assert run.state == "success"
    assert len(run.xcom("load")["ranges"]) == 1
    assert run.xcom("load")["late_rows"] == 1
    landed = catalog.load_table("raw.flights").scan().to_arrow()
    expected = Counter(
        zip((t.date() for t in landed["time_hour"].to_pylist()), landed["carrier"].to_pylist(), strict=True)
    )
    found = catalog.load_table("mart.carrier_days").scan().to_arrow().to_pylist()
    assert {(r["day"], r["carrier"]): r["flights"] for r in found} == dict(expected)


def test_own_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lakehouse = Lakehouse(tmp_path)
    for name, value in lakehouse.connection().items():
        monkeypatch.setenv(name, value)
    dag = imported(ROOT / "dags" / "own_writes.py", monkeypatch).load.dag
    catalog = lakehouse.catalog()
    create_source(catalog)
    flights = load_flights().slice(0, 3_000)
    for part in (flights.slice(0, 2_000), flights.slice(2_000), None):
        if part is not None:
            land(catalog, part)
        assert run_dag(dag).state == "success"
        landed = catalog.load_table("raw.flights").scan().to_arrow()
        expected = Counter(
            (hour.date(), origin)
            for hour, origin in zip(*(landed[c].to_pylist() for c in ("time_hour", "origin")), strict=True)
        )
        found = catalog.load_table("mart.airport_days").scan().to_arrow().to_pylist()
        assert {(r["day"], r["origin"]): r["flights"] for r in found} == dict(expected)


def test_aircraft_follow_the_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One aircraft has two legs at the same time in the schedule, and one of them lands a day late."""
    lakehouse = Lakehouse(tmp_path / "lake")
    for name, value in lakehouse.connection().items():
        monkeypatch.setenv(name, value)
    bag = DagBag(dag_folder=ROOT / "dags", bundle_name=BUNDLE)
    assert not bag.import_errors
    fact, state, aircraft = (bag.dags[name] for name in ("flight_fact", "aircraft_state", "aircraft"))
    assert state.timetable.asset_condition == AssetAll(iceberg_asset("mart.flight_fact"))
    assert aircraft.timetable.asset_condition == AssetAll(iceberg_asset("mart.aircraft_state"))
    catalog = lakehouse.catalog()
    create_source(catalog)
    create_planes(catalog, load_planes())
    create_aircraft_state(catalog)
    start = dt.datetime(2013, 9, 10, 12, tzinfo=dt.timezone.utc)
    flights = departing(load_flights(), start, start + dt.timedelta(hours=36))
    flights = flights.filter(pc.is_in(flights["carrier"], pa.array(["DL", "HA"])))
    late = pc.equal(flights["flight_key"], "2013-09-10 DL1765 JFK")
    ranges, computed = [], []
    for part in (flights.filter(pc.invert(late)), flights.filter(late)):
        land(catalog, part)
        runs = [run_dag(dag) for dag in (fact, state, aircraft)]
        assert [run.state for run in runs] == ["success"] * 3
        ranges.append(runs[1].xcom("load")["ranges"])
        computed.append(runs[2].xcom("load")["rows"])
        landed = catalog.load_table("raw.flights").scan().to_arrow()
        legs, one_each = (catalog.load_table(f"mart.{name}") for name in ("aircraft_state", "aircraft"))
        through = published(legs, "aircraft_state").watermark.processed_through  # type: ignore[union-attr]
        for table in (legs, one_each):
            report = report_target(table, process=table.name()[1], landed=landed, through=through)
            assert report.matches_full_recompute
            assert report.sessions == len(ranges)
    assert ranges == [["2013-09-10T12:00:00Z/2013-09-11T15:00:00Z"], ["2013-09-10T13:00:00Z/2013-09-11T15:00:00Z"]]
    assert report_target(legs, process="aircraft_state", landed=landed).late_rows == 1
    assert computed == [one_each.scan().count(), 1], (
        "27 hours of legs were written again, and one aircraft has others now"
    )
    numbers = {r["flight_key"]: r["legs"] for r in legs.scan(row_filter="tailnum == 'N709TW'").to_arrow().to_pylist()}
    assert numbers == {"2013-09-10 DL120 JFK": 1, "2013-09-10 DL1765 JFK": 2, "2013-09-11 DL120 JFK": 3}
