"""The store of signals and of the session log, behind an Airflow connection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_incremental.compat import AirflowNotFoundException, BaseHook, connection_is_missing, mask_secret
from airflow_incremental.core.errors import ArgumentError, IncrementalError, StoreError
from airflow_incremental.operators.assets import DEFAULT_STORE_CONN_ID

if TYPE_CHECKING:
    from sqlalchemy import URL

    from airflow_incremental.compat import Connection
    from airflow_incremental.store.database import Store

#: What of a connection's extra is passed on: to PostgreSQL's driver, and whether emits give hints (see ``store.hints``).
_PASSED_ON = ("notify", "sslmode", "sslrootcert", "sslcert", "sslkey", "options", "target_session_attrs")

#: Types of connections that are read as the address of a store.
_TYPES = ("incremental", "postgres", "sqlite", "generic")

#: In Airflow's home: the store where nobody configured one.
DEFAULT_FILE = "incremental.db"
#: (process id, connection id, address) -> open store. Airflow forks tasks, and a child must not use its parent's connections.
_OPEN: dict[tuple[int, str, str], Store] = {}


class IncrementalStoreHook(BaseHook):
    """Opens the store that an Airflow connection names.

    The connection is of type ``incremental``, ``postgres``, ``sqlite`` or ``generic``. For PostgreSQL: host, port, login, password,
    and the database as schema; ``sslmode`` and the like in extra. For SQLite: the absolute path of the file as host. Or a whole
    SQLAlchemy URL as ``url`` in extra. Where nobody made the connection ``incremental_default``, the store is the file
    ``incremental.db`` in Airflow's home, which does for one machine.

    :param incremental_conn_id: the connection.
    """

    conn_name_attr = "incremental_conn_id"
    default_conn_name = DEFAULT_STORE_CONN_ID
    conn_type = "incremental"
    hook_name = "Airflow Incremental store"

    def __init__(self, incremental_conn_id: str | None = None) -> None:
        super().__init__()
        self.incremental_conn_id = incremental_conn_id or self.default_conn_name

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the form of the connection looks."""
        return {
            "hidden_fields": [],
            "relabeling": {"host": "Host, or path of a SQLite file", "schema": "Database"},
            "placeholders": {"port": "5432", "extra": '{"sslmode": "require"}'},
        }

    def get_conn(self) -> Store:
        """Return the open store, as ``store`` does."""
        return self.store()

    def store(self) -> Store:
        """Return the open store; its tables are made or migrated if need be.

        :raises StoreError: it cannot be had.
        """
        return _opened(*self.place())

    def test_connection(self) -> tuple[bool, str]:
        """Say whether the store can be opened, for the form of the connection."""
        try:
            store = self.store()
        except IncrementalError as error:
            return False, str(error)
        return True, f"store {store.store_id} at {store.where}"

    def is_default(self) -> bool:
        """Say whether nobody made the connection, so that the store is a file of this machine."""
        return self._connection() is None

    def url(self) -> URL:
        """Return the address of the store.

        :raises ArgumentError: the connection holds none.
        :raises StoreError: there is no such connection.
        """
        return self.place()[0]

    def place(self) -> tuple[URL, str | None]:
        """Return the address, and the connection that it is from; None if nobody made it."""
        from sqlalchemy import URL

        found = self._connection()
        if found is None:
            return URL.create("sqlite", database=str(default_file())), None
        return url_of(found), self.incremental_conn_id

    @classmethod
    async def aget_store(cls, incremental_conn_id: str | None = None) -> Store:
        """Return the open store in a trigger.

        The connection is asked for in a thread that has a way back to the triggerer's loop: before Airflow 3.3.2,
        ``aget_connection`` can block the loop when it masks secrets.
        """
        import asyncio

        from asgiref.sync import sync_to_async

        url, conn_id = await sync_to_async(cls(incremental_conn_id).place)()
        return await asyncio.to_thread(_opened, url, conn_id)

    def _connection(self) -> Connection | None:
        try:
            return self.get_connection(self.incremental_conn_id)
        except AirflowNotFoundException:
            if self.incremental_conn_id == self.default_conn_name:
                _make_sure_it_is_missing(self.incremental_conn_id)
                return None
            raise StoreError(
                f"there is no Airflow connection {self.incremental_conn_id!r}",
                expected="the connection of the store of signals",
                hint="create it (Admin > Connections, or the variable AIRFLOW_CONN_"
                f"{self.incremental_conn_id.upper()}), or correct incremental_conn_id",
            ) from None


def _make_sure_it_is_missing(conn_id: str) -> None:
    """Raise StoreError unless there is no such connection for sure.

    Airflow says that there is none, too, when it could not find out for a moment. A signal that went to a file of this machine then
    would never be heard of.
    """
    if not connection_is_missing(conn_id):
        raise StoreError(
            f"Airflow could not say whether there is a connection {conn_id!r}",
            expected="an API server that answers: without the connection, the store is a file of this machine",
            hint="retry",
        )


def default_file() -> Path:
    """Return the SQLite file that is the store where nobody configured one."""
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    return Path(home).expanduser() / DEFAULT_FILE


def url_of(connection: Connection) -> URL:
    """Return the address that a connection holds.

    :raises ArgumentError: it holds none.
    """
    from sqlalchemy import URL

    from airflow_incremental.store.database import read_url

    extra: dict[str, Any] = connection.extra_dejson
    if extra.get("url"):
        url = read_url(extra["url"], what=f"url in the extra of connection {connection.conn_id!r}")
        mask_secret(url.password)
        return url
    if connection.conn_type not in _TYPES:
        raise ArgumentError(
            f"connection {connection.conn_id!r} is of type {connection.conn_type!r}",
            expected=f"one of type {', '.join(_TYPES)}",
            hint="put an SQLAlchemy URL into its extra as 'url', or name another connection",
        )
    host = connection.host or ""
    # Where the connection was given as a URI, the path is what Airflow takes for the schema.
    path = host or connection.schema or ""
    # PostgreSQL's library takes a host that is a path for the folder of a socket; a file has no database in it.
    is_socket = connection.conn_type != "sqlite" and bool(host and connection.schema)
    if connection.conn_type == "sqlite" or (path.startswith("/") and not is_socket):
        if not path.startswith("/"):
            raise ArgumentError(
                f"connection {connection.conn_id!r} names the SQLite file {path!r}",
                expected="an absolute path: processes run in different folders",
            )
        return URL.create("sqlite", database=path)
    if not host or not connection.schema:
        raise ArgumentError(
            f"connection {connection.conn_id!r} names no host or no database",
            expected="host, login, password and the database as schema; or the path of a SQLite file as host",
            hint="complete it, or put an SQLAlchemy URL into its extra as 'url'",
        )
    return URL.create(
        "postgresql+psycopg2",
        username=connection.login,
        password=connection.password,
        host=host,
        port=connection.port or 5432,
        database=connection.schema,
        query={name: str(extra[name]) for name in _PASSED_ON if name in extra},
    )


def _opened(url: URL, conn_id: str | None) -> Store:
    from airflow_incremental.store.database import Store

    key = (os.getpid(), conn_id or "", url.render_as_string(hide_password=False))
    if key not in _OPEN:
        opened = Store.open(url, conn_id=conn_id)
        # Two threads may have come here together.
        if _OPEN.setdefault(key, opened) is not opened:
            opened.close()
    return _OPEN[key]
