"""Importing the package in a DAG file is cheap: it reaches none of the heavy libraries, whatever public name is used.

Airflow itself imports none of them either, so the plain list of loaded modules is the measure.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ["duckdb", "great_expectations", "numpy", "pandas", "pyarrow", "pyiceberg", "pyspark"]

REPORT = f"""
import json, sys
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""

EVERY_PUBLIC_NAME = """
import airflow_incremental
from airflow_incremental import *
assert airflow_incremental.__all__, "nothing is public"
for name in airflow_incremental.__all__:
    assert getattr(airflow_incremental, name) is globals()[name], name
"""

ENTRY_POINTS = """
from importlib.metadata import distribution
points = {point.group: point.load() for point in distribution("airflow-incremental").entry_points}
assert points["apache_airflow_provider"]()["package-name"] == "airflow-incremental"
assert points["airflow.plugins"].name
"""

EXAMPLE_DAGS = """
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags")
assert not bag.import_errors, bag.import_errors
files = {Path(dag.fileloc).name for dag in bag.dags.values()}
assert files == {path.name for path in Path("dags").rglob("*.py")}, files
"""


def loaded_by(code: str) -> list[str]:
    """Run code in a new interpreter and return which of the heavy libraries it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("code", [EVERY_PUBLIC_NAME, ENTRY_POINTS, EXAMPLE_DAGS])
def test_no_heavy_library_is_loaded(code: str) -> None:
    assert loaded_by(code) == []


def test_a_heavy_library_would_be_noticed() -> None:
    assert loaded_by("import airflow_incremental.iceberg.commits") == ["pyiceberg"]


@pytest.mark.parametrize("path", sorted((ROOT / "airflow_incremental" / "core").rglob("*.py")), ids=lambda p: p.stem)
def test_core_imports_the_standard_library_and_attrs_alone(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "attrs", "airflow_incremental"}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert {name.partition(".")[0] for name in names} <= allowed, names
