"""What passes is tried again, what does not is told at once, and neither shows a secret."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa

from airflow_incremental.core.errors import ArgumentError, StoreError
from airflow_incremental.store import database
from airflow_incremental.store.database import Store
from airflow_incremental.store.schema import signal_name
from airflow_incremental.store.searching import newest
from tests.integration.postgres import PostgresServer
from tests.support.stores import address, say


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 1.0)
    monkeypatch.setattr(database, "_PAUSE", 0.001)


class Failing:
    """Work that fails some times before it is done, as if a database had said so."""

    def __init__(self, error: type[Exception], *, code: str | None = None, text: str = "", times: int = 2) -> None:
        self.error, self.text, self.left, self.tries = error, text, times, 0
        self.code = code

    def __call__(self, conn: sa.Connection) -> int:
        self.tries += 1
        if self.left:
            self.left -= 1
            cause: Any = type(self.error.__name__, (self.error,), {"__module__": self.error.__module__})(self.text)
            if self.code:
                vars(cause)["sqlstate"] = self.code
            statement = "INSERT INTO t VALUES (:secret)"
            raise sa.exc.DBAPIError.instance(statement, {"secret": "s3cr3t"}, cause, Exception)
        return int(conn.execute(sa.text("SELECT 7")).scalar_one())


PASSING = [
    Failing(psycopg2.OperationalError, code="40P01", text="deadlock detected"),
    Failing(psycopg2.OperationalError, code="40001", text="could not serialize access"),
    Failing(psycopg2.OperationalError, code="57P01", text="terminating connection due to administrator command"),
    Failing(psycopg2.OperationalError, code="53300", text="too many connections"),
    Failing(psycopg2.OperationalError, text="server closed the connection unexpectedly"),
    Failing(psycopg2.OperationalError, text='connection to server at "db", port 5432 failed: Connection refused'),
    Failing(psycopg2.OperationalError, text="failed: FATAL:  the database system is starting up"),
    Failing(psycopg2.OperationalError, text="failed: FATAL:  sorry, too many clients already"),
    Failing(psycopg2.InterfaceError, text="connection already closed"),
    Failing(sqlite3.OperationalError, text="database is locked"),
]
LASTING = [
    Failing(psycopg2.OperationalError, text='failed: FATAL:  password authentication failed for user "anna"'),
    Failing(psycopg2.OperationalError, text='failed: FATAL:  database "signals" does not exist'),
    Failing(psycopg2.ProgrammingError, code="42501", text="permission denied for table incremental_signal"),
    Failing(psycopg2.DataError, code="22001", text="value too long for type character varying(256)"),
    Failing(psycopg2.IntegrityError, code="23505", text="duplicate key value violates unique constraint"),
    Failing(sqlite3.OperationalError, text="disk I/O error"),
    Failing(sqlite3.OperationalError, text="attempt to write a readonly database"),
    Failing(sqlite3.DatabaseError, text="database disk image is malformed"),
]


@pytest.mark.parametrize("work", PASSING, ids=lambda work: work.text)
def test_what_passes_is_done_again(sqlite_store: Store, work: Failing) -> None:
    assert sqlite_store.writing(work) == 7
    assert work.tries == 3


@pytest.mark.parametrize("work", LASTING, ids=lambda work: work.text)
def test_what_does_not_is_told_at_once_without_values(sqlite_store: Store, work: Failing) -> None:
    with pytest.raises(StoreError, match="What to do") as caught:
        sqlite_store.writing(work)
    assert work.tries == 1
    assert work.text in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(caught.value.__cause__)
    assert "s3cr3t" not in shown


def test_patience_ends(sqlite_store: Store) -> None:
    work = Failing(psycopg2.OperationalError, text="Connection refused", times=10_000)
    begun = time.monotonic()
    with pytest.raises(StoreError, match="Connection refused"):
        sqlite_store.writing(work)
    assert 0.5 < time.monotonic() - begun < 10
    assert work.tries > 3


def test_two_that_deadlock_both_get_their_way(postgresql_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # The server takes a second to see it, and they may meet again.
    monkeypatch.setattr(database, "_PATIENCE", 30.0)
    monkeypatch.setattr(database, "_PAUSE", 0.1)
    for name in ("a", "b"):
        say(postgresql_store, name)
    both_hold = {"a": False, "b": False}

    def lock(conn: sa.Connection, one: str, other: str) -> None:
        count_up = sa.update(signal_name).values(last_seq=signal_name.c.last_seq + 1)
        conn.execute(count_up.where(signal_name.c.name == one))
        both_hold[one] = True
        while not both_hold[other]:
            time.sleep(0.01)
        conn.execute(count_up.where(signal_name.c.name == other))

    others = threading.Thread(target=postgresql_store.writing, args=(lambda conn: lock(conn, "b", "a"),))
    others.start()
    postgresql_store.writing(lambda conn: lock(conn, "a", "b"))
    others.join()
    with postgresql_store.read() as conn:
        assert set(conn.execute(sa.select(signal_name.c.last_seq)).scalars()) == {3}


def test_connections_that_the_server_ended_are_replaced(postgresql_store: Store) -> None:
    say(postgresql_store, "a", request_id="1")
    with postgresql_store.write() as conn:
        conn.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'signals' AND pid <> pg_backend_pid()"
            )
        )
    assert say(postgresql_store, "a", request_id="2").new
    with postgresql_store.read() as conn:
        assert conn.execute(sa.select(signal_name.c.last_seq)).scalar() == 2


def test_a_wrong_password_is_told_at_once(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 60.0)
    url = f"postgresql+psycopg2://nobody:s3cr3t@127.0.0.1:{postgres.port}/signals"
    begun = time.monotonic()
    with pytest.raises(
        StoreError, match=r"postgresql://127\.0\.0\.1:\d+/signals \(connection 'mine'\) failed.*does not exist"
    ) as caught:
        Store.open(url, conn_id="mine")
    assert time.monotonic() - begun < 20
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://anna:s3/cr3t@db/signals",
        "postgresql+psycopg2://anna:s3cr3t@db:port/signals",
        "postgresql+nodriver://anna:s3cr3t@db/signals",
        "mysql://anna:s3cr3t@db/signals",
        "s3cr3t",
    ],
)
def test_an_address_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Store.open(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert "cr3t" not in shown


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("some notes, and not a database at all" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt failed: file is not a database"):
        Store.open(f"sqlite:///{file}")


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.geteuid() == 0:  # to whom no folder is closed
        (folder / "store.db").mkdir()
    with pytest.raises(StoreError, match=r"store\.db failed: unable to open database file.*permissions"):
        Store.open(f"sqlite:///{folder}/store.db")
    folder.chmod(stat.S_IRWXU)


def test_a_reader_sees_the_store_of_one_moment(store: Store) -> None:
    say(store, "a", request_id="1")
    with store.read() as conn:
        assert newest(conn) == {"a": 1}
        say(store, "a", request_id="2")
        say(store, "b")
        assert newest(conn) == {"a": 1}
    with store.read() as conn:
        assert newest(conn) == {"a": 2, "b": 1}


def test_a_reader_writes_nothing(postgresql_store: Store) -> None:
    with pytest.raises(StoreError, match="read-only transaction"), postgresql_store.read() as conn:
        conn.execute(sa.delete(signal_name))
    assert say(postgresql_store, "a").new, "the connection writes again"


def test_a_writer_waits_for_another_and_readers_do_not(sqlite_store: Store) -> None:
    say(sqlite_store, "a", request_id="1")
    other = Store.open(address(sqlite_store))
    with sqlite_store.write() as conn:
        conn.execute(sa.update(signal_name).values(last_seq=7))
        with other.read() as reading:
            assert reading.execute(sa.select(signal_name.c.last_seq)).scalar() == 1
    assert say(other, "a", request_id="2").signal.seq == 8
    other.close()
