"""The demonstration itself: deliveries, runs, a broken delivery, a killed task, and the reckoning at the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import attrs
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from airflow_incremental.iceberg.locks import read_lock
from airflow_incremental.iceberg.state import published
from demo.announced import announced
from demo.flights import Tick, load_planes
from demo.landing import (
    Lakehouse,
    create_aircraft_state,
    create_planes,
    create_source,
    deliver_again,
    land,
    spoil,
)
from demo.report import Announced, AuditBlocked, Killed, Report, TargetReport, TickReport, report_target
from demo.stack import AirflowStack


class DemoError(Exception):
    """A run did not go as it must; the message holds the end of the log of the task that failed."""


@attrs.define(kw_only=True)
class Demo:
    """Runs the demonstration against a started stack.

    :param stack: an Airflow with the DAGs, whose connection leads to ``lakehouse``.
    :param lakehouse: where flights land and targets are written; must not hold a landing table yet.
    :param ticks: the deliveries.
    :param say: takes one line for people at a time.
    """

    stack: AirflowStack
    lakehouse: Lakehouse
    ticks: Sequence[Tick]
    say: Callable[[str], None]
    _blocked: AuditBlocked | None = None
    _killed: Killed | None = None

    #: Process -> its target.
    targets: ClassVar[Mapping[str, str]] = {
        "flight_fact": "mart.flight_fact",
        "hourly_departures": "mart.hourly_departures",
        "aircraft_state": "mart.aircraft_state",
        "aircraft": "mart.aircraft",
    }
    #: DAGs that are triggered side by side after each delivery.
    triggered: ClassVar[Sequence[str]] = ("flight_fact", "hourly_departures")
    #: DAGs that are not, named as their processes, in order: they run when the table they read has been published to. What they
    #: write depends on the order of flights, so it goes as far as the hours are complete.
    followers: ClassVar[Sequence[str]] = ("aircraft_state", "aircraft")
    #: The DAG that the signals of publishes start, named as its subscription, and the signal it emits; None if there is none.
    announcer: ClassVar[tuple[str, str] | None] = ("flights_ready", "flights.ready")
    #: The DAG whose audits see what is wrong with a bad delivery, and the process in it.
    audited: ClassVar[tuple[str, str]] = ("flight_fact", "flight_fact")
    #: The task that is killed, by DAG and id, and its process: it runs all steps of a session.
    victim: ClassVar[tuple[str, str, str]] = ("hourly_departures", "load", "hourly_departures")
    #: Seconds a run may take before the demonstration gives up; an idle machine needs ten.
    patience: ClassVar[float] = 600
    #: The delivery with rows that violate an audit, and the first after which a task is killed.
    bad_tick: ClassVar[int] = 5
    kill_from_tick: ClassVar[int] = 7

    def run(self) -> Report:
        """Land all deliveries and load each; return what was found.

        :raises DemoError: a run ended otherwise than it must.
        """
        began = time.monotonic()
        self._prepare()
        for dag_id in (*self.triggered, *self.followers, *(self.announcer or ())[:1]):
            self.stack.client.unpause(dag_id)
        ticks, landed = [], pa.table({})
        for tick in self.ticks:
            ticks.append(self._deliver(tick, late=_late(tick.rows, landed)))
            landed = tick.rows if landed.num_rows == 0 else pa.concat_tables([landed, tick.rows])
        return Report(
            flights=landed.num_rows,
            ticks=ticks,
            targets={identifier: self._report(process, landed) for process, identifier in self.targets.items()},
            blocked=self._blocked,
            killed=self._killed,
            announced=self._announced(),
            seconds=time.monotonic() - began,
        )

    def _announced(self) -> Announced | None:
        if self.announcer is None:
            return None
        dag_id, ready = self.announcer
        home = self.stack.config.home
        return announced(self.stack.client, home, name=dag_id, ready=ready, patience=self.patience)

    def _prepare(self) -> None:
        """Make the tables that no load makes."""
        catalog = self.lakehouse.catalog()
        create_source(catalog)
        create_planes(catalog, load_planes())
        create_aircraft_state(catalog)

    def _report(self, process: str, landed: pa.Table) -> TargetReport:
        through = None
        if process in self.followers:
            last = published(self._table(self.targets[self.followers[0]]), self.followers[0])
            through = None if last is None else last.watermark.processed_through
        return report_target(self._table(self.targets[process]), process=process, landed=landed, through=through)

    def _deliver(self, tick: Tick, *, late: int) -> TickReport:
        began = time.monotonic()
        if tick.number == self.bad_tick:
            note = self._deliver_bad(tick)
        else:
            land(self.lakehouse.catalog(), tick.rows)
            note = self._load(tick)
        seconds = time.monotonic() - began
        self.say(
            f"[{tick.number:>2}/{len(self.ticks)}] {tick.rows.num_rows:>5,} flights landed until {tick.end:%Y-%m-%d %H:%M}, "
            f"{late:>3} of them late; loaded in {seconds:.0f} s{note and f': {note}'}"
        )
        return TickReport(
            number=tick.number,
            until=tick.end.isoformat(),
            flights=tick.rows.num_rows,
            late=late,
            seconds=round(seconds, 1),
            note=note,
        )

    def _load(self, tick: Tick) -> str:
        """Run the DAGs side by side, then those that follow; all must succeed. Kill a task if it is time for that."""
        followers = {dag_id: self.stack.client.latest_run(dag_id) for dag_id in self.followers}
        runs = self._trigger()
        killed = None
        if tick.number >= self.kill_from_tick and self._killed is None:
            killed = self._kill_within_session(runs[self.victim[0]])
        for dag_id, run_id in runs.items():
            self._must_succeed(dag_id, run_id)
        for dag_id, before in followers.items():
            self._must_succeed(dag_id, self.stack.client.wait_for_new_run(dag_id, before, self.patience))
        if killed is None:
            return ""
        pid, session = killed
        self._killed = self._recovery(tick, runs[self.victim[0]], pid, session)
        return (
            f"{self._killed.what} {pid} of {self._killed.task} was killed, try {self._killed.tries} finished its work"
        )

    def _trigger(self) -> dict[str, str]:
        return {dag_id: self.stack.client.trigger(dag_id) for dag_id in self.triggered}

    def _deliver_bad(self, tick: Tick) -> str:
        """Deliver spoiled rows, see the audit stop them, have the delivery sent again, and load it."""
        client, (dag_id, process) = self.stack.client, self.audited
        target = self.targets[process]
        spoiled, bad_rows = spoil(tick.rows)
        before = _head(self._table(target))
        land(self.lakehouse.catalog(), spoiled)
        runs = self._trigger()
        run_id = runs.pop(dag_id)
        for other, other_run in runs.items():
            self._must_succeed(other, other_run)  # has no audit on what is wrong
        state = client.wait_for_run(dag_id, run_id, self.patience)
        failed = [t for t in client.tasks(dag_id, run_id) if t.state == "failed"]
        if state != "failed" or not failed:
            msg = f"run {run_id} of {dag_id} ended as {state} although {bad_rows} rows violate its audits"
            raise DemoError(msg)
        log = client.log(dag_id, run_id, failed[0].task_id, try_number=failed[0].try_number)
        if "AuditFailed" not in log:
            msg = f"task {failed[0].task_id} of {run_id} failed, but not in an audit:\n{_end(log)}"
            raise DemoError(msg)
        published_nothing = _head(self._table(target)) == before
        deliver_again(self.lakehouse.catalog(), tick)
        self._load(tick)
        self._blocked = AuditBlocked(
            tick=tick.number,
            run_id=run_id,
            failed_task=failed[0].task_id,
            bad_rows=bad_rows,
            published_nothing=published_nothing,
            loaded_after_repair=_head(self._table(target)) != before,
        )
        return f"{bad_rows} bad rows, stopped by an audit; sent again"

    def _kill_within_session(self, run_id: str) -> tuple[int, str] | None:
        """Kill the task's process while it holds the lock of its session.

        Returns the process and the session, or None if the session was over before it was seen: then the next
        delivery is tried.
        """
        dag_id, task_id, _ = self.victim
        pid = self.stack.task_pid(dag_id, run_id, task_id, timeout=self.patience)
        while self.stack.owns(pid):
            if self._open_session() is not None and (session := self._kill_if(pid, self._open_session)) is not None:
                return pid, session
            time.sleep(0.01)
        return None

    def _open_session(self) -> str | None:
        """Return the session of the process that is to be killed, if one is open."""
        _, _, process = self.victim
        lock = read_lock(self._table(self.targets[process]), process)
        return None if lock is None else lock.plan.session

    @staticmethod
    def _kill_if(pid: int, session_of: Callable[[], str | None]) -> str | None:
        """Kill a process if it is still in the session that it was seen in, and return the session.

        It is stopped first, so that nothing moves between the last look and the end.
        """
        os.kill(pid, signal.SIGSTOP)
        session = session_of()
        os.kill(pid, signal.SIGCONT if session is None else signal.SIGKILL)
        return session

    def _recovery(self, tick: Tick, run_id: str, pid: int, session: str) -> Killed:
        dag_id, task_id, process = self.victim
        last = published(self._table(self.targets[process]), process)
        return Killed(
            tick=tick.number,
            run_id=run_id,
            task=f"{dag_id}.{task_id}",
            pid=pid,
            session=session,
            published_session=None if last is None else last.session,
            tries=self.stack.client.task(dag_id, run_id, task_id).try_number,
            state=self.stack.client.run_state(dag_id, run_id),
        )

    def _must_succeed(self, dag_id: str, run_id: str) -> None:
        client = self.stack.client
        state = client.wait_for_run(dag_id, run_id, self.patience)
        if state == "success":
            return
        logs = [
            f"The end of the log of {t.task_id}, try {t.try_number}:\n"
            f"{_end(client.log(dag_id, run_id, t.task_id, try_number=t.try_number))}"
            for t in client.tasks(dag_id, run_id)
            if t.state == "failed"
        ]
        msg = "\n".join([f"run {run_id} of {dag_id} ended as {state}; it had to succeed", *logs])
        raise DemoError(msg)

    def _table(self, identifier: str) -> Table:
        try:
            return self.lakehouse.catalog().load_table(identifier)
        except NoSuchTableError as error:
            msg = f"{identifier} does not exist although its DAG has succeeded"
            raise DemoError(msg) from error


def _late(rows: pa.Table, landed: pa.Table) -> int:
    """Count the rows that are older than the newest row that had landed before."""
    if landed.num_rows == 0:
        return 0
    return int(pc.sum(pc.less(rows["time_hour"], pc.max(landed["time_hour"]))).as_py())


def _head(table: Table) -> int | None:
    snapshot = table.current_snapshot()
    return None if snapshot is None else snapshot.snapshot_id


def _end(log: str, lines: int = 40) -> str:
    return "\n".join(log.splitlines()[-lines:])
