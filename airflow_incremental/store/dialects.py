"""What PostgreSQL and SQLite say in different words."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, Table, func
from sqlalchemy.dialects import postgresql, sqlite


def insert_into(conn: Connection, table: Table) -> Any:
    """Return an insert that can say what to do about a row that is there (``on_conflict_do_update``)."""
    return postgresql.insert(table) if conn.dialect.name == "postgresql" else sqlite.insert(table)


def insert_or_leave(conn: Connection, table: Table) -> Any:
    """Return an insert that does nothing about a row that is there."""
    return _insert_or_leave(conn.dialect.name, table)


@cache
def _insert_or_leave(dialect: str, table: Table) -> Any:
    return (postgresql if dialect == "postgresql" else sqlite).insert(table).on_conflict_do_nothing()


def object_of(dialect: str, key: ColumnElement[str], value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Aggregate keys and values into one JSON object; SQLite's is empty where there is none, PostgreSQL's is none."""
    aggregate = func.json_object_agg if dialect == "postgresql" else func.json_group_object
    return aggregate(key, value, type_=JSON)
