"""One Spark, one REST catalog server and one PostgreSQL for all tests here: give each test its own catalog or tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.postgres import PostgresServer, find_binaries
from tests.spark.support.catalogs import SharedCatalog, jdbc_catalog
from tests.spark.support.fault_proxy import FaultProxy
from tests.spark.support.rest_server import RestCatalogServer
from tests.spark.support.spark_process import SparkProcess

#: Tests of the driver's package run in a driver's Python, which has no libraries of ours (make test-spark).
collect_ignore = ["driver"]
_numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, so that no test is forgotten."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.spark)


@pytest.fixture(scope="session")
def spark_postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL server."""
    binaries = find_binaries()
    assert binaries is not None, "no PostgreSQL here: install a server of the system"
    with PostgresServer(binaries) as server:
        yield server


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkProcess]:
    """The Spark that all tests share; each request to it has a session of its own."""
    with SparkProcess(tmp_path_factory.mktemp("spark")) as process:
        yield process


@pytest.fixture(scope="session")
def rest_server(
    tmp_path_factory: pytest.TempPathFactory, spark_postgres: PostgresServer
) -> Iterator[RestCatalogServer]:
    """The REST catalog server that all tests share."""
    home = tmp_path_factory.mktemp("rest")
    database = spark_postgres.create_database("rest", driver="psycopg2")
    with RestCatalogServer(database=database, warehouse=home / "warehouse", log=home / "log") as server:
        yield server


@pytest.fixture
def rest_catalog(rest_server: RestCatalogServer) -> SharedCatalog:
    """The REST catalog, without tables."""
    return rest_server.catalog.emptied()


@pytest.fixture
def proxy(rest_server: RestCatalogServer) -> Iterator[FaultProxy]:
    """A proxy in front of the REST catalog, which lets everything pass until it is told otherwise."""
    with FaultProxy(rest_server.address) as found:
        yield found


@pytest.fixture(scope="session")
def new_jdbc_catalog(
    tmp_path_factory: pytest.TempPathFactory, spark_postgres: PostgresServer
) -> Callable[[], SharedCatalog]:
    """Make a JDBC catalog on PostgreSQL that nobody else uses: for every example of a property test, say."""
    database = spark_postgres.create_database("jdbc", driver="psycopg2")
    home = tmp_path_factory.mktemp("jdbc")

    def make() -> SharedCatalog:
        name = f"jdbc{next(_numbers)}"
        return jdbc_catalog(database, name=name, warehouse=home / name).emptied()

    return make


@pytest.fixture(name="jdbc_catalog")
def a_jdbc_catalog(new_jdbc_catalog: Callable[[], SharedCatalog]) -> SharedCatalog:
    """A JDBC catalog on PostgreSQL, without tables."""
    return new_jdbc_catalog()


@pytest.fixture(params=["rest", "jdbc"])
def catalog(request: pytest.FixtureRequest) -> SharedCatalog:
    """Each of the catalogs, without tables."""
    found: SharedCatalog = request.getfixturevalue(f"{request.param}_catalog")
    return found
