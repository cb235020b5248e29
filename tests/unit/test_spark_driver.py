"""The package that is shipped to Spark drivers runs on the oldest Python that Spark 3.5 takes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "airflow_incremental_spark"
MODULES = sorted(PACKAGE.glob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.name)
def test_modules_are_written_for_python_3_8(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=(3, 8))
    if any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in tree.body):
        # Annotations in newer words are never evaluated then.
        first = next(n for n in tree.body if isinstance(n, ast.ImportFrom))
        assert (first.module, first.names[0].name) == ("__future__", "annotations")


def test_it_is_imported_without_spark_and_without_us(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import airflow_incremental_spark as found; "
        "assert not {'pyspark', 'airflow', 'airflow_incremental'} & set(sys.modules); print(sorted(found.__all__))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(PACKAGE.parent)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "['DriverError', 'Job', 'Step', 'main', 'open_job', 'run']"
