from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import sqlalchemy as sa

from airflow_incremental.core.plan import Owner
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.session_log import LoadKey, SessionEntry
from airflow_incremental.store.database import Store
from airflow_incremental.store.documented import document
from airflow_incremental.store.sessions import write_session
from airflow_incremental.store.views import VIEWS

PAGE = Path(__file__).parents[3] / "docs" / "store.md"


def test_the_page_is_what_the_tables_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), "write it anew: make docs-store"


def test_the_statements_of_the_page_say_the_same_in_both_databases(store: Store) -> None:
    began = dt.datetime(2024, 3, 1, 6, tzinfo=UTC)
    times = {"planned_at": began, "published_at": began + dt.timedelta(minutes=90)}
    entry = SessionEntry(
        session="s", state="published", mode="append", kind="load", owner=Owner(deployment="here"), **times
    )
    (block,) = re.findall(r"```sql\n(.*?)```", document(), re.DOTALL)
    with store.write() as conn:
        write_session(conn, LoadKey(iceberg_conn_id="c", target="t", process="p"), entry)
    with store.read() as conn:
        none, one = (conn.execute(sa.text(statement)).mappings().all() for statement in block.split(";")[:2])
        (row,) = one
        found = {name: dt.datetime.fromisoformat(str(row[name])) for name in times}
        assert none == []
        assert {
            name: time.replace(tzinfo=UTC) if time.tzinfo is None else time for name, time in found.items()
        } == times
        for name in VIEWS:
            assert conn.execute(sa.text(f"SELECT * FROM {name}")).all() == []
            assert f"### {name}" in document()
        if store.engine.dialect.name == "sqlite":
            days = "SELECT julianday(published_at) - julianday(planned_at) FROM incremental_session"
            assert round(24 * conn.execute(sa.text(days)).scalar_one(), 6) == 1.5
