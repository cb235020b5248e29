"""Random histories of every mode with Spark as the engine: the same worlds, and the same oracles, as with DuckDB."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from airflow_incremental.sessions import steps
from tests.property.histories import (
    AddColumn,
    Compact,
    CompactTarget,
    Delete,
    Hide,
    Land,
    Run,
    Update,
    hides,
    histories,
    rewrites,
)
from tests.property.test_merges import SHAPES, world_of
from tests.property.test_sessions import ADOPT, play
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.rest_server import RestCatalogServer
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.worlds import on_spark
from tests.support.balances import Balances
from tests.support.world import World

#: A run on Spark takes seconds: what has to happen is an example, and a few histories are drawn besides.
few = settings(
    max_examples=max(1, settings().max_examples // 100),
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    deadline=None,
)
APPENDED: list[Any] = [
    Land((1, 2)),
    Run(),
    Land((1,)),
    Land((4,), "us"),
    Compact(),
    AddColumn(),
    Land((2,)),
    CompactTarget(),
]
CHANGED: list[Any] = [
    *(Land((1, 2, 5)), Land((3, 1), "us"), Run(), Delete(0), AddColumn(), Update(1, 7), Compact(), Land((6,))),
    *(Run(), Hide(2), Land((1,)), Hide(3)),
]
Fresh = Callable[[str], SharedCatalog]


@pytest.fixture
def fresh(rest_server: RestCatalogServer, new_jdbc_catalog: Callable[[], SharedCatalog]) -> Fresh:
    """Return a catalog without tables, by its kind."""
    return lambda kind: rest_server.catalog.emptied() if kind == "rest" else new_jdbc_catalog()


@few
@given(histories(), st.sampled_from(["rest", "jdbc"]))
@example([*APPENDED, Run()], "rest")
@example([*APPENDED, Run()], "jdbc")
def test_append(spark: SparkProcess, fresh: Fresh, actions: list[Any], kind: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode="append", policies=ADOPT)
        on_spark(world, spark, fresh(kind)).set_up()
        play(world, actions)


@few
@given(histories(rewrites, hides))
@example([*CHANGED, Run()])
def test_append_that_recomputes_rewritten_ranges(spark: SparkProcess, fresh: Fresh, actions: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode="append", policies={**ADOPT, "on_rewrite": "overwrite"})
        on_spark(world, spark, fresh("rest")).set_up()
        play(world, actions)


@few
@given(histories(rewrites, hides), st.sampled_from(["rest", "jdbc"]), st.sampled_from(["hour", "day"]))
@example([*CHANGED, Run()], "rest", "hour")
@example([*CHANGED, Run()], "jdbc", "day")
def test_overwrite(spark: SparkProcess, fresh: Fresh, actions: list[Any], kind: str, unit: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode="overwrite", target_fields=((unit, "hour_ts"),), policies=ADOPT)
        on_spark(world, spark, fresh(kind)).set_up()
        play(world, actions)


@few
@given(histories(rewrites, hides), SHAPES)
@example([*CHANGED, Run()], (("region",), (("bucket[4]", "region"),), (("bucket[2]", "region"),)))
def test_merge(spark: SparkProcess, fresh: Fresh, actions: list[Any], shape: tuple[Any, Any, Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = world_of(home, shape)
        on_spark(world, spark, fresh("rest")).set_up()
        play(world, actions)


@few
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=3),
    st.sampled_from([None, "hour"]),
)
@example([[0, 1], [1, 3], [2]], None)
@example([[0, 1], [1, 3], [2]], "hour")
def test_stateful(spark: SparkProcess, fresh: Fresh, ticks: list[list[int]], step: Any) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = Balances(home=Path(home), step=step)
        on_spark(world, spark, fresh("rest")).set_up()
        for hours in ticks:
            # No two events at one moment: state keeps the latest row of a customer.
            world.land(*(h + (world.next_id + n) / 100 for n, h in enumerate(hours)))
            steps.run(world.process())
            world.verify()
