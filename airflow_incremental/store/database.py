"""The store as a handle: its engine, who it is, and transactions whose errors say what to do and hold no secrets."""

from __future__ import annotations

import random
import re
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
from airflow_incremental.store import hints
from airflow_incremental.store.migrating import upgrade
from airflow_incremental.store.schema import store as identity

T = TypeVar("T")

_WANTED = "an SQLAlchemy URL of PostgreSQL or of a SQLite file"
#: Seconds a statement waits for another writer of a SQLite file.
_BUSY = 30
#: A connection whose other end went away without a word is found dead within a minute, instead of after the system's hours (in
#: seconds; ``tcp_user_timeout`` in milliseconds).
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
#: Seconds to connect to PostgreSQL.
_CONNECT = 10
#: Seconds after its first failure for which work that failed for a reason that passes is begun again: a database that is started
#: again takes some.
_PATIENCE = 10.0
#: Seconds to the second try, which double to the most.
_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
#: SQLSTATE classes and codes of PostgreSQL that pass: lost connections, serialization, deadlock, shutting down, too many clients; a
#: row that was cleaned away just when it was referred to, or the other way round, which the next try sees.
_PASSING = ("08", "40001", "40P01", "57P", "53300", "23503")
#: What it says to somebody who connects, which has no code, and passes.
_STARTING = re.compile(
    "starting up|shutting down|recovery mode|not yet accepting|terminating|too many clients|connection slots"
)


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
    def open(cls, url: str | URL, *, conn_id: str | None = None) -> Store:
        """Open a store, and make or migrate its tables if need be; again if that failed for a reason that passes.

        :param url: of SQLAlchemy, ``sqlite:///...`` or ``postgresql...://...``.
        :param conn_id: Airflow connection that it is from, for errors.
        :raises ArgumentError: it is no address of a database that can be a store.
        :raises StoreError: the database does not answer.
        :raises StoreSchemaError: its tables are of a newer version, or not a store's.
        """
        address = _address(url)
        where = address_without_secrets(address) + (f" (connection {conn_id!r})" if conn_id else "")
        engine = _engine(address)

        def make_ready() -> str:
            with translated(where):
                upgrade(engine, where)
                with engine.connect() as conn:
                    return str(conn.execute(select(identity.c.store_id)).scalar_one())

        try:
            store_id = _with_patience(make_ready)
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
        """Open a transaction that reads: all of it sees the store as it was at its beginning."""
        reading = self.engine
        if reading.dialect.name == "postgresql":  # SQLite's are so by themselves
            reading = reading.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with translated(self.where), reading.connect() as conn:
            yield conn

    def writing(self, work: Callable[[Connection], T]) -> T:
        """Run work in a transaction, again if it failed for a reason that passes.

        :param work: has to be right when it is done twice: a commit whose answer was lost may have landed.
        """

        def once() -> T:
            with self.write() as conn:
                return work(conn)

        return _with_patience(once)

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
            **_advice(where),
        ) from Cause(error.orig)
    except SQLAlchemyError as error:
        raise StoreError(
            f"the store at {where} failed: {type(error).__name__}: {_first_line(error)}",
            expected="a database that answers",
            hint="retry; if it stays, see whether the database is overloaded",
        ) from None


def _advice(where: str) -> dict[str, str]:
    if where.startswith("sqlite"):
        return {
            "expected": "a SQLite file that this process can write to, in a folder that it can write to",
            "hint": "see to its permissions and to the space on its disk, or make the Airflow connection 'incremental_default'",
        }
    return {
        "expected": "a database that answers",
        "hint": "see that it is up and that this machine reaches it, then retry; its address is in the Airflow connection of the "
        "store",
    }


class Cause(Exception):
    """What a database said, as far as it can be shown: the library's own error holds statements and values."""

    def __init__(self, error: BaseException | None) -> None:
        self.code = str(getattr(error, "pgcode", None) or getattr(error, "sqlstate", None) or "")
        self.kind, self.library = type(error).__name__, type(error).__module__.partition(".")[0]
        super().__init__(f"{self.kind}: {_first_line(error)}")


def address_without_secrets(url: URL) -> str:
    """Return an address that may be shown."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{url.host or ''}{port}/{url.database or ''}"


def read_url(url: str | URL, *, what: str) -> URL:
    """Read an address.

    :param what: where it is from, for the error, which does not show it: it may hold a password.
    :raises ArgumentError: it is none.
    """
    try:
        return make_url(url)
    except (UrlError, ValueError):
        raise ArgumentError(f"{what} is no URL", expected=_WANTED) from None


def _address(url: str | URL) -> URL:
    address = read_url(url, what="the address of the store")
    backend = address.drivername.partition("+")[0]
    if backend not in ("postgresql", "sqlite"):
        raise ArgumentError(f"the store is a database of {backend}", expected=_WANTED)
    if backend == "sqlite" and address.database in (None, "", ":memory:"):
        raise ArgumentError("the store is a SQLite database in memory", expected=_WANTED, hint="name a file")
    try:
        address.get_dialect().import_dbapi()
    except (NoSuchModuleError, ModuleNotFoundError):
        raise ArgumentError(
            f"no driver of {address.drivername!r} is installed, which the address of the store asks for",
            expected="psycopg2 for a store in PostgreSQL, wherever the store is used",
            hint="pip install 'airflow-incremental[postgres]'",
        ) from None
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
    hints_are_on = hints.is_asked_for(url)
    ours = {"connect_timeout": _CONNECT, "application_name": "airflow-incremental", **_KEEPALIVE}
    engine = create_engine(
        url.difference_update_query([hints.OPTION]),
        pool_pre_ping=True,
        pool_size=2,
        max_overflow=8,
        pool_timeout=_BUSY,
        connect_args={name: value for name, value in ours.items() if name not in url.query},
    )
    return hints.with_hints(engine) if hints_are_on else engine


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


def _with_patience(work: Callable[[], T]) -> T:
    """Do work, again and again for a while if it fails for a reason that passes."""
    failing_since: float | None = None
    pause = _PAUSE
    while True:
        try:
            return work()
        except StoreError as error:
            now = time.monotonic()
            failing_since = now if failing_since is None else failing_since
            if now + pause > failing_since + _PATIENCE or not _passes(error.__cause__):
                raise
        # Not all together, who were thrown out together.
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
        pause = min(2 * pause, _LONGEST_PAUSE)


def _passes(cause: BaseException | None) -> bool:
    """Say whether what a database said may be otherwise in a moment."""
    if not isinstance(cause, Cause):
        return False
    text = str(cause)
    if cause.code:
        return cause.code.startswith(_PASSING)
    if cause.kind not in ("OperationalError", "InterfaceError"):
        return False
    if cause.library == "sqlite3":
        return "locked" in text
    # A server that cannot be reached, or one that turns clients away: for good (a wrong password) if it does not say otherwise.
    return "FATAL:" not in text or _STARTING.search(text) is not None


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
