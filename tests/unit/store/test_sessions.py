"""The session log: what a step says last does not always count."""

from __future__ import annotations

import attrs
import pytest
import sqlalchemy as sa

from airflow_incremental.core.plan import Owner
from airflow_incremental.core.session_log import LoadKey, SessionEntry, SessionState
from airflow_incremental.store.database import Store
from airflow_incremental.store.schema import session
from airflow_incremental.store.sessions import write_session

KEY = LoadKey(iceberg_conn_id="c", target="t", process="p")
ENTRY = SessionEntry(session="s", state="planned", mode="append", kind="load", owner=Owner(deployment="here"))


def written(store: Store, *said: tuple[SessionState, str | None]) -> tuple[str, str | None]:
    """Write what steps say one after the other, and return state and error."""
    for state, error in said:
        with store.write() as conn:
            write_session(conn, KEY, attrs.evolve(ENTRY, state=state, error=error))
    with store.read() as conn:
        row = conn.execute(sa.select(session.c.state, session.c.error)).one()
    return row.state, row.error


@pytest.mark.parametrize("late", ["planned", "loaded", "failed"])
def test_a_session_that_a_person_ended_stays_so(store: Store, late: SessionState) -> None:
    """Whatever a worker says that has not heard of it; who ended it, and why, is kept."""
    ended = ("ended", "ended by anna: a wrong range")
    assert written(store, ("planned", None), ended, (late, "the session is over")) == ended


def test_what_was_published_counts_whatever_was_thought_of_it(store: Store) -> None:
    assert written(store, ("planned", None), ("ended", None), ("published", None)) == ("published", None)
    assert written(store, ("failed", "late")) == ("published", None)


def test_a_failed_session_goes_on(store: Store) -> None:
    assert written(store, ("failed", "no memory"), ("planned", None)) == ("planned", None)
