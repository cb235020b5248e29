"""PostgreSQL's LISTEN and NOTIFY, as a hint that it is worth to look for signals now. Looking stays the truth.

Off unless the store's address asks for it by ``notify=true``: transactions that notify are committed one after the other, whatever
names they emit, and poolers of transactions swallow what a listener waits for.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, text

from airflow_incremental.core.errors import ArgumentError

#: In the query of an address, in the extra of an Airflow connection, and, with a prefix, among the options of an engine.
OPTION = "notify"
_OF_ENGINE = f"incremental_{OPTION}"
_NOTIFY = text("NOTIFY incremental_signals")


def is_asked_for(url: URL) -> bool:
    """Say whether an address asks for hints.

    :raises ArgumentError: it says neither yes nor no, or its driver cannot listen.
    """
    said = url.query.get(OPTION, "false")
    if str(said).lower() not in ("true", "false"):
        raise ArgumentError(f"{OPTION} of the store's address is {said!r}", expected="true or false")
    wanted = str(said).lower() == "true"
    if wanted and url.get_driver_name() != "psycopg2":
        raise ArgumentError(
            f"the store's address asks for {OPTION}, and its driver is {url.get_driver_name()}",
            expected="PostgreSQL with psycopg2",
            hint=f"leave {OPTION} out: signals are heard of at the next poll",
        )
    return wanted


def with_hints(engine: Engine) -> Engine:
    """Return an engine whose emits give hints."""
    return engine.execution_options(**{_OF_ENGINE: True})


def are_on(source: Engine | Connection) -> bool:
    """Say whether there are hints in a store."""
    return bool(source.get_execution_options().get(_OF_ENGINE, False))


def give(conn: Connection) -> None:
    """Wake all listeners when the transaction is committed, if there are hints."""
    if are_on(conn):
        conn.execute(_NOTIFY)


class Listener:
    """A connection of its own, which becomes readable when a hint has come or when it is lost.

    :param connection: of psycopg2, which listens.
    :param error: what it raises when it is lost.
    """

    def __init__(self, connection: Any, error: type[Exception]) -> None:
        self._connection = connection
        self._error = error
        #: What a selector waits for; kept, because a lost connection does not tell it any more.
        self.file: int = connection.fileno()

    @classmethod
    def open(cls, engine: Engine) -> Listener | None:
        """Connect and listen; None if the database does not let us, which the next poll finds out better."""
        library: Any = engine.dialect.dbapi
        positional, named = engine.dialect.create_connect_args(engine.url)
        try:
            connection: Any = engine.dialect.connect(*positional, **{"connect_timeout": 10, **named})
            connection.set_session(autocommit=True)
            with connection.cursor() as cursor:
                cursor.execute("LISTEN incremental_signals")
            return cls(connection, library.Error)
        except library.Error:
            return None

    def is_alive(self) -> bool:
        """Take in what has come, and say whether more can come."""
        try:
            self._connection.poll()
        except self._error:
            return False
        self._connection.notifies.clear()
        return True

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
