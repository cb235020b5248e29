"""The store's tables over the versions of this package: made and migrated on first use, by one process at a time."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from airflow_incremental.core.errors import StoreSchemaError
from airflow_incremental.store.schema import VERSION, metadata

#: Where Alembic keeps which version the tables have; not its usual name, because Airflow's own tables may be in the same database.
VERSION_TABLE = "incremental_version"
#: Of PostgreSQL's advisory lock; any number that nobody else uses.
_LOCK = 0x1C3B_E26
#: Alembic keeps what it is about in globals, which threads share.
_ALONE = threading.Lock()


def upgrade(engine: Engine, where: str) -> None:
    """Bring the tables to the newest version, if they are not.

    :param where: the database, for errors.
    :raises StoreSchemaError: they are of a version that this package does not know, or somebody else's.
    """
    with engine.connect() as conn:
        if _version(conn) == VERSION:
            return
    sqlite = engine.dialect.name == "sqlite"
    with _ALONE, engine.connect().execution_options(incremental_write=True) as conn, conn.begin():
        # SQLite has locked the file by now. Whoever waited finds the work done.
        if not sqlite:
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        version = _version(conn)
        if version == VERSION:
            return
        _check(conn, version, where)
        _migrate(conn)


def _version(conn: Connection) -> str | None:
    """Return the version of the tables; None if there are none. Alembic would put lines about itself into every log."""
    if not inspect(conn).has_table(VERSION_TABLE):
        return None
    found: str | None = conn.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608  # a constant
    return found


def _check(conn: Connection, version: str | None, where: str) -> None:
    if version is None:
        taken = metadata.tables.keys() & set(inspect(conn).get_table_names())
        if taken:
            raise StoreSchemaError(
                f"the database at {where} has tables that are not a store's: {', '.join(sorted(taken))}",
                expected="a database, or a schema of one, without tables of such names",
                hint="name another database in the connection of the store",
            )
        return
    if version > VERSION:
        raise StoreSchemaError(
            f"the tables of the store at {where} are of version {version!r}, which this airflow-incremental does not know: its own "
            f"is {VERSION!r}",
            expected="the same airflow-incremental, or a newer one, in all components",
            hint="upgrade airflow-incremental here",
        )


def _migrate(conn: Connection) -> None:
    # Every task that tells the store of something opens it, and hardly any has to migrate it: Alembic takes long to import.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = conn
    command.upgrade(config, VERSION)
