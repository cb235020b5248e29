"""A chain of tables of which some are computed by Spark and some by DuckDB, each from what the other wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.property.chain_histories import Compact, Complete, Delete, Expire, Land, Rename, RollBack, Tick, Update
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.worlds import sql_runner
from tests.support.chain import Chain, Setting
from tests.support.naive import Rule

RULES = {"a": Rule(kind="latest_event"), "b": Rule(kind="property")}
HISTORY: list[Any] = [
    *(Land(0, (0, 2, 9), "x", 0), Land(1, (0, 3), "y", 0), Complete(1, 0), Tick()),
    *(Rename("x", "Ann"), Land(0, (0, 6), "x", 2), Complete(0, 0), *map(Compact, range(7)), Tick()),
    *(Delete(1, 99, 2), Update(1, 0, 1, "z"), Land(0, (3,), "x", 0), RollBack(1), Tick()),
    *(*(Expire(nth, 1) for nth in range(7)), Land(0, (99,), "z", 1), Tick()),
]


@pytest.mark.parametrize(
    ("on_spark", "setting"),
    [
        (("fact", "days"), Setting(rules=RULES)),
        (("totals", "balances"), Setting(rules=RULES, step="hour", buckets=True)),
    ],
    ids=["Spark, then DuckDB, then Spark", "DuckDB, then Spark, then DuckDB"],
)
def test_hops(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog, on_spark: tuple[str, ...], setting: Setting
) -> None:
    runner: Callable[[str], Any] = sql_runner(spark, rest_catalog)
    chain = Chain(home=tmp_path, setting=setting, opens=rest_catalog.load, runners=dict.fromkeys(on_spark, runner))
    for action in HISTORY:
        action.do(chain)
    publishes = dict(chain.current)
    Tick().do(chain)
    assert chain.current == publishes, "all was done"
