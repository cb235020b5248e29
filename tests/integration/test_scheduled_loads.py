"""Loads under the real scheduler: killed, put to sleep, cleared; the targets equal what all source rows give."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyiceberg.catalog import Catalog

from airflow_incremental.iceberg.locks import read_lock
from airflow_incremental.iceberg.state import published
from demo.landing import Lakehouse
from demo.stack import AirflowStack
from tests.support.world import EVENTS, SOURCE, World, create, hour, rows_table

DAGS = Path(__file__).parent / "dags"
LOADS = {"scheduled_fused": ("mart.fused", "load"), "scheduled_group": ("mart.grouped", "load.load")}
_next = iter(range(1, 10_000))


class Loads:
    """The source and targets of the DAGs in ``dags/scheduled_loads.py``."""

    def __init__(self, stack: AirflowStack, lakehouse: Lakehouse, folder: Path) -> None:
        self.stack, self.lakehouse, self.folder = stack, lakehouse, folder
        catalog = self.catalog
        for namespace in ("raw", "mart"):
            catalog.create_namespace_if_not_exists(namespace)
        if not catalog.table_exists(SOURCE):
            create(catalog, SOURCE, EVENTS, (("day", "ts"),))
            for target, _ in LOADS.values():
                create(catalog, target, World(home=folder, mode="overwrite").target_schema, (("hour", "hour_ts"),))

    @property
    def catalog(self) -> Catalog:
        """A new catalog object."""
        return self.lakehouse.catalog()

    def land(self, *hours: float) -> None:
        """Commit rows to the source."""
        rows = [(n := next(_next), hour(h), "eu", n % 7) for h in hours]
        self.catalog.load_table(SOURCE).append(rows_table(rows))

    def trigger(self, dag_id: str) -> str:
        """Start a run."""
        self.stack.client.unpause(dag_id)
        return self.stack.client.trigger(dag_id, {"folder": str(self.folder)})

    def hold(self, dag_id: str) -> tuple[str, int]:
        """Start a run, wait until its transform is held, and return the run and the process of the task."""
        (self.folder / "hold").touch()
        (self.folder / "loading").unlink(missing_ok=True)
        run_id = self.trigger(dag_id)
        self.stack.client.wait_until(
            (self.folder / "loading").exists, timeout=90, every=0.1, what="the transform to run"
        )
        pid = self.stack.task_pid(dag_id, run_id, LOADS[dag_id][1])
        assert read_lock(self.catalog.load_table(LOADS[dag_id][0]), LOADS[dag_id][0]) is not None, "in mid-session"
        return run_id, pid

    def release(self) -> None:
        """Let transforms go on."""
        (self.folder / "hold").unlink(missing_ok=True)

    def check(self, dag_id: str) -> None:
        """Assert that the target is what all source rows give, and that no session is open."""
        table = self.catalog.load_table(LOADS[dag_id][0])
        found = Counter(
            tuple(r.values()) for r in table.scan().to_arrow().select(["hour_ts", "region", "n", "total"]).to_pylist()
        )
        rows = [tuple(r.values()) for r in self.catalog.load_table(SOURCE).scan().to_arrow().to_pylist()]
        expected: Any = World(home=self.folder, mode="overwrite").oracle(rows)  # type: ignore[arg-type]
        assert found == expected
        assert read_lock(table, LOADS[dag_id][0]) is None


@pytest.fixture
def loads(airflow_stack: AirflowStack, airflow_lakehouse: Lakehouse, tmp_path: Path) -> Loads:
    return Loads(airflow_stack, airflow_lakehouse, tmp_path)


def kill_and_recover(loads: Loads, dag_id: str) -> None:
    """Kill the task in mid-session with SIGKILL; its retry goes on with the same session and publishes once."""
    loads.land(0.1, 1.2, 2.3)
    run_id, pid = loads.hold(dag_id)
    target, task_id = LOADS[dag_id]
    begun = read_lock(loads.catalog.load_table(target), target)
    assert begun is not None
    os.kill(pid, signal.SIGKILL)
    loads.release()
    assert loads.stack.client.wait_for_run(dag_id, run_id) == "success"
    assert loads.stack.client.task(dag_id, run_id, task_id).try_number == 2
    last = published(loads.catalog.load_table(target), target)
    assert last is not None
    assert last.session == begun.plan.session, "the session that was killed is the one that was published"
    loads.check(dag_id)


@pytest.mark.parametrize("dag_id", list(LOADS))
def test_a_killed_load_recovers(loads: Loads, dag_id: str) -> None:
    kill_and_recover(loads, dag_id)
    loads.land(0.5, 4)
    run_id = loads.trigger(dag_id)
    assert loads.stack.client.wait_for_run(dag_id, run_id) == "success"
    loads.check(dag_id)
    idle = loads.trigger(dag_id)
    assert loads.stack.client.wait_for_run(dag_id, idle) == "success"
    assert loads.stack.client.asset_events(dag_id, idle) == [], "nothing to do is no event"
    assert len(loads.stack.client.asset_events(dag_id, run_id)) == 1


def test_a_sleeper_changes_nothing_after_the_next_run_published(loads: Loads) -> None:
    """A run is failed by hand while its task sleeps; the next run takes over and publishes; the sleeper wakes into the end."""
    dag_id = "scheduled_fused"
    client = loads.stack.client
    loads.land(1.1, 5)
    run_id, pid = loads.hold(dag_id)
    os.kill(pid, signal.SIGSTOP)
    client.call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"})
    loads.release()
    loads.land(1.9)
    newer = loads.trigger(dag_id)
    assert client.wait_for_run(dag_id, newer) == "success"
    loads.check(dag_id)
    state = loads.catalog.load_table("mart.fused").metadata
    if loads.stack.owns(pid):
        os.kill(pid, signal.SIGCONT)
    time.sleep(5)
    after = loads.catalog.load_table("mart.fused").metadata
    assert (after.current_snapshot_id, after.properties) == (state.current_snapshot_id, state.properties)
    loads.check(dag_id)


def test_a_cleared_run_restates_and_the_watermark_stays(loads: Loads) -> None:
    dag_id = "scheduled_fused"
    client = loads.stack.client
    loads.land(3.3)
    run_id = loads.trigger(dag_id)
    assert client.wait_for_run(dag_id, run_id) == "success"
    loads.land(3.6, 7)
    assert client.wait_for_run(dag_id, loads.trigger(dag_id)) == "success"
    before = published(loads.catalog.load_table("mart.fused"), "mart.fused")
    client.clear(dag_id, run_id)
    assert client.wait_for_run(dag_id, run_id) == "success"
    after = published(loads.catalog.load_table("mart.fused"), "mart.fused")
    assert before is not None
    assert after is not None
    assert after.session != before.session
    assert after.watermark == before.watermark
    loads.check(dag_id)


def test_airflow_and_the_catalog_on_sqlite(tmp_path: Path) -> None:
    """What one machine has with nothing set up: a load is killed and recovers, and nothing is left when Airflow stops."""
    lakehouse = Lakehouse(tmp_path / "lakehouse")
    (tmp_path / "work").mkdir()
    with AirflowStack(home=tmp_path / "airflow", dags=DAGS, environment=lakehouse.connection()) as stack:
        assert "sqlite" in stack.airflow("config", "get-value", "database", "sql_alchemy_conn")
        kill_and_recover(Loads(stack, lakehouse, tmp_path / "work"), "scheduled_group")
        processes = stack.processes()
        assert len(processes) > 4
    gone, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    assert gone
