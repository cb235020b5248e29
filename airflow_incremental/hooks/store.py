"""The store of signals and of the session log, behind an Airflow connection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_incremental.compat import AirflowNotFoundException, BaseHook
from airflow_incremental.core.errors import ArgumentError, StoreError
from airflow_incremental.operators.assets import DEFAULT_STORE_CONN_ID

if TYPE_CHECKING:
    from sqlalchemy import URL

    from airflow_incremental.compat import Connection
    from airflow_incremental.store.database import Store

#: What of a connection's extra is passed on to PostgreSQL's driver.
_PASSED_ON = ("sslmode", "sslrootcert", "sslcert", "sslkey", "options", "target_session_attrs")

#: In Airflow's home: the store where nobody configured one.
DEFAULT_FILE = "incremental.db"
#: (process id, address) -> open store. Airflow forks tasks, and a child must not use its parent's connections.
_OPEN: dict[tuple[int, str], Store] = {}


class IncrementalStoreHook(BaseHook):
    """Opens the store that an Airflow connection names.

    The connection is of type ``incremental``, ``postgres`` or ``sqlite``. For PostgreSQL: host, port, login, password, and the
    database as schema; ``sslmode`` and the like in extra. For SQLite: the path of the file as host. Or a whole SQLAlchemy URL as
    ``url`` in extra. Where nobody made the connection ``incremental_default``, the store is the file ``incremental.db`` in
    Airflow's home, which does for one machine.

    :param incremental_conn_id: the connection.
    """

    conn_name_attr = "incremental_conn_id"
    default_conn_name = DEFAULT_STORE_CONN_ID
    conn_type = "incremental"
    hook_name = "Airflow Incremental store"

    def __init__(self, incremental_conn_id: str | None = None) -> None:
        super().__init__()
        self.incremental_conn_id = incremental_conn_id or self.default_conn_name

    def get_conn(self) -> Store:
        """Return the open store, as ``store`` does."""
        return self.store()

    def store(self) -> Store:
        """Return the open store; its tables are made or migrated if need be.

        :raises StoreError: it cannot be had.
        """
        return _opened(self.url())

    def is_default(self) -> bool:
        """Say whether nobody made the connection, so that the store is a file of this machine."""
        return self._connection() is None

    def url(self) -> URL:
        """Return the address of the store.

        :raises ArgumentError: the connection holds none.
        :raises StoreError: there is no such connection.
        """
        from sqlalchemy import URL

        found = self._connection()
        if found is None:
            return URL.create("sqlite", database=str(default_file()))
        return url_of(found)

    @classmethod
    async def aget_store(cls, incremental_conn_id: str | None = None) -> Store:
        """Return the open store in a trigger: the connection is asked for through the triggerer, the rest is done in a thread."""
        import asyncio

        from asgiref.sync import sync_to_async

        hook = cls(incremental_conn_id)
        url = await sync_to_async(hook.url)()
        return await asyncio.to_thread(_opened, url)

    def _connection(self) -> Connection | None:
        try:
            return self.get_connection(self.incremental_conn_id)
        except AirflowNotFoundException:
            if self.incremental_conn_id == self.default_conn_name:
                return None
            raise StoreError(
                f"there is no Airflow connection {self.incremental_conn_id!r}",
                expected="the connection of the store of signals",
                hint="create it (Admin > Connections, or the variable AIRFLOW_CONN_"
                f"{self.incremental_conn_id.upper()}), or correct incremental_conn_id",
            ) from None


def default_file() -> Path:
    """Return the SQLite file that is the store where nobody configured one."""
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    return Path(home).expanduser() / DEFAULT_FILE


def url_of(connection: Connection) -> URL:
    """Return the address that a connection holds.

    :raises ArgumentError: it holds none.
    """
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError as UrlError

    extra: dict[str, Any] = connection.extra_dejson
    if extra.get("url"):
        try:
            return make_url(extra["url"])
        except UrlError:
            raise ArgumentError(
                f"url in the extra of connection {connection.conn_id!r} is no URL", expected="an SQLAlchemy URL"
            ) from None
    host = connection.host or ""
    if connection.conn_type == "sqlite" or host.startswith(("/", "./")):
        return URL.create("sqlite", database=host)
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


def _opened(url: URL) -> Store:
    from airflow_incremental.store.database import Store

    key = (os.getpid(), url.render_as_string(hide_password=False))
    if key not in _OPEN:
        _OPEN[key] = Store.open(url)
    return _OPEN[key]
