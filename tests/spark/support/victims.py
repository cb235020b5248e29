"""Worlds with a load to do, drivers that take their time over it, and workers that leave a driver behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from airflow_incremental.iceberg import naming
from airflow_incremental.sessions import steps
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.drivers import Driver
from tests.spark.support.fault_proxy import Fault, FaultProxy
from tests.spark.support.runners import FreshRunner
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.worlds import on_spark
from tests.support.modes import world_of
from tests.support.world import World

#: Conf of a table by which each row is on disk as soon as it is written.
_ROW_BY_ROW = {
    "write.parquet.row-group-size-bytes": "1",
    "write.parquet.row-group-check-min-record-count": "1",
    "write.parquet.row-group-check-max-record-count": "1",
}


def prepared(home: Path, mode: str, spark: SparkProcess, catalog: SharedCatalog, **options: Any) -> World:
    """Return a world with a published session, and on-time and late rows that came since, in one commit, to load on Spark."""
    world = world_of(home, mode, opens=catalog.load, **options)
    world.set_up()
    # In every mode there is a row of each region: see Totals.
    world.land(0.1, 1.5, 2.5)
    world.land(0.3, 0.6, region="us")
    assert steps.run(world.process("first")).did_publish
    world.check()
    world.land(1.7, 3.2, 3.3, 0.4)
    return on_spark(world, spark, catalog)


def row_by_row(home: Path, spark: SparkProcess, catalog: SharedCatalog) -> World:
    """Return such a world in mode ``append``, whose rows are on disk one by one while they are written."""
    world = prepared(home, "append", spark, catalog, target_fields=())
    with world.target.transaction() as transaction:
        transaction.set_properties(_ROW_BY_ROW)
    return world


def sql_of(world: World) -> Mapping[str, Any]:
    """Return a world's transform as a job has it."""
    found: Mapping[str, Any] = world.process("nobody").transform.transform  # type: ignore[union-attr]
    return found


def slow(world: World, seconds: int) -> Mapping[str, Any]:
    """Return the transform of a world in mode ``append`` so that it sleeps at the row that landed last."""
    sleep = f"0 * length(coalesce(java_method('java.lang.Thread', 'sleep', {seconds * 1000}L), ''))"
    text = f"SELECT id, ts, region, v * 10 + IF(id = {world.next_id}, {sleep}, 0) AS v10 FROM events"
    return {"kind": "sql", "text": text}


def new_file(world: World) -> Callable[[], bool | None]:
    """Return a look at whether the target's folder has got another data file since."""
    folder = Path(urlsplit(world.target.location()).path) / "data"
    before = set(folder.rglob("*.parquet"))
    return lambda: not before.issuperset(folder.rglob("*.parquet")) or None


def attempt_refs(world: World) -> list[str]:
    """Return the branches of attempts that the target has."""
    return [name for name in world.target.metadata.refs if naming.attempt_of_ref(name, world.name)]


def snapshots_of_main(world: World) -> int:
    """Return how many snapshots lead to ``main``."""
    return len(world.target.history())


def state(world: World) -> tuple[Any, ...]:
    """Return all that anybody can see of the target."""
    metadata = world.target.metadata
    return metadata.current_snapshot_id, metadata.properties, world.target_rows()


def landed(proxy: FaultProxy, fault: Fault) -> bool:
    """Let a request go on that is held, wait for its end, and say whether the server did what it asked for."""
    assert fault.hold is not None
    fault.hold.set()
    while True:
        found = [e for e in proxy.log if e.fault is fault]
        if found:
            return found[0].upstream == 200


class WorkerLostError(Exception):
    """The worker is gone, and its driver is not."""


@attrs.define(kw_only=True)
class LostWorker(FreshRunner):
    """Starts a driver, stops it when it gets to a certain point, and ends without it, as a machine does that is suspended.

    :param until: returns when the driver is there.
    :param left: kills it in the end.
    """

    until: Callable[[Driver], object]
    left: ExitStack
    drivers: list[Driver] = attrs.field(factory=list)

    def run(self, job: Mapping[str, Any]) -> None:
        self.jobs.append(job)
        driver = self.left.enter_context(self.driver(job))
        self.drivers.append(driver)
        self.until(driver)
        driver.stop()
        raise WorkerLostError
