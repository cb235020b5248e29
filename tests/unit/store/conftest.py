from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.integration.postgres import PostgresServer
from tests.support.signal_store import bare_store


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The tables of an empty store, in memory and in PostgreSQL."""
    url = "sqlite://"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.create_database(f"bare_{secrets.token_hex(6)}", driver="psycopg2")
    found = bare_store(url)
    yield found
    found.dispose()
