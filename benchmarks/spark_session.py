"""One session in a process of its own, in DuckDB or by ``spark-submit``.

``python -m benchmarks.spark_session CATALOG ENGINE MODE SOURCE TARGET`` runs a session from the table SOURCE into TARGET, in the
REST catalog at the address CATALOG. Prints the seconds it took, imports not counted: of all, of the CPU (with that of Spark), and
of Spark by phases. Spark is submitted by the very runner that Airflow's task uses, with its connection from the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import types
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyiceberg.catalog import Catalog, load_catalog

from airflow_incremental.core.plan import Owner
from airflow_incremental.core.spark import SparkTransform
from airflow_incremental.core.spec import Mode, ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.engines.duckdb import DuckDBEngine
from airflow_incremental.operators.spark_submit import SubmitRunner
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Process
from benchmarks.spark_events import CONF, read_application

ENGINES = ("DuckDB", "Spark")
#: Name of the catalog.
CATALOG = "lake"
#: What both engines get of the machine.
MEMORY_GIB, CORES = 4, 2
#: The same text for both engines.
SQL: Mapping[Mode, str] = {
    "append": "SELECT id, ts, upper(region) AS region, v + 1 AS v FROM events",
    "overwrite": """
        SELECT date_trunc('hour', ts) AS ts, region, count(*) AS events, CAST(sum(v) AS BIGINT) AS total
        FROM events GROUP BY 1, 2
    """,
}


class _TimedRunner(SubmitRunner):
    """Says when it was called and how long it took."""

    began = seconds = 0.0

    def run(self, job: Mapping[str, Any]) -> None:
        """Run a job, with a look at the clock before and after."""
        self.began, start = time.time(), time.perf_counter()
        super().run(job)
        self.seconds = time.perf_counter() - start


def open_catalog(address: str) -> Catalog:
    """Return the REST catalog at an address."""
    return load_catalog(CATALOG, type="rest", uri=address)


def runner_of(catalog: Catalog, sql: str, events: Path) -> _TimedRunner:
    """Return what submits a statement to Spark as a task does.

    :param events: folder for the application's event log.
    """
    transform = SparkTransform(
        sql, driver_memory=f"{MEMORY_GIB}g", conf={**CONF, "spark.eventLog.dir": events.as_uri()}
    )
    context = {"ti": types.SimpleNamespace(task_id="load")}
    return _TimedRunner(transform, catalog, context, folders=())


def main() -> None:
    """Run one session."""
    parser = argparse.ArgumentParser()
    parser.add_argument("catalog")
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("mode", choices=SQL)
    parser.add_argument("source")
    parser.add_argument("target")
    given = parser.parse_args()
    catalog = open_catalog(given.catalog)
    with tempfile.TemporaryDirectory(prefix="events-") as folder:
        runner = runner_of(catalog, SQL[given.mode], Path(folder))
        process = Process(
            spec=ProcessSpec(
                process=given.target.rpartition(".")[2],
                sources={"events": IcebergSource(given.source, event_time="ts")},
                target=IcebergTarget(given.target, event_time="ts"),
                mode=given.mode,
            ),
            catalog=catalog,
            owner=Owner(deployment="bench", dag_id="dag", run_id=str(uuid.uuid4()), task_id="load"),
            transform=SQL[given.mode] if given.engine == "DuckDB" else runner,
            engine=DuckDBEngine(memory_limit=f"{MEMORY_GIB}GB", threads=CORES),
        )
        cpu, start = _cpu(), time.perf_counter()
        finished = steps.run(process)
        used = {"wall": time.perf_counter() - start, "cpu": _cpu() - cpu}
        assert finished.outcome == "published"
        if given.engine == "Spark":
            used |= _phases(runner, Path(folder), used["wall"])
    print(json.dumps(used))


def _phases(runner: _TimedRunner, events: Path, wall: float) -> dict[str, float]:
    """Cut a session's time into what comes one after the other, and say how much of it executors worked."""
    application = read_application(events)
    return {
        "worker": wall - runner.seconds,
        "start": application.began - runner.began,
        "driver": application.driver,
        "jobs": application.jobs,
        "stop": runner.began + runner.seconds - application.ended,
        "executors": application.tasks,
    }


def _cpu() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


if __name__ == "__main__":
    main()
