"""The demonstration on Spark: the same flights and the same SQL, in one DAG whose loads run on Spark."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import attrs
import psutil

from airflow_incremental.iceberg.attempts import attempts, end_of
from airflow_incremental.iceberg.locks import read_lock
from demo.flights import Tick
from demo.landing import create_flight_fact, create_hourly_departures, create_source
from demo.report import Killed
from demo.runner import Demo

#: Airflow connection under which the DAG finds its catalog.
CONNECTION_ID = "iceberg_rest"
_DAG = "flights_spark"
#: The JVM that ``spark-submit`` becomes; in client mode the driver.
_JVM = "org.apache.spark.deploy.SparkSubmit"


@attrs.define(kw_only=True)
class SparkDemo(Demo):
    """Runs the demonstration against a stack whose tasks find a ``spark-submit``."""

    targets: ClassVar[Mapping[str, str]] = {
        "flight_fact": "mart.flight_fact",
        "hourly_departures": "mart.hourly_departures",
    }
    triggered: ClassVar[Sequence[str]] = (_DAG,)
    followers: ClassVar[Sequence[str]] = ()
    announcer: ClassVar[tuple[str, str] | None] = None
    audited: ClassVar[tuple[str, str]] = (_DAG, "flight_fact")
    victim: ClassVar[tuple[str, str, str]] = (_DAG, "hourly_departures", "hourly_departures")
    #: A run starts two drivers, one after the other, which is a minute on an idle machine.
    patience: ClassVar[float] = 1_800
    bad_tick: ClassVar[int] = 2
    kill_from_tick: ClassVar[int] = 3

    def _prepare(self) -> None:
        catalog = self.lakehouse.catalog()
        create_source(catalog)
        create_flight_fact(catalog)
        create_hourly_departures(catalog)

    def _kill_within_session(self, run_id: str) -> tuple[int, str] | None:
        """Kill the driver while it writes: a data file is there, and the driver has not said that all are.

        Returns the driver's process and the session, or None if it was done before it was seen: then the next delivery
        is tried.
        """
        dag_id, task_id, process = self.victim
        table = self._table(self.targets[process])
        data = Path(urlsplit(table.location()).path) / "data"
        before = set(data.rglob("*.parquet"))
        pid = self.stack.task_pid(dag_id, run_id, task_id, timeout=self.patience)
        while self.stack.owns(pid):
            if set(data.rglob("*.parquet")) - before and (driver := self._driver()) is not None:
                session = self._kill_if(driver, self._session_being_written)
                return None if session is None else (driver, session)
            time.sleep(0.02)
        return None

    def _driver(self) -> int | None:
        """Return the process of the Spark driver, if there is one."""
        for process in self.stack.processes():
            with suppress(psutil.Error):
                if _JVM in process.cmdline():
                    return process.pid
        return None

    def _session_being_written(self) -> str | None:
        """Return the open session, if the first driver of it works on it and has not said that it is done."""
        _, _, process = self.victim
        table = self._table(self.targets[process])
        lock = read_lock(table, process)
        if lock is None:
            return None
        found = attempts(table, lock.plan)
        at_work = [a.number for a in found] == [1] and end_of(table, found[0]) is None
        return lock.plan.session if at_work else None

    def _recovery(self, tick: Tick, run_id: str, pid: int, session: str) -> Killed:
        return attrs.evolve(super()._recovery(tick, run_id, pid, session), what="Spark driver")
