"""An Airflow with the DAGs of ``benchmarks/backfill/dags``, and what it and the logs of its tasks say of runs."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs

from benchmarks.timing import ROOT
from demo.client import TaskRun
from demo.landing import Lakehouse
from demo.stack import AirflowStack
from tests.integration.postgres import PostgresServer

DAGS = Path(__file__).with_name("dags")
#: A scheduler that was killed is missed within seconds, and so are its tasks.
_OPTIONS = {
    "scheduler": {
        "scheduler_heartbeat_sec": "2",
        "scheduler_health_check_threshold": "15",
        "orphaned_tasks_check_interval": "3",
    },
}
#: Seconds for a run, on a machine that others use.
PATIENCE = 3_600
_PAGE = 100
_WROTE = re.compile(r"wrote [\d,]+ rows in [\d,]+ files in ([\d.]+) s")


@attrs.frozen(kw_only=True)
class Try:
    """What the log of a task's try says.

    :param computed: seconds of each part that the try has computed, reading and writing included.
    :param began: whether it has begun to compute one.
    :param kept: whether it has found or made a chunk that is kept.
    """

    began: bool
    kept: bool
    computed: tuple[float, ...]


@attrs.frozen(kw_only=True)
class Place:
    """A running Airflow, and a catalog in PostgreSQL."""

    stack: AirflowStack
    lakehouse: Lakehouse

    def run(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run by hand, wait until it has succeeded, and return its id."""
        run_id = self.stack.client.trigger(dag_id, conf)
        self.finish(dag_id, run_id)
        return run_id

    def finish(self, dag_id: str, run_id: str) -> None:
        """Wait until a run has succeeded."""
        state = self.stack.client.wait_for_run(dag_id, run_id, PATIENCE)
        assert state == "success", f"run {run_id} of {dag_id} is {state}"

    def seconds(self, dag_id: str, run_id: str) -> float:
        """Return how long a run took, from its first task being scheduled to its end."""
        run = self.stack.client.call("GET", _run(dag_id, run_id))
        return (_time(run["end_date"]) - _time(run["start_date"])).total_seconds()

    def tasks(self, dag_id: str, run_id: str) -> list[TaskRun]:
        """Return all tasks of a run."""
        return [TaskRun.read(v) for v in self._pages(f"{_run(dag_id, run_id)}/taskInstances", "task_instances", {})]

    def backfill_runs(self, dag_id: str) -> list[Mapping[str, Any]]:
        """Return all runs that backfills of a DAG have made."""
        return list(self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs", {"run_type": "backfill"}))

    def count(self, dag_id: str, run_id: str, task_id: str, state: str) -> int:
        """Return how many instances of a mapped task are in a state."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/listMapped"
        found = self.stack.client.call("GET", path, params={"state": state, "limit": 1})
        return int(found["total_entries"])

    def running(self, dag_id: str, run_id: str, task_id: str) -> list[TaskRun]:
        """Return instances of a mapped task whose process is at work."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/listMapped"
        found = self.stack.client.call("GET", path, params={"state": "running", "order_by": "-start_date"})
        tasks = [TaskRun.read(v) for v in found["task_instances"]]
        return [task for task in tasks if task.pid is not None and self.stack.owns(task.pid)]

    def tries(self, dag_id: str, run_id: str, task_id: str) -> dict[int, list[Try]]:
        """Return what all tries of a task did, by map index and in order, from their logs."""
        folder = self.stack.config.logs / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        found: dict[int, list[Try]] = defaultdict(list)
        for path in sorted(folder.rglob("attempt=*.log"), key=lambda path: int(path.stem.partition("=")[2])):
            mapped = re.search(r"map_index=(\d+)", str(path))
            found[-1 if mapped is None else int(mapped[1])].append(read_try(path))
        assert found, f"no logs in {folder}"
        return found

    def _pages(self, path: str, name: str, params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        offset = 0
        while True:
            page = self.stack.client.call("GET", path, params={**params, "limit": _PAGE, "offset": offset})
            yield from page[name]
            offset += len(page[name])
            if offset >= page["total_entries"] or not page[name]:
                return


@contextmanager
def place(server: PostgresServer, lakehouse: Lakehouse, home: Path, environment: Mapping[str, str]) -> Iterator[Place]:
    """Start an Airflow, its database in PostgreSQL, too.

    :param environment: more variables for the DAG files.
    """
    signals = {"conn_type": "postgres", "extra": {"url": server.create_database("signals", driver="psycopg2")}}
    stack = AirflowStack(
        home=home / "airflow",
        dags=DAGS,
        database=server.create_database("airflow", driver="psycopg2"),
        options=_OPTIONS,
        environment={
            **lakehouse.connection(),
            **environment,
            "AIRFLOW_CONN_INCREMENTAL_DEFAULT": json.dumps(signals),
            "PYTHONPATH": str(ROOT),
        },
    )
    with stack:
        yield Place(stack=stack, lakehouse=lakehouse)


def seconds_of(task: TaskRun) -> float:
    """Return how long a task took."""
    if task.start is None or task.end is None:
        return 0.0
    return (task.end - task.start).total_seconds()


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))


def read_try(path: Path) -> Try:
    """Read the log of a try."""
    text = path.read_text(encoding="utf-8")
    return Try(
        began=re.search(r"events: [\d,]+ rows in", text) is not None,
        kept=re.search(r"chunk [\d,]+ of [\d,]+ of session \S+ is done", text) is not None,
        computed=tuple(float(seconds) for seconds in _WROTE.findall(text)),
    )
