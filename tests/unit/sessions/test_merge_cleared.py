"""Cleared runs of a ``merge`` compute the keys they wrote again, or say why they cannot."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from airflow_incremental.core.tables import IcebergSource
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from tests.support.tables import (
    expire,
    rename_column,
)
from tests.support.totals import Totals, four_regions
from tests.support.world import SOURCE, hour, rows_table


@pytest.fixture
def world(tmp_path: Path) -> Totals:
    return four_regions(tmp_path)


def test_a_cleared_run_computes_its_keys_again(world: Totals) -> None:
    world.land(3, region="eu")
    assert steps.run(world.process("second")).did_publish
    world.land(4, region="us")
    world.tick()
    marked = world.sql.replace("count(*) AS n", "-count(*) AS n")
    cleared = steps.run(world.process("second", clear_number=1, transform=marked))
    assert cleared.plan is not None
    assert cleared.plan.kind == "restatement"
    assert {r[0]: r[1] for r in world.target_rows()} == {"eu": -3, "us": -3, "ap": 2, "za": 3}
    world.land(5, region="ap")
    world.tick()
    assert {r[0]: r[1] for r in world.target_rows()} == {"eu": -3, "us": -3, "ap": 3, "za": 3}


def test_a_run_that_is_cleared_again_computes_the_same_keys(world: Totals) -> None:
    world.land(3, region="eu")
    assert steps.run(world.process("second")).did_publish
    world.land(4, region="us")
    world.tick()
    for number in (1, 2, 3):
        marked = world.sql.replace("count(*) AS n", f"count(*) + {100 * number} AS n")
        cleared = steps.run(world.process("second", clear_number=number, transform=marked))
        assert cleared.plan is not None
        assert cleared.plan.kind == "restatement"
        found = {r[0]: r[1] for r in world.target_rows()}
        assert found == {"eu": 100 * number + 3, "us": 100 * number + 3, "ap": 2, "za": 3}


def test_the_cleared_first_run_computes_every_key_again(world: Totals) -> None:
    first = published(world.target, "proc")
    assert first is not None
    world.land(3, region="eu")
    world.tick()
    marked = world.sql.replace("count(*) AS n", "-count(*) AS n")
    steps.run(world.process("run1", clear_number=1, transform=marked))
    assert {r[0]: r[1] for r in world.target_rows()} == {"eu": -3, "us": -2, "ap": -2, "za": -3}


def test_a_cleared_run_whose_start_is_gone_plans_anew(world: Totals, caplog: pytest.LogCaptureFixture) -> None:
    world.land(3, region="eu")
    steps.run(world.process("second"))
    source = world.source
    expire(
        source,
        [s.snapshot_id for s in source.metadata.snapshots if s.snapshot_id != source.metadata.current_snapshot_id],
    )
    assert steps.run(world.process("second", clear_number=1)).outcome == "nothing_to_do"
    assert "the keys it wrote cannot be found any more" in caplog.text
    world.check()


def test_a_cleared_run_whose_key_has_another_name_now_plans_anew(
    world: Totals, caplog: pytest.LogCaptureFixture
) -> None:
    world.land(3, region="eu")
    steps.run(world.process("second"))
    rename_column(world.source, "region", "area")
    world.source.append(rows_table([(99, hour(4), "us", 2)]).rename_columns(["id", "ts", "area", "v"]))
    sources = {"events": IcebergSource(SOURCE, event_time="ts", key_columns=("area",))}
    spec = attrs.evolve(world.spec, sources=sources)
    sql = world.sql.replace("SELECT region", "SELECT area AS region").replace("GROUP BY region", "GROUP BY area")
    done = steps.run(world.process("second", clear_number=1, spec=spec, transform=sql))
    assert done.plan is not None
    assert done.plan.kind == "load"
    assert "the keys it wrote cannot be found any more" in caplog.text
    assert {r[0]: r[1] for r in world.target_rows()}["us"] == 3
