"""One real Airflow for all integration tests of a session, and one catalog that its tasks and the tests share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.landing import Lakehouse
from demo.stack import AirflowStack
from tests.integration.postgres import PostgresServer

DAGS = Path(__file__).parent / "dags"
#: A triggerer or a scheduler that was killed is missed soon, and so are the tasks of that scheduler.
OPTIONS = {
    "triggerer": {"job_heartbeat_sec": "2", "triggerer_health_check_threshold": "8"},
    "scheduler": {
        "scheduler_heartbeat_sec": "2",
        "scheduler_health_check_threshold": "15",
        "orphaned_tasks_check_interval": "3",
    },
}


@pytest.fixture(scope="session")
def airflow_lakehouse(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Lakehouse:
    """The catalog behind the connection ``iceberg_default`` of ``airflow_stack``."""
    folder = tmp_path_factory.mktemp("lakehouse")
    return Lakehouse(folder, uri=postgres.create_database("catalog", driver="psycopg2"))


@pytest.fixture(scope="session")
def airflow_signals(postgres: PostgresServer) -> str:
    """The address of the store behind the connection ``incremental_default`` of ``airflow_stack``."""
    return postgres.create_database("stack_signals", driver="psycopg2")


@pytest.fixture(scope="session")
def airflow_stack(
    tmp_path_factory: pytest.TempPathFactory,
    airflow_lakehouse: Lakehouse,
    airflow_signals: str,
    postgres: PostgresServer,
) -> Iterator[AirflowStack]:
    """A running Airflow with the DAGs of ``tests/integration/dags``, all paused until a test unpauses its own.

    Its database is PostgreSQL: on SQLite Airflow refuses to create a backfill while something else writes. It takes
    most of a minute to start, so there is one for all tests: give runs and tables names of their own.
    """
    home = tmp_path_factory.mktemp("airflow")
    database = postgres.create_database("airflow", driver="psycopg2")
    connection = {"conn_type": "postgres", "extra": {"url": airflow_signals}}
    environment = {
        **airflow_lakehouse.connection(),
        "AIRFLOW_CONN_INCREMENTAL_DEFAULT": json.dumps(connection),
    }
    with AirflowStack(home=home, dags=DAGS, database=database, environment=environment, options=OPTIONS) as stack:
        yield stack
