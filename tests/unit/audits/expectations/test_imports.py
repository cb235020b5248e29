"""Great Expectations can be imported wherever a task may run, with pyspark beside it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from airflow_incremental.audits.expectations.imports import import_great_expectations
sys.modules["__main__"].__spec__ = None  # as it is in a worker that was spawned
assert not hasattr(sys.modules["__main__"], "__file__")
import_great_expectations()
assert not hasattr(sys.modules["__main__"], "__file__")
import pyspark.sql.connect.dataframe
print("imported", "great_expectations" in sys.modules)
"""


def test_a_process_without_a_main_file() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["imported", "True"]), done.stderr
