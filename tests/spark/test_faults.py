"""A REST catalog that lies about commits, loses them, or is gone for ten seconds: nothing is lost, nothing is doubled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from airflow_incremental.core.errors import TransformError
from airflow_incremental.sessions import steps
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.fault_proxy import Fault, FaultProxy
from tests.spark.support.runners import SharedRunner
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.victims import prepared, snapshots_of_main, sql_of
from tests.support.world import World

#: Seconds.
OUTAGE = 10
#: What happens to a commit.
FAULTS: Mapping[str, Mapping[str, Any]] = {
    "landed, 500": {"status": 500},
    "landed, 503": {"status": 503},
    "landed, 409": {"status": 409},
    "landed, no answer": {"reset": True},
    "lost, 500": {"status": 500, "landed": False},
    "lost, no answer": {"landed": False},
}
#: Commits of a worker in the second session of a process: the lock, the attempt's branch, the sealed snapshot, the publish.
WORKER = 4


def runner(world: World, spark: SparkProcess, catalog: SharedCatalog) -> SharedRunner:
    """Return what runs a world's transform with a catalog as the driver reaches it."""
    return SharedRunner(shared=catalog, transform=sql_of(world), spark=spark)


def published_once(world: World, before: int) -> None:
    """Assert that all is right after one publish, and that nothing is left to do."""
    world.check()
    assert snapshots_of_main(world) == before + 1
    assert steps.run(world.process("last")).outcome == "nothing_to_do"


@pytest.mark.parametrize("name", ["landed, 500", "landed, 409", "landed, no answer", "lost, 500", "lost, no answer"])
def test_the_worker_commits(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog, proxy: FaultProxy, name: str
) -> None:
    """Each of its commits suffers the fault, and the session goes through without a retry."""
    world = prepared(tmp_path, "overwrite", spark, rest_catalog)
    before = snapshots_of_main(world)
    fault = FAULTS[name]
    lost = not fault.get("landed", True)
    # A commit that was lost is sent again, which passes; one that landed is not.
    faults = [proxy.add(Fault(**fault, skip=number if lost else 0)) for number in range(WORKER)]
    seen = rest_catalog.all_through(proxy.address)
    session = world.process("second", catalog=seen.load(), transform=runner(world, spark, rest_catalog))
    assert steps.run(session).did_publish
    assert all(f.reached.is_set() for f in faults)
    assert [e.landed for e in proxy.commits()] == [False, True] * WORKER if lost else [True] * WORKER
    published_once(world, before)


@pytest.mark.parametrize(
    ("mode", "commit", "name"),
    [
        ("overwrite", 0, "landed, 503"),
        ("append", 0, "landed, 500"),
        ("append", 0, "landed, 503"),
        ("append", 0, "landed, 409"),
        ("merge", 0, "landed, no answer"),
        ("overwrite", 1, "lost, no answer"),
        ("stateful in steps", 2, "landed, 503"),
        ("append", 1, "landed, 409"),
        ("merge", 1, "landed, no answer"),
        ("overwrite", 2, "lost, 500"),
    ],
)
def test_the_driver_commits(
    tmp_path: Path,
    spark: SparkProcess,
    rest_catalog: SharedCatalog,
    proxy: FaultProxy,
    mode: str,
    commit: int,
    name: str,
) -> None:
    """The driver finds out that its commit landed, or fails; then the retry does the load again."""
    world = prepared(tmp_path, mode, spark, rest_catalog)
    before = snapshots_of_main(world)
    fault = proxy.add(Fault(**FAULTS[name], skip=commit))
    attempts = runner(world, spark, rest_catalog.through(proxy.address))
    retried(world, attempts)
    assert fault.reached.is_set()
    published_once(world, before)


def test_the_catalog_is_gone_when_the_worker_commits(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog, proxy: FaultProxy
) -> None:
    """Before it got the sealed snapshot, and after it had got the publish."""
    world = prepared(tmp_path, "overwrite", spark, rest_catalog)
    before = snapshots_of_main(world)
    seen = rest_catalog.all_through(proxy.address)
    # The lock and the attempt's branch pass; what was lost is sent again.
    lost = proxy.add(Fault(outage=OUTAGE, landed=False, skip=2))
    landed = proxy.add(Fault(outage=OUTAGE, skip=3))
    session = world.process("second", catalog=seen.load(), transform=runner(world, spark, rest_catalog))
    assert steps.run(session).did_publish
    assert [e.fault for e in proxy.commits()] == [None, None, lost, None, landed]
    published_once(world, before)


def test_the_catalog_is_gone_when_the_driver_commits(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog, proxy: FaultProxy
) -> None:
    """The worker does not reach it either; it waits, and says what the driver said."""
    world = prepared(tmp_path, "append", spark, rest_catalog)
    before = snapshots_of_main(world)
    seen = rest_catalog.all_through(proxy.address)
    attempts = runner(world, spark, seen)
    # The worker's lock and its branch pass.
    fault = proxy.add(Fault(outage=OUTAGE, skip=2))
    with pytest.raises(TransformError, match="Exception"):
        steps.run(world.process("second", catalog=seen.load(), transform=attempts))
    assert fault.reached.is_set()
    proxy.wait_until_up()
    assert snapshots_of_main(world) == before
    assert steps.run(world.process("second", transform=attempts)).did_publish
    assert [job["attempt"] for job in attempts.jobs] == [1, 2]
    published_once(world, before)


def answers(proxy: FaultProxy) -> bool:
    """Say whether anybody listens there."""
    try:
        httpx.get(f"{proxy.address}/v1/config")
    except httpx.TransportError:
        return False
    return True


@attrs.define(kw_only=True)
class _ThenGone(SharedRunner):
    """Runs jobs, and the catalog is gone for two seconds as soon as their applications have ended."""

    proxy: FaultProxy

    def run(self, job: Mapping[str, Any]) -> None:
        super().run(job)
        self.proxy.outage(2)
        while answers(self.proxy):
            pass


def test_the_catalog_is_gone_when_the_application_has_ended(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog, proxy: FaultProxy
) -> None:
    """Nothing of what it did is done again."""
    world = prepared(tmp_path, "merge", spark, rest_catalog)
    before = snapshots_of_main(world)
    seen = rest_catalog.all_through(proxy.address)
    attempts = _ThenGone(shared=seen, transform=sql_of(world), spark=spark, proxy=proxy)
    assert steps.run(world.process("second", catalog=seen.load(), transform=attempts)).did_publish
    assert len(attempts.jobs) == 1
    published_once(world, before)


def retried(world: World, attempts: SharedRunner) -> None:
    """Run a session as Airflow does: the task is tried again if it fails."""
    try:
        steps.run(world.process("second", transform=attempts))
    except TransformError:
        assert steps.run(world.process("second", transform=attempts)).did_publish
    assert [job["attempt"] for job in attempts.jobs] in ([1], [1, 2])
