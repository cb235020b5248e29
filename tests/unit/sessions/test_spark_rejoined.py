"""A worker that dies while its Spark application goes on: the retry takes up the application, if its runner can find it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest

from airflow_incremental.core.spark_job import DONE, DRIVER, DRIVER_REPORT, FAILED, RejoiningRunner
from airflow_incremental.iceberg import naming
from airflow_incremental.sessions import steps
from tests.support.world import World


@attrs.define
class Application:
    """Stands for a Spark application and the runner that starts it."""

    world: World
    ends: str | None = DONE
    dies: bool = True
    rejoins: bool = True
    fingerprint: str = "f"
    started: list[str] = attrs.field(factory=list)
    asked: list[str] = attrs.field(factory=list)
    catalog: Mapping[str, Any] = attrs.field(factory=lambda: {"name": "test", "conf": {}})
    transform: Mapping[str, Any] = attrs.field(factory=lambda: {"kind": "sql", "text": "SELECT 1"})

    def run(self, job: Mapping[str, Any]) -> None:
        branch = job["target"]["branch"]
        self.started.append(branch)
        rows = [
            dict(zip(self.world.target_schema.names, row, strict=True))
            for row in self.world.oracle(self.world.source_rows())
        ]
        table = self.world.target
        table.append(pa.Table.from_pylist(rows, schema=self.world.target_schema), branch=branch)
        if self.ends is not None:
            said = {DRIVER: self.ends, DRIVER_REPORT: json.dumps({"rows": len(rows)})}
            table.append(self.world.target_schema.empty_table(), branch=branch, snapshot_properties=said)
        if self.dies:
            self.dies = False
            raise KeyboardInterrupt

    def rejoin(self, branch: str) -> bool:
        self.asked.append(branch)
        return self.rejoins


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(home=tmp_path).set_up()
    found.land(1, 2)
    return found


def retried(world: World, application: Application) -> None:
    """Run a load whose worker dies, and its retry."""
    assert isinstance(application, RejoiningRunner)
    process = world.process(transform=application)
    with pytest.raises(KeyboardInterrupt):
        steps.run(process)
    steps.run(process)


def test_an_application_that_is_found_again_is_taken_and_not_started_twice(world: World) -> None:
    application = Application(world)
    retried(world, application)
    world.check()
    assert application.started == application.asked
    assert len(application.started) == 1


@pytest.mark.parametrize("changes", [{"rejoins": False}, {"ends": None}, {"ends": FAILED}])
def test_one_that_is_not_found_or_not_done_is_left_and_another_started(
    world: World, changes: Mapping[str, Any]
) -> None:
    application = Application(world, **changes)
    first = attrs.evolve(application)
    process = world.process(transform=first)
    with pytest.raises(KeyboardInterrupt):
        steps.run(process)
    first.ends = DONE
    steps.run(process)
    world.check()
    assert [naming.attempt_of_ref(b, "proc", b.split("_")[2]) for b in first.started] == [1, 2]
    assert first.asked == first.started[:1]


def test_a_first_try_asks_for_none(world: World) -> None:
    application = Application(world, dies=False)
    steps.run(world.process(transform=application))
    world.check()
    assert application.asked == []
