"""The processes of a driver can be found, stopped and killed: tests of lost drivers rest on it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pyarrow as pa

from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.drivers import ONE_EXECUTOR, Driver

#: Inserts two rows, slowly, by a task each; a file says when a task has begun.
_INSERTS = """
import pathlib, sys, time
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
home, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])

def slowly(rows):
    for row in rows:
        (home / "begun").touch()
        time.sleep(seconds)
        yield row

frame = spark.createDataFrame(spark.sparkContext.parallelize([(1,), (2,)], 2).mapPartitions(slowly), "id BIGINT")
frame.writeTo("raw.t").append()
"""


def _driver(home: Path, catalog: SharedCatalog, *, master: str, seconds: float) -> Driver:
    program = home / "inserts.py"
    program.write_text(_INSERTS)
    conf = {**catalog.conf(), "spark.sql.defaultCatalog": catalog.name}
    return Driver(home / "driver", program, str(home), str(seconds), master=master, conf=conf)


def _rows(catalog: SharedCatalog) -> list[int]:
    return sorted(catalog.load().load_table("raw.t").scan().to_arrow()["id"].to_pylist())


def _create(catalog: SharedCatalog) -> None:
    catalog.load().create_table("raw.t", schema=pa.schema([("id", pa.int64())]))


def _has_begun(home: Path) -> bool | None:
    return (home / "begun").exists() or None


def test_an_executor_is_killed_and_another_does_its_work(tmp_path: Path, jdbc_catalog: SharedCatalog) -> None:
    _create(jdbc_catalog)
    with _driver(tmp_path, jdbc_catalog, master=ONE_EXECUTOR, seconds=1) as driver:
        driver.wait_for(lambda: _has_begun(tmp_path))
        executor = driver.executor()
        assert executor.pid not in {driver.jvm().pid, driver.python().pid}
        executor.kill()
        assert driver.wait() == 0, driver.log.read_text()[-3000:]
    assert _rows(jdbc_catalog) == [1, 2]
    assert driver.processes() == []


def test_a_driver_is_stopped_and_killed_while_it_writes(tmp_path: Path, jdbc_catalog: SharedCatalog) -> None:
    _create(jdbc_catalog)
    with _driver(tmp_path, jdbc_catalog, master="local[2]", seconds=30) as driver:
        driver.wait_for(lambda: _has_begun(tmp_path))
        driver.stop()
        assert {p.status() for p in driver.processes()} == {psutil.STATUS_STOPPED}
        driver.go_on()
        assert psutil.STATUS_STOPPED not in {p.status() for p in driver.processes()}
        driver.python().kill()
        assert driver.wait() != 0
    assert _rows(jdbc_catalog) == []
