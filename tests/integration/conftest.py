"""One real Airflow for all integration tests of a session, and one catalog that its tasks and the tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.landing import Lakehouse
from demo.stack import AirflowStack
from tests.integration.postgres import PostgresServer

DAGS = Path(__file__).parent / "dags"


@pytest.fixture(scope="session")
def airflow_lakehouse(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Lakehouse:
    """The catalog behind the connection ``iceberg_default`` of ``airflow_stack``."""
    folder = tmp_path_factory.mktemp("lakehouse")
    return Lakehouse(folder, uri=postgres.create_database("catalog", driver="psycopg2"))


@pytest.fixture(scope="session")
def airflow_stack(
    tmp_path_factory: pytest.TempPathFactory, airflow_lakehouse: Lakehouse, postgres: PostgresServer
) -> Iterator[AirflowStack]:
    """A running Airflow with the DAGs of ``tests/integration/dags``, all paused until a test unpauses its own.

    Its database is PostgreSQL: on SQLite Airflow refuses to create a backfill while something else writes. It takes
    most of a minute to start, so there is one for all tests: give runs and tables names of their own.
    """
    home = tmp_path_factory.mktemp("airflow")
    database = postgres.create_database("airflow", driver="psycopg2")
    with AirflowStack(home=home, dags=DAGS, database=database, environment=airflow_lakehouse.connection()) as stack:
        yield stack
