"""Drivers and executors that die or sleep while they write: the retry or the next run publishes what is right, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from airflow_incremental.core.errors import TransformError
from airflow_incremental.sessions import steps
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.drivers import ONE_EXECUTOR, Driver
from tests.spark.support.fault_proxy import Fault, FaultProxy
from tests.spark.support.runners import FreshRunner
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.victims import (
    LostWorker,
    WorkerLostError,
    attempt_refs,
    landed,
    new_file,
    prepared,
    row_by_row,
    slow,
    snapshots_of_main,
    sql_of,
    state,
)
from tests.support.world import World

#: Commits of drivers, counted from 0. Rows that are replaced are removed first, in modes that know them by their event times.
SECOND = 1


def publishes_once(world: World, run_id: str) -> None:
    """Assert that a run puts everything right with one publish, and that nothing is left to do."""
    before = snapshots_of_main(world)
    assert steps.run(world.process(run_id)).did_publish
    world.check()
    assert snapshots_of_main(world) == before + 1
    assert steps.run(world.process("last")).outcome == "nothing_to_do"


def killing(victim: str, until: Callable[[Driver], object]) -> Callable[[Driver], None]:
    """Return what kills the driver's ``python`` or ``jvm`` (or its ``executor``) when it has got to a certain point."""

    def kill(driver: Driver) -> None:
        until(driver)
        getattr(driver, victim)().kill()

    return kill


def reached(fault: Fault) -> Callable[[Driver], object]:
    """Return what waits until a driver sends a certain request."""
    return lambda driver: driver.wait_for(lambda: fault.reached.is_set() or None)


def test_a_driver_is_killed_while_its_tasks_write(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog
) -> None:
    world = row_by_row(tmp_path, spark, rest_catalog)
    writes, before = new_file(world), state(world)
    lost = FreshRunner(
        shared=rest_catalog,
        transform=slow(world, 60),
        home=tmp_path,
        meanwhile=killing("jvm", lambda driver: driver.wait_for(writes)),
    )
    with pytest.raises(TransformError, match="the driver ended with"):
        steps.run(world.process("second", transform=lost))
    assert state(world) == before
    publishes_once(world, "second")


def test_an_executor_is_killed_while_it_writes(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog
) -> None:
    """Spark does the task again: only the rows of the try that ended well count."""
    world = row_by_row(tmp_path, spark, rest_catalog)
    writes = new_file(world)
    runner = FreshRunner(
        shared=rest_catalog,
        transform=slow(world, 10),
        home=tmp_path,
        master=ONE_EXECUTOR,
        meanwhile=killing("executor", lambda driver: driver.wait_for(writes)),
    )
    assert steps.run(world.process("second", transform=runner)).did_publish
    assert len(runner.jobs) == 1
    world.check()


@pytest.mark.parametrize(
    ("mode", "victim", "commit", "lands"),
    [
        ("overwrite", "jvm", SECOND, "after the retry"),
        ("stateful in steps", "python", SECOND, "before the retry"),
        ("append", "python", SECOND, "never"),
    ],
    ids=["rows, late", "rows of the first step", "the mark, never"],
)
def test_a_driver_is_killed_in_a_commit(
    tmp_path: Path,
    spark: SparkProcess,
    rest_catalog: SharedCatalog,
    proxy: FaultProxy,
    mode: str,
    victim: str,
    commit: int,
    lands: str,
) -> None:
    """What is on its way when it dies lands before the retry, after it, or never."""
    world = prepared(tmp_path, mode, spark, rest_catalog)
    before = state(world)
    held = proxy.add(Fault(skip=commit, hold=threading.Event(), landed=lands != "never"))
    lost = FreshRunner(
        shared=rest_catalog.through(proxy.address),
        transform=sql_of(world),
        home=tmp_path,
        meanwhile=killing(victim, reached(held)),
    )
    with pytest.raises(TransformError, match="the driver ended with"):
        steps.run(world.process("second", transform=lost))
    if lands != "after the retry":
        assert landed(proxy, held) is (lands != "never")
        assert state(world) == before
        publishes_once(world, "second")
        return
    publishes_once(world, "second")
    after = state(world)
    assert not landed(proxy, held), "its branch is gone"
    assert state(world) == after
    world.check()


@pytest.mark.parametrize(
    ("mode", "commit", "successor"),
    [("overwrite", SECOND, "second"), ("merge", SECOND, "third")],
    ids=["rows, retry", "the mark, next run"],
)
def test_a_driver_sleeps_in_a_commit(
    tmp_path: Path,
    spark: SparkProcess,
    rest_catalog: SharedCatalog,
    proxy: FaultProxy,
    mode: str,
    commit: int,
    successor: str,
) -> None:
    world = prepared(tmp_path, mode, spark, rest_catalog)
    held = proxy.add(Fault(skip=commit, hold=threading.Event()))
    with ExitStack() as left:
        sleeper = LostWorker(
            shared=rest_catalog.through(proxy.address),
            transform=sql_of(world),
            home=tmp_path,
            until=reached(held),
            left=left,
        )
        with pytest.raises(WorkerLostError):
            steps.run(world.process("second", transform=sleeper))
        succeeds(world, successor)
        assert not landed(proxy, held), "its branch is gone"
        wakes(world, sleeper.drivers[0])


def test_a_driver_sleeps_while_its_tasks_write(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog
) -> None:
    world = row_by_row(tmp_path, spark, rest_catalog)
    writes = new_file(world)
    with ExitStack() as left:
        sleeper = LostWorker(
            shared=rest_catalog,
            transform=slow(world, 20),
            home=tmp_path,
            until=lambda driver: driver.wait_for(writes),
            left=left,
        )
        with pytest.raises(WorkerLostError):
            steps.run(world.process("second", transform=sleeper))
        succeeds(world, "third")
        wakes(world, sleeper.drivers[0])


def succeeds(world: World, successor: str) -> None:
    """Let the retry, or the next run, publish."""
    if successor == "third":
        world.land(0.9, 4.5)
    publishes_once(world, successor)


def wakes(world: World, driver: Driver) -> None:
    """Assert that a driver which wakes up late changes nothing that counts, and that the next session clears up after it."""
    before = state(world)
    assert attempt_refs(world) == []
    driver.go_on()
    driver.wait()
    assert attempt_refs(world), f"it did not commit:\n{driver.log.read_text()[-3000:]}"
    assert state(world) == before
    world.land(2.2, 5.1)
    publishes_once(world, "after")
