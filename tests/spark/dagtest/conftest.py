"""Runs of DAGs in this very process, whose loads run on a real Spark: by ``spark-submit``, or on a Spark Connect server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dagtest.conftest import airflow_database  # noqa: F401  (used by every test here)
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.files import PYTHON
from tests.support.world import World

#: Airflow connection of the tests' Spark.
SPARK = "spark_test"


def connect(catalog: SharedCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a catalog behind an Airflow connection; its id is the catalog's name, which a JDBC catalog keeps with every table."""
    extra = {"conn_type": "iceberg", "extra": dict(catalog.properties)}
    monkeypatch.setenv(f"AIRFLOW_CONN_{catalog.name.upper()}", json.dumps(extra))


@pytest.fixture(autouse=True)
def spark_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of the type ``spark`` that submits to this machine, and a ``spark-submit`` on the PATH."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{SPARK.upper()}", json.dumps({"conn_type": "spark", "host": "local[2]"}))
    monkeypatch.setenv("PATH", os.pathsep.join([str(PYTHON.parent), os.environ["PATH"]]))
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Make the tables of a test in a catalog that Spark shares, behind a connection of its name."""

    def make(catalog: SharedCatalog, **arguments: Any) -> World:
        connect(catalog, monkeypatch)
        return World(home=tmp_path / "lake", opens=catalog.load, **arguments).set_up()

    return make


@pytest.fixture
def dag_id(request: pytest.FixtureRequest) -> str:
    """An id of its own for the test's DAG."""
    return request.node.name.translate(str.maketrans("[]-/ ", "_____"))
