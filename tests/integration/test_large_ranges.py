"""Ten days by the hour in one run: chunks side by side, killed twice on the way, a task and the scheduler with all it runs."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from pyiceberg.table import Table

from airflow_incremental.core.ranges import format_time
from airflow_incremental.iceberg import naming
from airflow_incremental.store.database import Store
from airflow_incremental.store.schema import session as session_table
from demo.client import TaskRun
from demo.landing import Lakehouse
from demo.stack import AirflowStack
from tests.integration.test_backfills import HOURS as TARGET_SCHEMA
from tests.support.world import EVENTS, Row, create, hour, rows_table

DAG_ID, SOURCE, TARGET = "large_ranges", "raw.large_ranges", "mart.large_ranges"
HOURS, CHUNKS = 240, 5


@attrs.define
class Days:
    """The tables behind the DAG in ``dags/large_ranges.py``."""

    stack: AirflowStack
    lakehouse: Lakehouse
    rows: list[Row] = attrs.field(factory=list)

    def set_up(self) -> None:
        catalog = self.lakehouse.catalog()
        for namespace in ("raw", "mart"):
            catalog.create_namespace_if_not_exists(namespace)
        create(catalog, SOURCE, EVENTS, (("day", "ts"),))
        create(catalog, TARGET, TARGET_SCHEMA, (("hour", "hour_ts"),))
        self.land(*(h + part for h in range(HOURS) for part in (0.1, 0.6)))
        self.stack.client.unpause(DAG_ID)

    def land(self, *hours: float) -> None:
        found: list[Row] = [
            (n := len(self.rows) + i, hour(h), "eu" if n % 3 else "us", n % 101) for i, h in enumerate(hours)
        ]
        self.rows += found
        self.lakehouse.catalog().load_table(SOURCE).append(rows_table(found))

    @property
    def target(self) -> Table:
        return self.lakehouse.catalog().load_table(TARGET)

    def check(self, factor: int, *, since: float = 0) -> None:
        """Assert that the target is what a computation from all rows gives, ``factor`` from an hour on and 1 before."""
        groups: dict[tuple[Any, str], list[int]] = {}
        for _, ts, region, v in self.rows:
            assert ts is not None
            start = ts.replace(minute=0, second=0)
            groups.setdefault((start, region), []).append(v * (factor if start >= hour(since) else 1))
        expected = Counter((ts, region, len(vs), sum(vs)) for (ts, region), vs in groups.items())
        assert Counter(tuple(row.values()) for row in self.target.scan().to_arrow().to_pylist()) == expected
        assert set(self.target.metadata.refs) == {"main", naming.watermark_tag(TARGET)}

    def start(self, folder: Path, factor: int, **form: Any) -> str:
        folder.mkdir()
        return self.stack.client.trigger(DAG_ID, {"folder": str(folder), "factor": factor, **form})

    def chunks(self, run_id: str) -> Sequence[TaskRun]:
        found = (t for t in self.stack.client.tasks(DAG_ID, run_id) if t.task_id == "load.load")
        return sorted(found, key=lambda t: t.map_index)


@pytest.fixture(scope="module")
def days(airflow_stack: AirflowStack, airflow_lakehouse: Lakehouse) -> Iterator[Days]:
    found = Days(airflow_stack, airflow_lakehouse)
    found.set_up()
    yield found
    airflow_stack.client.call("PATCH", f"/dags/{DAG_ID}", json={"is_paused": True})


def test_a_first_load_in_chunks(days: Days, tmp_path: Path, airflow_signals: str) -> None:
    run_id = days.start(tmp_path / "first", 1)
    client = days.stack.client
    assert client.wait_for_run(DAG_ID, run_id) == "success"
    days.check(1)
    chunks = days.chunks(run_id)
    assert [(t.map_index, t.state, t.try_number) for t in chunks] == [(n, "success", 1) for n in range(CHUNKS)]
    # Each computed its share of the hours, and is called by it.
    assert sum(int(file.read_text().split()[1]) for file in (tmp_path / "first").iterdir()) == HOURS
    names = client.xcom(DAG_ID, run_id, "load.plan")
    shown = client.call("GET", f"/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/load.load/listMapped")["task_instances"]
    assert sorted(item["rendered_map_index"] for item in shown) == sorted(names)
    assert f"chunk {CHUNKS} of {CHUNKS} of session" in client.log(DAG_ID, run_id, "load.load", map_index=CHUNKS - 1)
    with Store.open(airflow_signals).read() as conn:
        row = conn.execute(session_table.select().where(session_table.c.target == TARGET)).one()
    assert (row.state, row.chunks, row.chunks_done) == ("published", CHUNKS, CHUNKS)


def test_a_restatement_killed_twice(days: Days, tmp_path: Path) -> None:
    """By the form, with rows landing meanwhile: a task is killed, then the scheduler with the chunks it runs."""
    stack, client, folder = days.stack, days.stack.client, tmp_path / "second"
    folder.mkdir()
    for held in ("1-1", "3-1"):
        (folder / f"hold-{held}").touch()
    form = {
        "restate_from": format_time(hour(24)),
        "restate_to": format_time(hour(HOURS)),
        "reason": "a wrong factor",
        "folder": str(folder),
        "factor": 7,
    }
    run_id = client.trigger(DAG_ID, form)

    client.wait_until((folder / "1-1").exists, timeout=90, every=0.05, what="chunk 1 to be at work")
    os.kill(int((folder / "1-1").read_text().split()[0]), signal.SIGKILL)
    client.wait_until((folder / "1-2").exists, timeout=90, every=0.05, what="chunk 1 to be tried again")
    days.land(30.5)
    client.wait_until((folder / "3-1").exists, timeout=90, every=0.05, what="chunk 3 to be at work")
    client.wait_until(
        lambda: all(t.state == "success" for t in days.chunks(run_id)[:3]), timeout=90, what="chunks 0 to 2 to be done"
    )
    stack.kill("scheduler")
    stack.restart("scheduler")

    assert client.wait_for_run(DAG_ID, run_id, timeout=240) == "success"
    tries = [t.try_number for t in days.chunks(run_id)]
    assert (tries[0], tries[1], tries[2], len(tries)) == (1, 2, 1, CHUNKS), "what was done is not done again"
    assert tries[3] == 2
    computed = Counter(file.name.split("-")[0] for file in folder.iterdir() if not file.name.startswith("hold"))
    assert computed["1"] == computed["3"] == 2
    assert computed["0"] == computed["2"] == 1
    # The restatement saw the row that came meanwhile, if it was planned after that; it is loaded in any case.
    assert client.wait_for_run(DAG_ID, days.start(tmp_path / "third", 7)) == "success"
    days.check(7, since=24)
