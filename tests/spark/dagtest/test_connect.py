"""Loads in sessions of a real Spark Connect server: Airflow's own runs in this process, Spark in another."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental import IncrementalLoad, NotNull, SparkLoadOperator, SparkTransform
from airflow_incremental.core.errors import TransformError
from airflow_incremental.operators import spark_connect
from airflow_incremental.operators.spark_connect import ConnectRunner
from demo.config import free_port
from tests.integration.dagtest.runner import new_dag, run_dag
from tests.spark.dagtest.test_submit import SQL, Worlds, failing, load, write
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.connect_server import ConnectServer

CONNECT = "spark_connect_test"
#: Uses what only the shipped module has, on the executors too.
FUNCTION = """
from pyspark.sql import functions as F
from pyspark.sql.types import LongType

FACTOR = 10


def times(value):
    return value * FACTOR


def transform(spark, sources, plan):
    udf = F.udf(times, LongType())
    return sources["events"].select("id", "ts", "region", udf("v").alias("v10"))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConnectServer]:
    """The server that all tests here share."""
    with ConnectServer(tmp_path_factory.mktemp("connect")) as found:
        yield found


@pytest.fixture(autouse=True)
def connect_connection(server: ConnectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of the type ``spark_connect`` that leads to it."""
    value = {"conn_type": "spark_connect", "host": "sc://127.0.0.1", "port": server.port}
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECT.upper()}", json.dumps(value))


def test_sql_and_then_nothing_to_do(rest_catalog: SharedCatalog, make_world: Worlds, dag_id: str) -> None:
    world = make_world(rest_catalog)
    with new_dag(dag_id) as dag:
        SparkLoadOperator(
            task_id="load",
            **load(world, rest_catalog, audits=[NotNull("region")]),
            sql=SQL,
            spark_connect_conn_id=CONNECT,
            conf={"spark.sql.shuffle.partitions": 3},
        )
    world.land(1, 2, 3)
    run = run_dag(dag)
    world.check()
    assert run.tasks == {"load": "success"}
    assert run.events()[0][2]["rows"] == 3
    assert run_dag(dag).xcom("load")["outcome"] == "nothing_to_do"


def test_a_function_with_one_of_its_own_on_executors(
    jdbc_catalog: SharedCatalog, make_world: Worlds, dag_id: str, tmp_path: Path
) -> None:
    world = make_world(jdbc_catalog)
    path = write(tmp_path, "times_ten.py", FUNCTION)
    with new_dag(dag_id) as dag:
        IncrementalLoad(
            "facts",
            **load(world, jdbc_catalog),
            transform=SparkTransform(function=f"{path}:transform", spark_connect_conn_id=CONNECT),
        )
    world.land(1, 2)
    assert set(run_dag(dag).tasks.values()) == {"success"}
    world.check()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sql": SQL.replace("events", "event")}, ["TABLE_OR_VIEW_NOT_FOUND", "this transform can read: events"]),
        ({"function": "nowhere:transform"}, ["'nowhere' of the transform cannot be imported"]),
    ],
)
def test_what_goes_wrong_is_said_first(
    rest_catalog: SharedCatalog, make_world: Worlds, dag_id: str, given: Mapping[str, Any], words: list[str]
) -> None:
    world = make_world(rest_catalog)
    world.land(1)
    said = failing(world, rest_catalog, dag_id, spark_connect_conn_id=CONNECT, **given)
    for word in words:
        assert word in said
    assert len(said) < 2500, said


def test_a_server_that_is_not_there(
    rest_catalog: SharedCatalog, make_world: Worlds, dag_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {"conn_type": "spark_connect", "host": "127.0.0.1", "port": free_port()}
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECT.upper()}", json.dumps(value))
    monkeypatch.setattr(spark_connect, "_ANSWERS_WITHIN", 2)
    world = make_world(rest_catalog)
    world.land(1)
    said = failing(world, rest_catalog, dag_id, sql=SQL, spark_connect_conn_id=CONNECT)
    assert f"the Spark Connect server of the connection {CONNECT!r} did not answer within 2 seconds" in said
    assert "see that the server is up" in said


def test_stopping_interrupts_what_runs(rest_catalog: SharedCatalog, make_world: Worlds) -> None:
    from airflow_incremental.sessions import steps

    world = make_world(rest_catalog)
    world.land(1)
    forever = "SELECT id, ts, region, v + (SELECT count(*) FROM range(1e15) WHERE id % 7 = 3) AS v10 FROM events"
    runner = ConnectRunner(SparkTransform(forever, spark_connect_conn_id=CONNECT), rest_catalog.load(), {}, folders=[])
    errors: list[BaseException] = []

    def work() -> None:
        try:
            steps.run(world.process(transform=runner))
        except TransformError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + 120
    while thread.is_alive() and time.monotonic() < end:
        time.sleep(1)
        runner.stop()
    thread.join(timeout=1)
    assert not thread.is_alive()
    assert errors
    assert not world.target_rows()
