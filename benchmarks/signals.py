"""What the store of signals costs: emitting, and waiting for signals in a triggerer, many at once.

In PostgreSQL, with a long history, on a disk that commits wait for. First how many signals threads on one pool emit in a second,
over many names and over one; and, for what this machine can do at all, how many rows as many connections insert and commit, one by
one. Then so many waits in one event loop, each for a parameter of its own, looked after by the shared poller, once a second:
queries and CPU while nothing comes, and, while another process emits signals that release some of them, how long after the emit a
wait is woken. ``each its own poll`` is a plain trigger instead, which asks the store for itself, once a second.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import multiprocessing
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from sqlalchemy import event, insert, text

from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signal_values import encode
from airflow_incremental.core.signals import Emitter, SignalDependency
from airflow_incremental.store.database import Store
from airflow_incremental.store.emitting import Emission, emit
from airflow_incremental.store.schema import signal, signal_kind, signal_name, signal_param
from airflow_incremental.store.searching import find_gate, newest
from airflow_incremental.triggers.polling import Poller
from benchmarks.report import Case, Report
from tests.integration.postgres import PostgresServer, find_binaries

_INTERVAL = 1.0
_EMITTER = Emitter(source="bench")
#: Parameter of the signals that release waits; those of the history are smaller.
_FIRST = 1_000_000
_CAPACITY = 1_000
_MOST_GROWTH, _MOST_P99_MS, _LEAST_EMITS = 2, 2_000, 1_000


@attrs.frozen(kw_only=True)
class Size:
    """How much is measured.

    :param history: signals that are there before.
    :param names: of signals.
    :param waits: numbers of waits for the shared poller, the least first.
    :param alone: numbers of waits that poll for themselves.
    :param seconds: how long each case is watched, idle and busy.
    :param emits: signals per thread of the throughput.
    """

    history: int
    names: int
    waits: tuple[int, ...]
    alone: tuple[int, ...]
    seconds: float
    emits: int


FULL = Size(history=100_000, names=1_000, waits=(100, 10_000), alone=(100, 1_000), seconds=20, emits=500)
QUICK = Size(history=200, names=10, waits=(10, 50), alone=(10,), seconds=2, emits=5)


def run(report: Report, home: Path, size: Size) -> None:  # noqa: ARG001  # PostgreSQL has a folder of its own
    """Measure, print and judge."""
    binaries = find_binaries()
    assert binaries is not None, "the benchmark needs PostgreSQL"
    with PostgresServer(binaries, durable=True) as server:
        url = server.create_database("signals", driver="psycopg2")
        store = Store.open(url)
        report.doing(f"{size.history:,} signals of history")
        _fill(store, size)
        emits = _all_emits(store, size, report)
        report.table("Emits in a second on one pool", emits)
        shared = [asyncio.run(_shared(store, url, waits, size, report)) for waits in size.waits]
        alone = [asyncio.run(_alone(store, waits, size, report)) for waits in size.alone]
        report.table("Waits in one triggerer, looked at once a second", [*shared, *alone])
        store.close()
    report.aim(
        "emits in a second, the most", max(c.counts["a second"] for c in emits[2:]), least=_LEAST_EMITS, unit="signals"
    )
    report.aim(
        f"CPU of the shared poller at {size.waits[-1]:,} waits / at {size.waits[0]:,}, idle",
        shared[-1].counts["idle CPU ms/s"] / shared[0].counts["idle CPU ms/s"],
        most=_MOST_GROWTH,
        unit="times",
    )
    report.aim("p99 from emit to wake", max(c.counts["p99 ms"] for c in shared), most=_MOST_P99_MS, unit="ms")
    print(f"  {size.waits[-1]:,} waits are {-(-size.waits[-1] // _CAPACITY)} triggerers of Airflow's default capacity")


def _fill(store: Store, size: Size) -> None:
    """Put a history there, as so many emits would have."""
    each = size.history // size.names
    now = dt.datetime.now(UTC)
    with store.write() as conn:
        conn.execute(insert(signal_name), [{"name": f"table_{n}", "last_seq": each} for n in range(size.names)])
        ids = {row.name: row.id for row in conn.execute(signal_name.select())}
        conn.execute(insert(signal_kind), [{"name_id": i, "param": "hour", "kind": "integer"} for i in ids.values()])
        for name_id in ids.values():
            rows = [
                {
                    "name_id": name_id,
                    "seq": seq,
                    "identity": f"{name_id}-{seq}",
                    "params": {"hour": seq},
                    "created_at": now,
                    "source": "bench",
                }
                for seq in range(1, each + 1)
            ]
            conn.execute(insert(signal), rows)
            params = [{"name_id": name_id, "seq": r["seq"], "param": "hour", "value": encode(r["seq"])} for r in rows]
            conn.execute(insert(signal_param), params)


def _all_emits(store: Store, size: Size, report: Report) -> list[Case]:
    """Return the medians of all ways to emit, which take turns; the first two insert rows alone."""
    with store.write() as conn:
        conn.execute(text("CREATE TABLE bare (id bigserial PRIMARY KEY, value text)"))
    kinds = [(threads, names) for names in (0, 1, 100) for threads in (1, 8)]
    what = {0: "rows alone", 1: "signals of one name", 100: "signals of 100 names"}
    found = defaultdict(list)
    for round_ in range(report.rounds):
        for threads, names in kinds:
            report.doing(f"{threads} threads, {what[names]}")
            emits = partial(_emit, store, f"{round_}_{threads}_{names}", names)
            found[threads, names].append(_rate(emits if names else partial(_insert, store), threads, size))
    return [
        Case(
            labels={"threads": threads, "what": what[names]},
            counts={
                "a second": statistics.median(rate for rate, _ in found[threads, names]),
                "CPU ms each": statistics.median(cpu for _, cpu in found[threads, names]),
            },
        )
        for threads, names in kinds
    ]


def _rate(work: Callable[[int, int], None], threads: int, size: Size) -> tuple[float, float]:
    """Return how often a second work is done, and the milliseconds of CPU that it takes in this process."""
    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads), [size.emits] * threads))
    took, used = time.perf_counter() - began, time.process_time() - cpu
    return threads * size.emits / took, used * 1000 / threads / size.emits


def _insert(store: Store, _thread: int, times: int) -> None:
    conn = store.engine.raw_connection()
    try:
        cursor = conn.cursor()
        for _ in range(times):
            cursor.execute("INSERT INTO bare (value) VALUES (%s)", ("x" * 100,))
            conn.commit()
    finally:
        conn.close()


def _emit(store: Store, prefix: str, names: int, thread: int, times: int) -> None:
    for n in range(times):
        name = f"emits_{prefix}_{(n + thread * 7) % names}"
        emit(store, Emission.read(name, {"thread": thread, "n": n, "region": "eu"}, emitter=_EMITTER))


def _dependency(number: int, size: Size) -> SignalDependency:
    plain = {"name": f"table_{number % size.names}", "match": {"hour": _FIRST + number}}
    return SignalDependency.read(plain)


async def _shared(store: Store, url: str, waits: int, size: Size, report: Report) -> Case:
    report.doing(f"{waits:,} waits, one poll")
    dependencies = [_dependency(n, size) for n in range(waits)]
    with store.read() as conn:
        places = newest(conn, {d.name for d in dependencies})
    poller = Poller.of(store)
    woken: dict[int, float] = {}

    async def wait(number: int) -> None:
        with poller.waiting([dependencies[number]], places, interval=_INTERVAL) as waiting:
            await waiting.fitted()
            woken[number] = time.time()
            await asyncio.Event().wait()  # others go on

    tasks = [asyncio.create_task(wait(n)) for n in range(waits)]
    await asyncio.sleep(2 * _INTERVAL)
    with _counted(store) as queries:
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(size.seconds)
        took, used = time.perf_counter() - began, time.process_time() - cpu
    released = list(range(0, waits, max(1, waits // 200)))
    said = await asyncio.to_thread(_emit_elsewhere, url, released, waits, size)
    for _ in range(100):
        if len(woken) == len(released):
            break
        await asyncio.sleep(_INTERVAL / 10)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert set(woken) == set(released), "all that were released were woken, and nobody else"
    late = sorted((woken[n] - said[n]) * 1000 for n in released)
    return Case(
        labels={"waits": waits, "how": "one poll for all"},
        counts={
            "queries/s": queries[0] / took,
            "idle CPU ms/s": used * 1000 / took,
            "median ms": statistics.median(late),
            "p99 ms": late[int(len(late) * 0.99)],
        },
    )


async def _alone(store: Store, waits: int, size: Size, report: Report) -> Case:
    report.doing(f"{waits:,} waits, each its own poll")

    def look(dependency: SignalDependency) -> bool:
        with store.read() as conn:
            return find_gate(conn, [dependency]) is not None

    async def wait(dependency: SignalDependency) -> None:
        while not await asyncio.to_thread(look, dependency):  # noqa: ASYNC110  # this is what a plain trigger does
            await asyncio.sleep(_INTERVAL)

    # Numbers that nobody has released.
    tasks = [asyncio.create_task(wait(_dependency(_FIRST + n, size))) for n in range(waits)]
    await asyncio.sleep(2 * _INTERVAL)
    with _counted(store) as queries:
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(size.seconds)
        took, used = time.perf_counter() - began, time.process_time() - cpu
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    counts = {"queries/s": queries[0] / took, "idle CPU ms/s": used * 1000 / took}
    return Case(labels={"waits": waits, "how": "each its own poll"}, counts=counts)


def _emit_elsewhere(url: str, released: list[int], waits: int, size: Size) -> dict[int, float]:
    """Emit the signals of some waits in another process, evenly, and return when each was there."""
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    process = context.Process(target=_emitting, args=(url, released, waits, size, said))
    process.start()
    found: dict[int, float] = said.get()
    process.join()
    return found


def _emitting(url: str, released: list[int], waits: int, size: Size, said: Any) -> None:
    store = Store.open(url)
    when = {}
    for number in released:
        name = _dependency(number, size).name
        # The number of waits makes it another fact in each case.
        emission = Emission.read(name, {"hour": _FIRST + number, "of": waits}, emitter=_EMITTER)
        emit(store, emission)
        when[number] = time.time()
        time.sleep(size.seconds / len(released))
    said.put(when)
    store.close()


@contextmanager
def _counted(store: Store) -> Iterator[list[int]]:
    """Count the statements that are executed in a context."""
    count = [0]

    def one(*_: object) -> None:
        count[0] += 1

    event.listen(store.engine, "before_cursor_execute", one)
    try:
        yield count
    finally:
        event.remove(store.engine, "before_cursor_execute", one)
