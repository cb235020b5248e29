"""Runs of DAGs in this very process: real tasks, XCom, skips, retries, deferrals and asset events, without any server.

One Airflow database for the session of tests, and for each test a catalog with a source that receives rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dagtest.loads import CONN_ID
from tests.support.world import World


@pytest.fixture(scope="session", autouse=True)
def airflow_database() -> Iterator[None]:
    """A migrated SQLite database in the tests' Airflow home."""
    from airflow import settings
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.db import initdb

    settings.configure_orm()
    initdb()
    DagBundlesManager().sync_bundles_to_db()
    yield
    settings.dispose_orm()


def connect(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the catalog of a test's tables behind the connection ``test``."""
    extra = {"type": "sql", "uri": f"sqlite:///{home}/catalog.db", "warehouse": f"file://{home}/warehouse"}
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps({"conn_type": "iceberg", "extra": extra}))


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Make the tables of a test, in the catalog behind the connection ``test``."""

    def make(**arguments: Any) -> World:
        world = World(home=tmp_path / "lake", **arguments).set_up()
        connect(world.home, monkeypatch)
        return world

    return make


@pytest.fixture
def dag_id(request: pytest.FixtureRequest) -> str:
    """An id of its own for the test's DAG."""
    return request.node.name.translate(str.maketrans("[]-/ ", "_____"))
