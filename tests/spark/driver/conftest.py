"""Fixtures of the driver's tests, which run where only pyspark and pytest are installed, as on a cluster.

``SPARK_SESSION=connect`` runs them over Spark Connect (pyspark 4), everything else in a classic session.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.spark.driver.lake import Lake, packages

#: Programs are the same whatever session the tests have.
collect_ignore = ["test_programs.py"] if os.environ.get("SPARK_SESSION") == "connect" else []
EXTENSIONS = "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    builder = SparkSession.builder
    conf = {
        "spark.jars.packages": packages(),
        # For tests that make branches and row-level deletes; the driver itself needs none (see test_programs).
        "spark.sql.extensions": EXTENSIONS,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.memory": "1g",
        # Nothing here runs long enough to pay for optimised code.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
        "spark.sql.codegen.wholeStage": "false",
        "spark.log.level": "OFF",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("hive")),
    }
    for key, value in conf.items():
        builder = builder.config(key, value)
    connect = os.environ.get("SPARK_SESSION") == "connect"
    session = (builder.remote("local[2]") if connect else builder.master("local[2]")).getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warehouse")


@pytest.fixture
def lake(spark: Any, warehouse: Path) -> Lake:
    """A namespace of its own, and what makes job documents for its tables."""
    return Lake(spark, warehouse, f"n{next(_NUMBERS)}")
