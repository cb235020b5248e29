"""Loads that ask a person, under the real scheduler: approved, denied by default, skipped by a newer run, replaced by one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pyiceberg.catalog import Catalog

from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.locks import failed_refs, read_lock
from demo.landing import Lakehouse
from demo.stack import AirflowStack
from tests.support.world import EVENTS, World, create, hour, rows_table

SOURCE = "raw.approvals"
TARGETS = ("asked", "denied", "replaced")
#: A task that waits for a person, in Airflow 3.3 and before.
WAITS = {"awaiting_input", "deferred"}


class Loads:
    """The source, the targets and the runs of the DAGs in ``dags/approvals.py``."""

    def __init__(self, stack: AirflowStack, lakehouse: Lakehouse, folder: Path) -> None:
        self.client, self.lakehouse = stack.client, lakehouse
        catalog, schema = self.catalog, World(home=folder).target_schema
        for namespace in ("raw", "mart"):
            catalog.create_namespace_if_not_exists(namespace)
        create(catalog, SOURCE, EVENTS, ())
        for name in TARGETS:
            create(catalog, f"mart.{name}", schema, (("hour", "ts"),))
        self.ids = iter(range(1, 100))

    @property
    def catalog(self) -> Catalog:
        """A new catalog object."""
        return self.lakehouse.catalog()

    def land(self, rows: int) -> None:
        """Commit rows to the source."""
        landed = [(next(self.ids), hour(1), "eu", 1) for _ in range(rows)]
        self.catalog.load_table(SOURCE).append(rows_table(landed))

    def trigger(self, name: str) -> str:
        """Start a run."""
        self.client.unpause(f"approval_{name}")
        return self.client.trigger(f"approval_{name}")

    def question(self, name: str, run_id: str) -> Mapping[str, Any]:
        """Wait until a run asks, and return its question."""
        self.client.wait_for_task(f"approval_{name}", run_id, "load.approve", states=WAITS, timeout=120)
        return self.look(name, run_id)

    def look(self, name: str, run_id: str) -> Mapping[str, Any]:
        """Return the question of a run, and its answer."""
        found: Mapping[str, Any] = self.client.call("GET", self._path(name, run_id))
        return found

    def answer(self, name: str, run_id: str, option: str) -> None:
        """Answer as a person does who reads first: Airflow takes an answer within seconds for a failure."""
        time.sleep(4)
        self.client.call("PATCH", self._path(name, run_id), json={"chosen_options": [option], "params_input": {}})

    def states(self, name: str, run_id: str) -> dict[str, str | None]:
        """Wait for the end of a run and return the states of its tasks; the run itself has succeeded."""
        state = self.client.wait_for_run(f"approval_{name}", run_id)
        found = {t.task_id.removeprefix("load."): t.state for t in self.client.tasks(f"approval_{name}", run_id)}
        assert state == "success", found
        return found

    def rows(self, name: str) -> int:
        """Count the rows readers see."""
        return int(self.catalog.load_table(f"mart.{name}").scan().to_arrow().num_rows)

    def is_locked(self, name: str) -> bool:
        """Say whether a session is open."""
        return read_lock(self.catalog.load_table(f"mart.{name}"), f"mart.{name}") is not None

    def _path(self, name: str, run_id: str) -> str:
        run = f"/dags/approval_{name}/dagRuns/{quote(run_id, safe='')}"
        return f"{run}/taskInstances/load.approve/-1/hitlDetails"


@pytest.fixture(scope="module")
def loads(airflow_stack: AirflowStack, airflow_lakehouse: Lakehouse, tmp_path_factory: pytest.TempPathFactory) -> Loads:
    loads = Loads(airflow_stack, airflow_lakehouse, tmp_path_factory.mktemp("approvals"))
    loads.land(2)
    return loads


@pytest.fixture(scope="module")
def first(loads: Loads) -> dict[str, str]:
    """A run of each DAG, all started at once: what follows waits for them together."""
    return {name: loads.trigger(name) for name in TARGETS}


def test_a_person_approves_and_newer_runs_do_not_queue_up(loads: Loads, first: dict[str, str]) -> None:
    asked = loads.question("asked", first["asked"])
    assert asked["subject"].startswith("Publish 2 rows to mart.asked?")
    assert "row_count" in asked["body"]
    assert [user["id"] for user in asked["assigned_users"]] == ["admin"]
    assert loads.rows("asked") == 0
    newer = loads.trigger("asked")
    assert loads.states("asked", newer) == dict.fromkeys(("plan", "load", "audit", "approve", "publish"), "skipped")
    log = loads.client.log("approval_asked", newer, "load.plan")
    assert f"run '{first['asked']}' of DAG 'approval_asked'" in log
    assert "waits for a person's approval since" in log

    loads.answer("asked", first["asked"], "Approve")

    assert set(loads.states("asked", first["asked"]).values()) == {"success"}
    assert loads.rows("asked") == 2
    properties = loads.catalog.load_table("mart.asked").metadata.properties
    decided = json.loads(properties[naming.state_property("mart.asked")])["approval"]
    assert (decided["by"], decided["name"]) == ("admin", "admin")
    (event,) = loads.client.asset_events("approval_asked", first["asked"])
    assert "approved by admin at " in event["extra"]["approval"]


def test_a_newer_run_replaces_the_question(loads: Loads, first: dict[str, str]) -> None:
    loads.question("replaced", first["replaced"])
    loads.land(1)
    newer = loads.trigger("replaced")
    assert loads.question("replaced", newer)["subject"].startswith("Publish 3 rows")

    older = loads.states("replaced", first["replaced"])

    assert (older["approve"], older["publish"]) == ("skipped", "skipped")
    assert loads.look("replaced", first["replaced"])["response_received"], "nobody is asked any more"
    loads.answer("replaced", newer, "Reject")
    rejected = loads.states("replaced", newer)
    assert (rejected["approve"], rejected["publish"]) == ("success", "skipped")
    assert loads.rows("replaced") == 0
    assert loads.rows("replaced__quarantine") == 3
    assert not loads.is_locked("replaced")


def test_nobody_answers_in_time(loads: Loads, first: dict[str, str]) -> None:
    denied = loads.states("denied", first["denied"])
    assert (denied["approve"], denied["publish"]) == ("success", "skipped")
    log = loads.client.log("approval_denied", first["denied"], "load.publish")
    assert "because nobody answered in time" in log
    assert loads.rows("denied") == 0
    table = loads.catalog.load_table("mart.denied")
    assert len(failed_refs(table, "mart.denied")) == 1
    assert not loads.is_locked("denied")
