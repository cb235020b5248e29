"""The scheduler of a real Airflow is killed with all it started: an outage of many ticks, and a restatement that is cut off."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import psutil
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from sqlalchemy import create_engine, text

from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.locks import read_lock
from airflow_incremental.iceberg.state import published
from demo.landing import Lakehouse
from demo.stack import AirflowStack
from tests.integration.ticking import Ticking, check_tiling
from tests.support.world import EVENTS, Row, World, create, hour, rows_table

TICK, LAG, MISSED = dt.timedelta(seconds=3), dt.timedelta(seconds=1), 8
HELD = "outages_held"


@attrs.define
class Load:
    """Source and target of a DAG in ``dags/outages.py``, and what they have to hold."""

    stack: AirflowStack
    lakehouse: Lakehouse
    name: str
    rows: dict[int, Row] = attrs.field(factory=dict)
    next_id: int = 1
    #: By hour, what values were multiplied by when it was computed last.
    factors: dict[int, int] = attrs.field(factory=dict)

    @property
    def catalog(self) -> Catalog:
        """A new catalog object."""
        return self.lakehouse.catalog()

    @property
    def table(self) -> Table:
        """The target as it is now."""
        return self.catalog.load_table(self.target)

    @property
    def target(self) -> str:
        """The name of the table, and so of the process."""
        return f"mart.{self.name}"

    def set_up(self) -> None:
        catalog = self.catalog
        for namespace in ("raw", "mart"):
            catalog.create_namespace_if_not_exists(namespace)
        create(catalog, f"raw.{self.name}", EVENTS, (("day", "ts"),))
        create(catalog, self.target, self._world.target_schema, (("hour", "hour_ts"),))

    def land(self, *hours: float) -> None:
        """Commit rows to the source."""
        rows: list[Row] = [(n, hour(h), "eu" if n % 2 else "us", n) for n, h in enumerate(hours, start=self.next_id)]
        self.next_id += len(rows)
        self.rows |= {row[0]: row for row in rows}
        self.catalog.load_table(f"raw.{self.name}").append(rows_table(rows))

    def delete(self, identity: int) -> None:
        """Take a row out of the source."""
        del self.rows[identity]
        self.catalog.load_table(f"raw.{self.name}").delete(f"id = {identity}")

    def check(self, rows: Iterable[Row] | None = None) -> None:
        """Assert that the target is what all rows give (or these), and that no session is open."""
        computed: list[Row] = []
        for identity, ts, region, v in self.rows.values() if rows is None else rows:
            assert ts is not None
            computed.append((identity, ts, region, v * self.factors.get(ts.hour, 1)))
        found = Counter(tuple(row.values()) for row in self.table.scan().to_arrow().to_pylist())
        assert found == self._world.oracle(computed)
        assert read_lock(self.table, self.target) is None

    @property
    def _world(self) -> World:
        return World(home=self.lakehouse.folder, mode="overwrite")


@contextmanager
def no_scheduler(stack: AirflowStack) -> Iterator[None]:
    """Kill the scheduler with all it started; other tests of the stack find another one."""
    stack.kill("scheduler")
    try:
        yield
    finally:
        stack.restart("scheduler")


@pytest.fixture
def ticking(airflow_stack: AirflowStack) -> Iterator[Ticking]:
    found = Ticking(airflow_stack, "outages_ticking")
    yield found
    found.pause()


def test_an_outage_of_many_ticks_is_one_run_or_two(
    airflow_stack: AirflowStack, airflow_lakehouse: Lakehouse, ticking: Ticking
) -> None:
    """The run that was under way is finished, the ticks that nobody saw are put together, and all rows are there once."""
    client, load = airflow_stack.client, Load(airflow_stack, airflow_lakehouse, ticking.dag_id)
    load.set_up()
    load.land(0.1, 1.2, 2.3)
    client.unpause(ticking.dag_id)
    ticking.wait_for(2)
    load.land(3.4)
    under_way = client.wait_for_new_run(ticking.dag_id, client.latest_run(ticking.dag_id))
    airflow_stack.task_pid(ticking.dag_id, under_way, "load")
    with no_scheduler(airflow_stack):
        down, before = time.monotonic(), [run.start for run in ticking.intervals()]
        for n in range(MISSED):
            load.land(4.5 + n, n / 2)  # a new hour, and a late one
            time.sleep(max(0.0, down + (n + 1) * TICK.total_seconds() - time.monotonic()))
        load.delete(2)
        assert [run.start for run in ticking.intervals()] == before, "nobody makes runs"
    load.land(0.7)
    landed = dt.datetime.now(dt.timezone.utc)

    def caught_up() -> bool:
        new = [run for run in ticking.intervals()[len(before) :] if run.state == "success"]
        return len(new) >= 3 and new[-1].made > landed

    client.wait_until(caught_up, timeout=120, what="three runs after the outage")
    runs = ticking.intervals()
    load.check()
    check_tiling(runs, tick=TICK, lag=LAG)
    assert {run.state for run in runs[:-1]} == {"success"}
    new = runs[len(before) :]
    missed = [run for run in new if run.start < new[0].made - LAG - TICK]
    assert len(missed) in {1, 2}
    assert missed[-1].end - missed[0].start >= (MISSED - 1) * TICK


@pytest.fixture(scope="module")
def held(airflow_stack: AirflowStack, airflow_lakehouse: Lakehouse, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Six hours, loaded."""
    found = Load(airflow_stack, airflow_lakehouse, HELD)
    found.set_up()
    found.land(*(h + part for h in range(6) for part in (0.1, 0.6)))
    airflow_stack.client.unpause(HELD)
    run_id = airflow_stack.client.trigger(HELD, {"folder": str(tmp_path_factory.mktemp("held"))})
    assert airflow_stack.client.wait_for_run(HELD, run_id) == "success"
    found.check()
    return found


