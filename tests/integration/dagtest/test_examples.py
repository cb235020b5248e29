"""The first DAG of the README and the example that writes by itself, run as they stand."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from demo.flights import load_flights
from demo.landing import Lakehouse, create_source, land
from tests.integration.dagtest.runner import run_dag

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
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
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
