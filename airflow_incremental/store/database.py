"""The store as a handle: its engine, who it is, and transactions whose errors say what to do and hold no secrets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.exc import ArgumentError as UrlError
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from airflow_incremental.core.errors import ArgumentError, StoreError, StoreMismatch
from airflow_incremental.store.migrating import upgrade
from airflow_incremental.store.schema import store as identity

T = TypeVar("T")

#: Seconds a statement waits for another writer of a SQLite file.
_BUSY = 30
#: Seconds to connect to PostgreSQL.
_CONNECT = 10
#: How often a whole transaction is tried that failed for a reason that passes, and the pause before the second try, in seconds.
_TRIES, _PAUSE = 5, 0.1
#: SQLSTATE classes and codes of PostgreSQL that pass: lost connections, serialization, deadlock, shutting down, too many clients.
_PASSING = ("08", "40001", "40P01", "57P", "53300")


@attrs.frozen(kw_only=True)
class Store:
    """An open store.

    :param engine: of SQLAlchemy, with a small pool; not to be used after a fork.
    :param store_id: which store it is: two containers that each see a file of their own have two.
    :param where: its address, without user and password.
    """

    engine: Engine
    store_id: str
    where: str

    @classmethod
    def open(cls, url: str | URL) -> Store:
        """Open a store, and make or migrate its tables if need be.

        :param url: of SQLAlchemy, ``sqlite:///...`` or ``postgresql...://...``.
        :raises ArgumentError: it is no address of a database that can be a store.
        :raises StoreError: the database does not answer.
        :raises StoreSchemaError: its tables are of a newer version, or not a store's.
        """
        address = _address(url)
        where = address_without_secrets(address)
        engine = _engine(address)
        try:
            with translated(where):
                upgrade(engine, where)
                store_id = _store_id(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine=engine, store_id=store_id, where=where)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that writes: committed at the end, rolled back on an error.

        On SQLite it takes the write lock at once, so that what it reads is what it writes on.
        """
        writing = self.engine.execution_options(incremental_write=True)
        with translated(self.where), writing.begin() as conn:
            yield conn

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that reads; nothing of it is kept."""
        with translated(self.where), self.engine.connect() as conn:
            yield conn

    def writing(self, work: Callable[[Connection], T]) -> T:
        """Run work in a transaction, again if it failed for a reason that passes.

        :param work: has to be right when it is done twice: a commit whose answer was lost may have landed.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                with self.write() as conn:
                    return work(conn)
            except StoreError as error:
                if attempt == _TRIES or not _passes(error):
                    raise
                time.sleep(_PAUSE * 2**attempt)
        raise AssertionError  # the last try returns or raises

    def check(self, store_id: str) -> None:
        """Raise StoreMismatch unless this is the store that somebody else spoke of."""
        if store_id != self.store_id:
            raise StoreMismatch(
                f"this process looks at store {self.store_id} ({self.where}), but the other part of this work used "
                f"store {store_id}",
                expected="one store for all components of a deployment: workers, triggerer, API server",
                hint="make the Airflow connection 'incremental_default' (PostgreSQL, or a SQLite file that all of them can reach); "
                "without it each container has a file of its own",
            )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise errors of the database library as StoreError, without statements, values or passwords.

    :param where: the database, for the error.
    """
    try:
        yield
    except DBAPIError as error:
        raise StoreError(
            f"the store at {where} failed: {_first_line(error.orig)}",
            expected="a database that answers",
            hint="see that it is up and that this machine reaches it, then retry; its address is in the Airflow connection "
            "of the store",
        ) from Cause(error.orig)
    except SQLAlchemyError as error:
        raise StoreError(
            f"the store at {where} failed: {type(error).__name__}: {_first_line(error)}",
            expected="a database that answers",
            hint="retry; if it stays, see whether the database is overloaded",
        ) from None


class Cause(Exception):
    """What a database said, as far as it can be shown: the library's own error holds statements and values."""

    def __init__(self, error: BaseException | None) -> None:
        self.code = str(getattr(error, "pgcode", None) or getattr(error, "sqlstate", None) or "")
        self.kind = type(error).__name__
        super().__init__(f"{self.kind}: {_first_line(error)}")


def address_without_secrets(url: URL) -> str:
    """Return an address that may be shown."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{url.host or ''}{port}/{url.database or ''}"


def _address(url: str | URL) -> URL:
    wanted = "an SQLAlchemy URL of PostgreSQL or of a SQLite file"
    try:
        address = make_url(url)
        backend = address.get_backend_name()
    except (UrlError, NoSuchModuleError, ValueError):
        raise ArgumentError("the address of the store is no URL", expected=wanted) from None
    if backend not in ("postgresql", "sqlite"):
        raise ArgumentError(f"the store is a database of {backend}", expected=wanted)
    if backend == "sqlite" and address.database in (None, "", ":memory:"):
        raise ArgumentError("the store is a SQLite database in memory", expected=wanted, hint="name a file")
    return address


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        folder = Path(str(url.database)).parent
        if not folder.is_dir():
            raise StoreError(
                f"the folder {folder} of the store's SQLite file does not exist",
                expected="a folder that this process can write to",
                hint="create it, or make the Airflow connection 'incremental_default'",
            )
        engine = create_engine(url, connect_args={"timeout": _BUSY, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(
            url,
            pool_pre_ping=True,
            pool_size=2,
            max_overflow=8,
            pool_timeout=_BUSY,
            connect_args={"connect_timeout": _CONNECT, "application_name": "airflow-incremental"},
        )
    except ModuleNotFoundError as error:
        raise ArgumentError(
            f"the store is a PostgreSQL database, and its driver {error.name!r} is not installed",
            expected="psycopg2 wherever the store is used",
            hint="pip install 'airflow-incremental[postgres]'",
        ) from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Transactions are begun by us: the driver's own way begins them at the first write, too late to have read what is written on.
    connection.isolation_level = None
    cursor = connection.cursor()
    # Readers do not wait for the writer. With NORMAL a commit survives a killed process; one that loses power may lose the last
    # commits, never its order.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(conn: Connection) -> None:
    writes = conn.get_execution_options().get("incremental_write", False)
    conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _store_id(engine: Engine) -> str:
    with engine.connect() as conn:
        return str(conn.execute(select(identity.c.store_id)).scalar_one())


def _passes(error: StoreError) -> bool:
    """Say whether the same transaction may succeed in a moment."""
    cause = error.__cause__
    if not isinstance(cause, Cause):
        return False
    text = str(cause)
    return cause.code.startswith(_PASSING) or (not cause.code and cause.kind == "OperationalError") or "locked" in text


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
