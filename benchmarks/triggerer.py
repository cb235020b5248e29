"""Waits in Airflow's own triggerer, as it is: ours, a plain trigger's, and those of Airflow's ``ExternalTaskSensor``.

``airflow triggerer``, its database and the store of signals in one PostgreSQL, and so many tasks that have deferred themselves
(``benchmarks/deferred.py``), all to triggers of one kind, which look once a second:

* ``SignalTrigger``: ours, with one poll for all;
* ``plain trigger``: one that asks the store for itself (``benchmarks/plain_trigger.py``);
* ``ExternalTaskSensor``: Airflow's ``WorkflowTrigger``, which asks for the state of a DAG run, one question after the other: each
  goes from the triggerer's runner to its supervisor, to an API server inside that one, and to the database.

First nothing comes for a while: what the triggerer and PostgreSQL use then is the cost of waiting, with that of an idle triggerer
(``none``) in it. Then some of what is waited for comes, evenly, and it is counted how long after it each task was scheduled.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
from sqlalchemy import Engine, create_engine, text

from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signals import Emitter
from airflow_incremental.store.database import Store
from airflow_incremental.store.emitting import Emission, emit
from benchmarks.report import Case, Report
from benchmarks.timing import ROOT
from demo.config import StackConfig, free_port
from demo.processes import Component, stop_all
from tests.integration.postgres import PostgresServer, find_binaries

_INTERVAL = 1.0
_EMITTER = Emitter(source="bench")
_NAMES, _HISTORY = 100, 10
_NONE, _OURS, _PLAIN, _AIRFLOWS = "none", "SignalTrigger", "plain trigger", "ExternalTaskSensor"
#: Seconds for a triggerer to take all triggers, and for what is late.
_PATIENCE = 300
_MOST_P99_MS = 2_000


@attrs.frozen(kw_only=True)
class Size:
    """How much is measured.

    :param waits: numbers of waits.
    :param seconds: how long each case is watched, idle and busy.
    :param settle: seconds between the first task that was woken and the watch.
    :param released: of the waits of a case, at most.
    :param rounds: at most; one of all cases takes nine minutes.
    """

    waits: tuple[int, ...]
    seconds: float
    settle: float
    released: int
    rounds: int = 2


FULL = Size(waits=(10, 100, 1_000), seconds=10, settle=12, released=50)
QUICK = Size(waits=(3,), seconds=2, settle=1, released=3)


@attrs.frozen(kw_only=True)
class _World:
    """An Airflow without its scheduler, and a store."""

    airflow: Engine
    store: Store
    home: Path
    environment: dict[str, str]

    def run(self, *command: str) -> None:
        """Run a command of Python in Airflow's environment."""
        done = subprocess.run(  # noqa: S603  # our own modules
            [sys.executable, "-m", *command],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"


def run(report: Report, home: Path, size: Size) -> None:
    """Measure, print and judge."""
    binaries = find_binaries()
    assert binaries is not None, "the benchmark needs PostgreSQL"
    found: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    report.beside("jsonl").write_text("", encoding="utf-8")
    with PostgresServer(binaries, durable=True) as server, _world(server, home) as world:
        kinds = (_OURS, _PLAIN, _AIRFLOWS)
        for round_ in range(min(report.rounds, size.rounds)):
            turns = (*kinds[round_ % 3 :], *kinds[: round_ % 3])
            for waits, kind in [(0, _NONE), *((waits, kind) for waits in size.waits for kind in turns)]:
                found[waits, kind].append(_case(world, waits, kind, size, report))
                with report.beside("jsonl").open("a", encoding="utf-8") as file:
                    file.write(
                        json.dumps({"round": round_, "waits": waits, "trigger": kind, **found[waits, kind][-1]}) + "\n"
                    )
    lines = {key: _line(*key, found) for key in sorted(found)}
    report.table("Waits in Airflow's triggerer, each looked at once a second", lines.values())
    report.aim(
        f"p99 from emit to scheduled task at {size.waits[-1]:,} waits",
        lines[size.waits[-1], _OURS].counts["p99 ms"],
        most=_MOST_P99_MS,
        unit="ms",
    )


def _line(waits: int, kind: str, found: Mapping[tuple[int, str], Sequence[Mapping[str, float]]]) -> Case:
    """Return the medians of a case, and how many times the CPU of ours it takes in the same round."""
    rounds = found[waits, kind]
    counts = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    ratios = {}
    if kind in (_PLAIN, _AIRFLOWS):
        pairs = zip(rounds, found[waits, _OURS], strict=True)
        ratios["CPU / ours"] = statistics.median(_all_cpu(theirs) / _all_cpu(ours) for theirs, ours in pairs)
    return Case(labels={"waits": waits, "trigger": kind}, counts=counts, ratios=ratios)


def _all_cpu(counts: Mapping[str, float]) -> float:
    # In a short while it may be nothing, as far as an operating system counts.
    return max(counts["triggerer CPU ms/s"] + counts["PostgreSQL CPU ms/s"], 1)


@contextmanager
def _world(server: PostgresServer, home: Path) -> Iterator[_World]:
    database, signals = (server.create_database(name, driver="psycopg2") for name in ("airflow", "signals"))
    config = StackConfig(home=home / "airflow", dags=home / "dags", port=free_port(), password="-", database=database)  # noqa: S106
    config.dags.mkdir()
    config.write()
    connection = json.dumps({"conn_type": "postgres", "extra": {"url": signals}})
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "_AIRFLOW_"))},
        "AIRFLOW_HOME": str(config.home),
        "AIRFLOW_CONN_INCREMENTAL_DEFAULT": connection,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
    }
    world = _World(
        airflow=create_engine(database), store=Store.open(signals), home=config.home, environment=environment
    )
    try:
        world.run("airflow", "db", "migrate")
        for n in range(_NAMES * _HISTORY):
            emit(world.store, Emission.read(f"upstream_{n % _NAMES}", {"day": -1 - n}, emitter=_EMITTER))
        yield world
    finally:
        world.airflow.dispose()
        world.store.close()


