from __future__ import annotations

import asyncio
import json
import os
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_incremental.core.errors import ArgumentError, IncrementalError, StoreError
from airflow_incremental.hooks import store as hooks
from airflow_incremental.hooks.store import IncrementalStoreHook, url_of
from airflow_incremental.store import database
from airflow_incremental.store.database import Store
from airflow_incremental.store.searching import newest
from tests.support.stores import address, say


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No store is open, and Airflow's home is an empty folder."""
    monkeypatch.setattr(hooks, "_OPEN", {})
    monkeypatch.setattr(database, "_PATIENCE", 0.5)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    yield
    for opened in hooks._OPEN.values():
        opened.close()


def connect(monkeypatch: pytest.MonkeyPatch, conn_id: str = "incremental_default", **values: Any) -> None:
    """Make an Airflow connection."""
    if "extra" in values:
        values["extra"] = json.dumps(values["extra"])
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(values))


def test_without_a_connection_it_is_a_file_in_airflows_home(tmp_path: Path) -> None:
    hook = IncrementalStoreHook()
    assert hook.is_default()
    opened = hook.store()
    assert opened.where == f"sqlite:///{tmp_path / 'incremental.db'}"
    assert (tmp_path / "incremental.db").is_file()
    assert IncrementalStoreHook("incremental_default").store() is opened
    assert hook.test_connection() == (True, f"store {opened.store_id} at {opened.where}")


def test_another_connection_has_to_be_there() -> None:
    with pytest.raises(StoreError, match=r"no Airflow connection 'mine'.*AIRFLOW_CONN_MINE"):
        IncrementalStoreHook("mine").store()


@pytest.mark.parametrize("conn_type", ["incremental", "postgres", "generic"])
def test_a_connection_is_a_store_in_postgresql(
    postgresql_store: Store, monkeypatch: pytest.MonkeyPatch, conn_type: str
) -> None:
    url = postgresql_store.engine.url
    connect(monkeypatch, conn_type=conn_type, host=url.host, port=url.port, login=url.username, schema=url.database)
    hook = IncrementalStoreHook()
    assert not hook.is_default()
    assert hook.get_conn().store_id == postgresql_store.store_id
    assert asyncio.run(IncrementalStoreHook.aget_store()) is hook.store()


def test_a_connection_is_a_sqlite_file(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(sqlite_store.engine.url.database)
    for n, values in enumerate(
        (
            {"conn_type": "sqlite", "host": path},
            {"conn_type": "incremental", "host": path},
            {"conn_type": "incremental", "extra": {"url": address(sqlite_store)}},
        )
    ):
        connect(monkeypatch, f"store{n}", **values)
        assert IncrementalStoreHook(f"store{n}").store().store_id == sqlite_store.store_id
    monkeypatch.setenv("AIRFLOW_CONN_URI", f"sqlite:///{path}")
    assert IncrementalStoreHook("uri").store().store_id == sqlite_store.store_id


def test_settings_of_the_driver_are_passed_on() -> None:
    connection = Connection(
        conn_id="x",
        conn_type="postgres",
        host="db",
        login="anna",
        password="p@ss/w:rd",
        schema="signals",
        extra='{"sslmode": "require", "cursor": "dictcursor"}',
    )
    url = url_of(connection)
    assert url.render_as_string(hide_password=False) == (
        "postgresql+psycopg2://anna:p%40ss%2Fw%3Ard@db:5432/signals?sslmode=require"
    )


@pytest.mark.parametrize("conn_type", ["postgres", "incremental"])
def test_a_server_may_be_reached_by_its_socket(conn_type: str) -> None:
    """A host that begins with a slash is a folder to PostgreSQL's library; with a database, it is no SQLite file."""
    url = url_of(Connection(conn_id="x", conn_type=conn_type, host="/run/postgresql", login="anna", schema="signals"))
    _, arguments = url.get_dialect()().create_connect_args(url)
    assert arguments == {"host": "/run/postgresql", "port": 5432, "user": "anna", "dbname": "signals"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"conn_type": "postgres", "host": "db"}, "names no host or no database"),
        ({"conn_type": "incremental"}, "names no host or no database"),
        ({"conn_type": "mysql", "host": "db", "schema": "x"}, "is of type 'mysql'"),
        ({"conn_type": "sqlite", "host": "store.db"}, "the SQLite file 'store.db'.*absolute path"),
        ({"conn_type": "generic", "extra": {"url": "s3cr3t"}}, "url in the extra of connection 'bad' is no URL"),
        ({"conn_type": "generic", "extra": {"url": "postgresql://a:s3cr3t@db:p/x"}}, "is no URL"),
        ({"conn_type": "generic", "extra": {"url": ["s3cr3t"]}}, "is no URL"),
        ({"conn_type": "generic", "extra": {"url": "mysql://a:s3cr3t@db/x"}}, "database of mysql"),
        (
            {
                "conn_type": "postgres",
                "host": "127.0.0.1",
                "port": 1,
                "schema": "x",
                "login": "a",
                "password": "s3cr3t",
            },
            r"the store at postgresql://127\.0\.0\.1:1/x \(connection 'bad'\) failed",
        ),
    ],
)
def test_a_connection_that_is_no_store_is_told(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], message: str
) -> None:
    connect(monkeypatch, "bad", **values)
    with pytest.raises((ArgumentError, StoreError), match=message) as caught:
        IncrementalStoreHook("bad").store()
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value, IncrementalError)
    worked, told = IncrementalStoreHook("bad").test_connection()
    assert (worked, told) == (False, str(caught.value))


class Supervisor:
    """Airflow's supervisor of a task, which answers every question alike."""

    def __init__(self, answer: ErrorResponse | Exception) -> None:
        self.answer = answer

    def send(self, msg: object) -> ErrorResponse:
        assert type(msg).__name__ == "GetConnection"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_in_a_task_airflow_has_to_know_that_there_is_no_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(missing), raising=False)
    assert IncrementalStoreHook().is_default()
    down = ErrorResponse(error=ErrorType.API_SERVER_ERROR)
    for answer in (down, AirflowRuntimeError(down)):
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(answer), raising=False)
        with pytest.raises(StoreError, match="could not say whether there is a connection 'incremental_default'"):
            IncrementalStoreHook().store()
    assert list(tmp_path.iterdir()) == []


def test_threads_share_one_store() -> None:
    with ThreadPoolExecutor(4) as pool:
        opened = {id(store) for store in pool.map(lambda _: IncrementalStoreHook().store(), range(16))}
    assert len(opened) == 1
    assert len(hooks._OPEN) == 1


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_forked_task_has_connections_of_its_own(
    backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    base: Store = request.getfixturevalue(f"{backend}_store")
    connect(monkeypatch, conn_type="generic", extra={"url": address(base)})
    parent = IncrementalStoreHook().store()
    say(parent, "a", request_id="parent")
    child = os.fork()
    if child == 0:  # ends without the clean-up of pytest
        try:
            own = IncrementalStoreHook().store()
            for n in range(20):
                say(own, "a", request_id=f"child {n}")
            own.close()
            os._exit(0 if own is not parent else 1)
        finally:
            os._exit(2)
    for n in range(20):
        say(parent, "a", request_id=f"beside {n}")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    say(parent, "a", request_id="after")
    with parent.read() as conn:
        assert newest(conn) == {"a": 42}