@attrs.frozen
class Restatement:
    """A run of the form, and what its first try said of itself while it was held."""

    load: Load
    folder: Path
    run_id: str
    task: int
    supervisor: int
    session: str
    ranges: str
    before: Published

    @classmethod
    def start(cls, load: Load, folder: Path, first: int, end: int, factor: int) -> Restatement:
        """Restate hours, from the first and before the end; return when the transform is at work."""
        before = published(load.table, load.target)
        assert before is not None
        (folder / "hold-1").touch()
        form = {
            "restate_from": f"{hour(first):%FT%TZ}",
            "restate_to": f"{hour(end):%FT%TZ}",
            "reason": "a wrong factor",
        }
        client = load.stack.client
        run_id = client.trigger(HELD, {**form, "factor": factor, "folder": str(folder)})
        client.wait_until((folder / "try-1").exists, timeout=60, every=0.05, what="the load to work")
        processes, session, ranges = (folder / "try-1").read_text().splitlines()
        task, supervisor = (int(pid) for pid in processes.split())
        begun = read_lock(load.table, load.target)
        assert begun is not None
        assert (begun.plan.session, begun.plan.kind) == (session, "restatement")
        load.factors |= dict.fromkeys(range(first, end), factor)
        return cls(load, folder, run_id, task, supervisor, session, ranges, before)

    def check(self) -> None:
        """Assert that the run's second try went on with the session, and that it was published once."""
        client = self.load.stack.client
        assert client.wait_for_run(HELD, self.run_id) == "success"
        assert client.task(HELD, self.run_id, "load").try_number == 2
        assert (self.folder / "try-2").read_text().splitlines()[1:] == [self.session, self.ranges]
        table = self.load.table
        last = published(table, self.load.target)
        assert last is not None
        assert (last.session, last.watermark) == (self.session, self.before.watermark)
        assert [each.snapshot_id for each in main_lineage(table)].index(self.before.snapshot_id) == 1
        assert len(client.asset_events(HELD, self.run_id)) == 1


def test_a_restatement_outlives_its_scheduler(airflow_stack: AirflowStack, held: Load, tmp_path: Path) -> None:
    """Its load is killed with the scheduler in mid-session; the next scheduler's try goes on with the session."""
    held.land(2.4)
    known = list(held.rows.values())
    held.land(5.3)
    restatement = Restatement.start(held, tmp_path, 1, 4, factor=10)
    with no_scheduler(airflow_stack):
        assert not airflow_stack.owns(restatement.task)
        assert not airflow_stack.owns(restatement.supervisor)
        held.land(1.7, 5.9)

    restatement.check()
    held.check(known)
    (tmp_path / "hold-1").unlink()
    # What came since the watermark is loaded as ever.
    run_id = airflow_stack.client.trigger(HELD, {"factor": 10, "folder": str(tmp_path)})
    assert airflow_stack.client.wait_for_run(HELD, run_id) == "success"
    held.factors[5] = 10
    held.check()


@contextmanager
def no_connections_of(process: psutil.Process, url: str) -> Iterator[None]:
    """End what a process has open to PostgreSQL, after it was killed in the block; its children hold them open otherwise.

    They inherit the sockets. A transaction that the process died in would go on, and nobody else could lock the run it was at.
    """
    ports = [connection.laddr.port for connection in process.net_connections("tcp")]
    assert ports
    yield
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    end = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE client_port = ANY(:ports)")
    with engine.connect() as connection:
        connection.execute(end, {"ports": ports})
    engine.dispose()


def test_a_try_that_outlives_its_scheduler_changes_nothing_when_it_wakes(
    airflow_stack: AirflowStack, airflow_signals: str, held: Load, tmp_path: Path
) -> None:
    """The scheduler alone is killed; the try that is left hears nothing of Airflow, and goes on when the next one has published."""
    held.land(0.3)
    restatement = Restatement.start(held, tmp_path, 0, 2, factor=100)
    scheduler = os.getsid(restatement.task)
    left = psutil.Process(scheduler).children(recursive=True)
    assert {restatement.task, restatement.supervisor} <= {process.pid for process in left}
    try:
        # Else it would hear that the try is over, and end the task.
        os.kill(restatement.supervisor, signal.SIGSTOP)
        with no_connections_of(psutil.Process(scheduler), airflow_signals):
            os.kill(scheduler, signal.SIGKILL)
        known = list(held.rows.values())
        held.land(1.7, 5.9)
        airflow_stack.restart("scheduler")
        restatement.check()
        after = held.table.metadata
        sleeper = psutil.Process(restatement.task)
        (tmp_path / "hold-1").unlink()

        def waits_for_its_supervisor() -> bool:
            used = sleeper.cpu_times()
            time.sleep(1)
            return (tmp_path / "woke-1").exists() and sleeper.cpu_times() == used

        airflow_stack.client.wait_until(waits_for_its_supervisor, timeout=60, what="the first try to come to its end")
        assert held.table.metadata == after
        os.kill(restatement.supervisor, signal.SIGCONT)
        airflow_stack.client.wait_until(
            lambda: (
                "published by another try" in airflow_stack.client.log(HELD, restatement.run_id, "load", try_number=1)
            ),
            timeout=60,
            what="the first try to say why it gives up",
        )
        restatement.check()
        held.check(known)
        # What came since the watermark is loaded as ever.
        run_id = airflow_stack.client.trigger(HELD, {"factor": 100, "folder": str(tmp_path)})
        assert airflow_stack.client.wait_for_run(HELD, run_id) == "success"
        held.factors[5] = 100
        held.check()
    finally:
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
