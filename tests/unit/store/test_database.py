from __future__ import annotations

import multiprocessing
import re
import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from airflow_incremental.core.errors import ArgumentError, StoreError, StoreMismatch, StoreSchemaError
from airflow_incremental.store import database, schema
from airflow_incremental.store.database import Store
from airflow_incremental.store.migrating import VERSION_TABLE
from airflow_incremental.store.schema import metadata
from tests.support.stores import address


def test_the_version_is_that_of_the_newest_migration() -> None:
    found = sorted(
        path.name[:4] for path in (Path(schema.__file__).parent / "migrations" / "versions").glob("[0-9]*.py")
    )
    assert found[-1] == schema.VERSION
    assert found == sorted(set(found))


def test_migrations_make_exactly_the_tables_of_the_schema(store: Store) -> None:
    with store.engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_columns_are_documented_in_the_database(postgresql_store: Store) -> None:
    for table in metadata.tables:
        found = sa.inspect(postgresql_store.engine).get_columns(table)
        assert all(column["comment"] for column in found), table
        assert sa.inspect(postgresql_store.engine).get_table_comment(table)["text"]


def test_a_store_keeps_its_id(store: Store) -> None:
    again = Store.open(address(store))
    again.check(store.store_id)
    assert again.store_id == store.store_id
    with pytest.raises(StoreMismatch, match=r"store other.*incremental_default"):
        again.check("other")
    again.close()


def test_a_migration_that_breaks_off_leaves_nothing(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sa.create_engine(store_url)

    def break_off(*_: object, **__: object) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", break_off)
        with pytest.raises(_Killed):
            Store.open(store_url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()
    Store.open(store_url).close()


class _Killed(BaseException):
    """In the middle."""


def _open(url: str, ids: multiprocessing.Queue[str]) -> None:
    ids.put(Store.open(url).store_id)


def test_processes_that_race_make_one_store(store_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    ids = context.Queue()
    racers = [context.Process(target=_open, args=(store_url, ids)) for _ in range(4)]
    for racer in racers:
        racer.start()
    found = {ids.get(timeout=60) for _ in racers}
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0
    assert len(found) == 1


def test_a_store_of_a_newer_version_is_refused(store_url: str) -> None:
    store = Store.open(store_url)
    with store.write() as conn:
        conn.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    store.close()
    with pytest.raises(StoreSchemaError, match=r"version '9999'.*upgrade airflow-incremental here") as caught:
        Store.open(store_url)
    assert not caught.value.retryable


@pytest.mark.parametrize("table", ["incremental_store", "incremental_wait"])
def test_tables_of_somebody_else_are_refused(store_url: str, table: str) -> None:
    engine = sa.create_engine(store_url)
    with engine.begin() as conn:
        conn.execute(sa.text(f"CREATE TABLE {table} (x INTEGER)"))
    engine.dispose()
    with pytest.raises(StoreSchemaError, match=rf"not a store's: {table}"):
        Store.open(store_url)


URL = "postgresql+psycopg2://anna:s3cr3t@127.0.0.1:1/signals"


def test_a_database_that_does_not_answer_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.5)
    with pytest.raises(StoreError, match=r"the store at postgresql://127\.0\.0\.1:1/signals failed") as caught:
        Store.open(URL)
    assert caught.value.retryable
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(caught.value.__cause__)
    assert "s3cr3t" not in told
    assert "anna" not in told


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("not an url", "no URL"),
        ("mysql://localhost/x", "database of mysql"),
        ("postgresql+nodriver://localhost/x", "no driver of 'postgresql.nodriver'"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_what_cannot_be_a_store_is_refused(url: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Store.open(url)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=re.escape(str(tmp_path / "nowhere"))):
        Store.open(f"sqlite:///{tmp_path}/nowhere/store.db")


def test_errors_hold_no_values(store: Store) -> None:
    with pytest.raises(StoreError) as caught, store.write() as conn:
        conn.execute(sa.text("SELECT :secret FROM nowhere"), {"secret": "hush"})
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    def fail() -> None:
        with store.write() as conn:
            conn.execute(sa.text("INSERT INTO incremental_signal_name (name, last_seq) VALUES ('a', 1)"))
            msg = "on the way"
            raise ValueError(msg)

    with pytest.raises(ValueError, match="on the way"):
        fail()
    with store.read() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM incremental_signal_name")).scalar() == 0
