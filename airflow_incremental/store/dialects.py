"""What PostgreSQL and SQLite say in different words."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_into(conn: Connection, table: Table) -> Any:
    """Return an insert that can say what to do about a row that is there (``on_conflict_do_update``)."""
    return postgresql.insert(table) if conn.dialect.name == "postgresql" else sqlite.insert(table)


def insert_or_leave(conn: Connection, table: Table) -> Any:
    """Return an insert that does nothing about a row that is there."""
    return insert_into(conn, table).on_conflict_do_nothing()
