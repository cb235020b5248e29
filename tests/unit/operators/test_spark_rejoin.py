"""A retry finds the application of a try that died, as the provider's own operator does; here on YARN, whose REST API is played."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.core.errors import TransformError
from airflow_incremental.core.spark import SparkTransform
from airflow_incremental.core.spark_job import RejoiningRunner
from airflow_incremental.operators.spark_submit import SubmitRunner
from tests.unit.operators.test_spark_submit import JOB, Catalog, Instance, connection, home, says

__all__ = ["home"]

APPLICATION = "application_1700000000000_0001"


@attrs.define
class Yarn:
    """A resource manager; each look at an application takes the next of its states, and the last one stays."""

    address: str = ""
    states: list[tuple[str, str]] = attrs.field(factory=lambda: [("FINISHED", "SUCCEEDED")])
    looks: int = 0

    def next(self) -> tuple[str, str]:
        self.looks += 1
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


@pytest.fixture
def yarn(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yarn]:
    """The connection of ``home`` leads to it."""
    assert home
    found = Yarn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state, final = found.next()
            body = json.dumps(
                {"app": {"id": APPLICATION, "state": state, "finalStatus": final, "diagnostics": ""}}
            ).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(time, "sleep", lambda _: None)
    extra = {"deploy-mode": "cluster", "yarn_resourcemanager_webapp_address": found.address}
    connection(monkeypatch, {"conn_type": "spark", "host": "yarn", "extra": extra})
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


class Store(dict[str, Any]):
    """Airflow's store of a task's state, which outlives a try."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


def runner(home: Path, store: Store | None, sql: str = "SELECT 1", **given: Any) -> SubmitRunner:
    context = {"ti": Instance(), **({} if store is None else {"task_state_store": store})}
    arguments = {"packages": None, "submit_args": {"yarn_track_via_rm_api": True}, **given}
    found = SubmitRunner(SparkTransform(sql, **arguments), Catalog(), context, folders=[str(home)])  # type: ignore[arg-type]
    assert isinstance(found, RejoiningRunner)
    return found


def submit(found: SubmitRunner, branch: str) -> None:
    found.run(
        {
            **JOB,
            "catalog": found.catalog,
            "transform": found.transform,
            "target": {"table": "mart.result", "branch": branch},
        }
    )


def submitted(home: Path) -> bool:
    """Say whether something was submitted since the last look."""
    path = home / "found.json"
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def test_the_application_of_a_try_that_died_is_waited_for(home: Path, yarn: Yarn) -> None:
    says(home, f"Submitted application {APPLICATION}", code=0)
    store = Store()
    submit(runner(home, store), "branch_1")
    assert submitted(home)
    yarn.states = [("RUNNING", "UNDEFINED"), ("RUNNING", "UNDEFINED"), ("FINISHED", "SUCCEEDED")]
    yarn.looks = 0
    assert runner(home, store).rejoin("branch_1")
    assert yarn.looks == 3
    assert not submitted(home)
    assert runner(home, store).rejoin("branch_1"), "one that has ended meanwhile"


@pytest.mark.parametrize(
    ("branch", "sql", "final"),
    [("branch_2", "SELECT 1", "SUCCEEDED"), ("branch_1", "SELECT 2", "SUCCEEDED"), ("branch_1", "SELECT 1", "FAILED")],
)
def test_another_attempts_or_another_transforms_or_a_failed_one_is_left(
    home: Path, yarn: Yarn, branch: str, sql: str, final: str
) -> None:
    says(home, f"Submitted application {APPLICATION}", code=0)
    store = Store()
    submit(runner(home, store), "branch_1")
    yarn.states = [("FINISHED", final)]
    assert not runner(home, store, sql).rejoin(branch)


@pytest.mark.usefixtures("yarn")
def test_a_new_attempt_is_submitted_although_an_earlier_one_is_known(home: Path) -> None:
    says(home, f"Submitted application {APPLICATION}", code=0)
    store = Store()
    for branch in ("branch_1", "branch_2"):
        submit(runner(home, store), branch)
        assert submitted(home)
    assert not runner(home, store).rejoin("branch_1")
    assert runner(home, store).rejoin("branch_2")


@pytest.mark.usefixtures("yarn")
@pytest.mark.parametrize(
    ("store", "given"),
    [(None, {}), (Store(), {"submit_args": {}}), (Store(), {"deploy_mode": "client", "submit_args": {}})],
)
def test_where_the_provider_cannot_tell_every_try_submits(
    home: Path, store: Store | None, given: Mapping[str, Any]
) -> None:
    says(home, f"Submitted application {APPLICATION}", code=0)
    submit(runner(home, store, **given), "branch_1")
    assert submitted(home)
    assert not runner(home, store, **given).rejoin("branch_1")
    assert not store


def test_a_failure_on_the_cluster_is_said(home: Path, yarn: Yarn) -> None:
    says(home, f"Submitted application {APPLICATION}", code=0)
    yarn.states = [("FAILED", "FAILED")]
    with pytest.raises(TransformError, match=f"YARN application {APPLICATION} ended with state: FAILED"):
        submit(runner(home, Store()), "branch_1")
