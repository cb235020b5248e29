"""Worlds whose transforms run on Spark, in a catalog that both share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.runners import SharedRunner
from tests.spark.support.spark_process import SparkProcess
from tests.support.world import World

W = TypeVar("W", bound=World)


def on_spark(world: W, spark: SparkProcess, catalog: SharedCatalog) -> W:
    """Let a world's tables be in a catalog, and its transforms run on Spark."""
    world.opens = catalog.load
    world.runner = sql_runner(spark, catalog)
    return world


def sql_runner(spark: SparkProcess, catalog: SharedCatalog) -> Callable[[str], SharedRunner]:
    """Return what makes a runner of the SQL of a world or a chain."""
    return lambda text: SharedRunner(shared=catalog, transform={"kind": "sql", "text": in_spark(text)}, spark=spark)


def in_spark(text: str) -> str:
    """Return SQL of the worlds as Spark takes it: its sums of whole numbers are long already."""
    return text.replace("::BIGINT", "")
