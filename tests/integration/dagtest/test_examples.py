"""The example DAG that writes by itself, run as it stands."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

from demo.flights import load_flights
from demo.landing import Lakehouse, create_source, land
from tests.integration.dagtest.runner import run_dag

FILE = Path(__file__).parents[3] / "dags" / "own_writes.py"


def test_own_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lakehouse = Lakehouse(tmp_path)
    for name, value in lakehouse.connection().items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("own_writes", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_writes", module)
    spec.loader.exec_module(module)
    dag = module.load.dag
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