def _case(world: _World, waits: int, kind: str, size: Size, report: Report) -> dict[str, float]:
    report.doing(f"{waits:,} waits, {kind}")
    # The days of signals are other ones in every case.
    first = time.time_ns()
    triggers = world.home / "triggers.json"
    # One more than is measured, which has what it waits for: when its task is scheduled, this kind of trigger is at work.
    count = waits + 1 if waits else 0
    triggers.write_text(json.dumps([_trigger(world, kind, n, first) for n in range(count)]), encoding="utf-8")
    world.run("benchmarks.deferred", str(triggers))
    if waits:
        _say(world, kind, waits, first)
    component = Component(
        name="triggerer",
        command=(sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs", "--capacity", str(max(count, 1))),
        environment=world.environment,
        log=world.home / "triggerer.log",
    )
    component.start()
    try:
        with world.airflow.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            deferred = "FROM task_instance WHERE state = 'deferred'"
            _until(lambda: _count(conn, deferred) == waits and _is_up(conn), component)
            time.sleep(size.settle)
            counts = _watch_idle(conn, component.pid, size)
            if waits:
                counts |= _watch_busy(world, conn, kind, waits=waits, first=first, size=size)
    finally:
        stop_all([component], grace=30)
    return counts


def _trigger(world: _World, kind: str, number: int, first: int) -> dict[str, Any]:
    signal = {"name": f"upstream_{number % _NAMES}", "match": {"day": first + number}}
    if kind == _OURS:
        path = "airflow_incremental.triggers.signal.SignalTrigger"
        kwargs: dict[str, Any] = {
            "wait_id": f"{number:032}",
            "signals": [{**signal, "join": []}],
            "places": {signal["name"]: _HISTORY},
            "store_id": world.store.store_id,
            "until": (dt.datetime.now(UTC) + dt.timedelta(days=1)).isoformat(),
            "incremental_conn_id": "incremental_default",
        }
        return {"classpath": path, "kwargs": {**kwargs, "poll_interval": _INTERVAL}}
    if kind == _PLAIN:
        path = "benchmarks.plain_trigger.PlainTrigger"
        return {"classpath": path, "kwargs": {"signal": signal, "poll_interval": _INTERVAL}}
    # As ExternalTaskSensor(external_dag_id="upstream", deferrable=True) makes it; the file has no dates, see deferred.
    kwargs = {
        "external_dag_id": "upstream",
        "external_task_group_id": None,
        "external_task_ids": None,
        "allowed_states": ["success"],
        "failed_states": [],
        "skipped_states": [],
        "poke_interval": _INTERVAL,
        "soft_fail": False,
        "run_ids": None,
    }
    path = "airflow.providers.standard.triggers.external_task.WorkflowTrigger"
    return {"classpath": path, "kwargs": {**kwargs, "logical_dates": [number]}}


def _watch_idle(conn: Any, pid: int, size: Size) -> dict[str, float]:
    (backend,) = conn.execute(text("SELECT pg_backend_pid()")).one()
    triggerer, server = psutil.Process(pid), psutil.Process(backend).parent()
    assert server is not None
    before = _used(conn, triggerer, server)
    time.sleep(size.seconds)
    after = _used(conn, triggerer, server)
    return {name: (after[name] - before[name]) / (after["time"] - before["time"]) for name in before if name != "time"}


def _used(conn: Any, triggerer: psutil.Process, server: psutil.Process) -> dict[str, float]:
    conn.execute(text("SELECT pg_stat_clear_snapshot()"))
    transactions = "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database"
    # Looks into the table of runs; once all triggers are taken, only those who ask for the state of a run look there.
    questions = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'dag_run'"
    return {
        "triggerer CPU ms/s": _cpu(triggerer) * 1000,
        "PostgreSQL CPU ms/s": _cpu(server) * 1000,
        "transactions/s": float(conn.execute(text(transactions)).scalar_one()),
        "questions/s": float(conn.execute(text(questions)).scalar_one()),
        "time": time.perf_counter(),
    }


def _watch_busy(world: _World, conn: Any, kind: str, *, waits: int, first: int, size: Size) -> dict[str, float]:
    released = list(range(0, waits, max(1, waits // size.released)))[: size.released]
    said: dict[int, float] = {}
    woken: dict[int, float] = {}
    scheduled = text(f"SELECT map_index FROM task_instance WHERE state <> 'deferred' AND map_index < {waits:d}")  # noqa: S608

    def say() -> None:
        for n in released:
            _say(world, kind, n, first)
            said[n] = time.time()
            time.sleep(size.seconds / len(released))

    speaker = threading.Thread(target=say)
    speaker.start()
    end = time.monotonic() + size.seconds + _PATIENCE
    while len(woken) < len(released) and time.monotonic() < end:
        for (n,) in conn.execute(scheduled):
            woken.setdefault(n, time.time())
        time.sleep(0.05)
    speaker.join()
    assert set(woken) == set(released), "all that were released were woken, and nobody else"
    late = sorted((woken[n] - said[n]) * 1000 for n in released)
    return {"median ms": statistics.median(late), "p99 ms": late[int(len(late) * 0.99)]}


def _say(world: _World, kind: str, number: int, first: int) -> None:
    """Let happen what a wait is for."""
    if kind == _AIRFLOWS:
        with world.airflow.begin() as conn:
            conn.execute(text("UPDATE dag_run SET state = 'success' WHERE run_id = :run"), {"run": f"run_{number}"})
    else:
        params = {"day": first + number}
        emit(world.store, Emission.read(f"upstream_{number % _NAMES}", params, emitter=_EMITTER))


def _until(done: Callable[[], bool], component: Component) -> None:
    end = time.monotonic() + _PATIENCE
    while not done():
        assert component.exit_code is None, component.tail()
        assert time.monotonic() < end, component.tail()
        time.sleep(0.2)


def _is_up(conn: Any) -> bool:
    return _count(conn, "FROM job WHERE job_type = 'TriggererJob' AND state = 'running'") > 0


def _count(conn: Any, what: str) -> int:
    return int(conn.execute(text(f"SELECT count(*) {what}")).scalar_one())


def _cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and all its children, those that ended included."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            used = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total
