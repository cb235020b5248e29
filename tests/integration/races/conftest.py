"""Races are run on both catalogs that need nothing but a database: SQLite and PostgreSQL."""

from __future__ import annotations

import itertools

import pytest

_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_uri(request: pytest.FixtureRequest) -> str | None:
    """The catalog's database; None is a SQLite file of the world's own."""
    if request.param == "sqlite":
        return None
    server = request.getfixturevalue("postgres")
    found: str = server.create_database(f"races{next(_numbers)}", driver="psycopg2")
    return found
