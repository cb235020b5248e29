"""Loads by ``spark-submit``: a real Spark, real catalogs, Airflow's own runs; and what they say when something is not there."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental import IncrementalLoad, NotNull, SparkLoadOperator, SparkTransform
from airflow_incremental.iceberg import naming
from demo.config import free_port
from tests.integration.dagtest.loads import arguments
from tests.integration.dagtest.runner import new_dag, run_dag
from tests.spark.dagtest.conftest import SPARK
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.files import PYTHON, spark_jars
from tests.spark.support.spark_process import CONF
from tests.support.world import World

SQL = "SELECT id, ts, region, v * 10 AS v10 FROM events"
FUNCTION = """
def transform(spark, sources, plan):
    assert plan["session"]
    return sources["events"].selectExpr("id", "ts", "region", "v * 10 AS v10")
"""
APPLICATION = """
import sys
from airflow_incremental_spark import open_job

assert sys.argv[-1] == "ten", sys.argv
with open_job() as job:
    job.write(job.source("events").selectExpr("id", "ts", "region", "v * 10 AS v10"))
"""
Worlds = Callable[..., World]


def conf(**more: str) -> dict[str, str]:
    """Return the conf of a small driver."""
    return {key: value for key, value in {**CONF, **more}.items() if key not in ("spark.master", "spark.driver.memory")}


def spark(**given: Any) -> dict[str, Any]:
    """Return the arguments of a Spark of this machine, whose jars are there."""
    return {
        "spark_conn_id": SPARK,
        "conf": conf(),
        "driver_memory": "1g",
        "packages": None,
        "jars": [str(jar) for jar in spark_jars()],
        **given,
    }


def load(world: World, catalog: SharedCatalog, **given: Any) -> dict[str, Any]:
    """Return the arguments of a load of a world, without its transform."""
    found = arguments(world, iceberg_conn_id=catalog.name, **given)
    return {name: value for name, value in found.items() if name != "transform"}


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_sql_by_packages_that_spark_fetches(
    rest_catalog: SharedCatalog, make_world: Worlds, dag_id: str, tmp_path: Path
) -> None:
    """What a user with nothing but Spark on the worker writes: one argument more than on DuckDB."""
    world = make_world(rest_catalog)
    write(tmp_path, "fact.sql", SQL.replace("10", "{{ params.factor }}"))
    with new_dag(dag_id, template_searchpath=[str(tmp_path)], params={"factor": 10}) as dag:
        SparkLoadOperator(
            task_id="load",
            **load(world, rest_catalog, audits=[NotNull("region")]),
            sql="fact.sql",
            spark_conn_id=SPARK,
            conf=conf(**{"spark.jars.ivy": str(tmp_path / "ivy")}),
            driver_memory="1g",
        )
    world.land(1, 2, 3)

    run = run_dag(dag)

    world.check()
    assert run.tasks == {"load": "success"}
    ((_, _, extra),) = run.events()
    assert (extra["rows"], extra["audits"], extra["published"]) == (3, "passed", True)
    assert run.rendered("load")["sql"] == SQL
    assert run_dag(dag).xcom("load")["outcome"] == "nothing_to_do"


def test_a_function_as_a_group_on_a_jdbc_catalog(
    jdbc_catalog: SharedCatalog, make_world: Worlds, dag_id: str, tmp_path: Path
) -> None:
    world = make_world(jdbc_catalog)
    path = write(tmp_path, "facts_on_spark.py", FUNCTION)
    with new_dag(dag_id) as dag:
        IncrementalLoad(
            "facts",
            **load(world, jdbc_catalog, audits=[NotNull("region")]),
            transform=SparkTransform(function=f"{path}:transform", **spark()),
        )
    world.land(1, 2)

    run = run_dag(dag)

    world.check()
    assert set(run.tasks.values()) == {"success"}


def test_an_application_of_ones_own(
    rest_catalog: SharedCatalog, make_world: Worlds, dag_id: str, tmp_path: Path
) -> None:
    world = make_world(rest_catalog)
    path = write(tmp_path, "application.py", APPLICATION)
    with new_dag(dag_id) as dag:
        SparkLoadOperator(
            task_id="load", **load(world, rest_catalog), application=path, application_args=["ten"], **spark()
        )
    world.land(1, 2)
    assert run_dag(dag).tasks == {"load": "success"}
    world.check()


def java(folder: Path, text: str) -> str:
    """Make a Java that says what it is told to, and return its home."""
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(folder)


#: What a Java 11 says of Spark 4.
OLD_JAVA = """
echo "Error: LinkageError occurred while loading main class org.apache.spark.launcher.Main" >&2
echo "	java.lang.UnsupportedClassVersionError: org/apache/spark/launcher/Main has been compiled by a more recent version of the \
Java Runtime (class file version 61.0), this version of the Java Runtime only recognizes class file versions up to 55.0" >&2
exit 1
"""
WRITES_ELSEWHERE = """
def transform(spark, sources, plan):
    rows = sources["events"].selectExpr("id", "ts", "region", "v * 10 AS v10")
    rows.writeTo("lake.mart.result").append()
    return rows
"""


def failing(world: World, catalog: SharedCatalog, dag_id: str, **given: Any) -> str:
    """Run a load that fails at its first try, and return what it fails with; nothing is published."""
    errors: list[BaseException] = []

    def keep(context: Mapping[str, Any]) -> None:
        errors.append(context["exception"])

    with new_dag(dag_id) as dag:
        SparkLoadOperator(task_id="load", **load(world, catalog, retries=0), on_failure_callback=keep, **given)
    assert run_dag(dag).tasks == {"load": "failed"}
    assert naming.watermark_tag(world.name) not in world.target.metadata.refs
    (error,) = errors
    return str(error)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no spark-submit", ["the program 'spark-submit' is not there", "spark_connect_conn_id"]),
        ("no java", ["no Java on the worker: JAVA_HOME is not set"]),
        ("wrong JAVA_HOME", ["JAVA_HOME is wrong: there is no /nowhere/bin/java"]),
        ("old java", ["Java is too old", "class file version 61", "Java 17"]),
    ],
)
def test_a_spark_that_does_not_start(
    kind: str,
    words: list[str],
    rest_catalog: SharedCatalog,
    make_world: Worlds,
    dag_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = make_world(rest_catalog)
    world.land(1)
    env_vars: Mapping[str, str] = {}
    if kind == "no spark-submit":
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
    elif kind == "no java":
        monkeypatch.delenv("JAVA_HOME", raising=False)
        env_vars = {"PATH": os.pathsep.join([str(PYTHON.parent), without_java(tmp_path)])}
    else:
        env_vars = {"JAVA_HOME": "/nowhere" if "JAVA_HOME" in kind else java(tmp_path / "old", OLD_JAVA)}
    said = failing(
        world,
        rest_catalog,
        dag_id,
        sql=SQL,
        **{**spark(), "packages": "auto", "jars": [], "env_vars": env_vars},
    )
    for word in words:
        assert word in said


def without_java(folder: Path) -> str:
    """Return a folder with what a shell script needs, and no Java."""
    found = folder / "bin"
    found.mkdir()
    for name in ("bash", "cat", "dirname", "env", "ls", "ps", "readlink", "sh", "uname"):
        path = shutil.which(name)
        if path is not None:
            (found / name).symlink_to(path)
    return str(found)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing jar", ["Iceberg's Spark runtime is not there"]),
        ("runtime of another Spark", ["built for another Spark"]),
        ("catalog unreachable", ["Connection refused", "catalog_conf"]),
        ("no module", ["'nowhere' of the transform cannot be imported on the driver", "py_files"]),
        ("unknown name", ["TABLE_OR_VIEW_NOT_FOUND", "one of the names this transform can read: events"]),
        ("writes elsewhere", ["the transform committed snapshot", "to mart.result itself", "rollback_to_snapshot"]),
    ],
)
def test_what_goes_wrong_on_the_driver_is_said_first(
    kind: str,
    words: list[str],
    rest_catalog: SharedCatalog,
    make_world: Worlds,
    dag_id: str,
    tmp_path: Path,
) -> None:
    world = make_world(rest_catalog)
    world.land(1)
    given: dict[str, Any] = {"sql": SQL, **spark()}
    if kind == "missing jar":
        given |= {"jars": []}
    elif kind == "runtime of another Spark":
        given |= {"jars": [], "packages": ["org.apache.iceberg:iceberg-spark-runtime-3.5_2.13:1.11.0"]}
    elif kind == "catalog unreachable":
        given |= {"catalog_conf": {"uri": f"http://127.0.0.1:{free_port()}"}}
    elif kind == "no module":
        given |= {"sql": None, "function": "nowhere:transform"}
    elif kind == "unknown name":
        given |= {"sql": SQL.replace("events", "event")}
    else:
        given |= {"sql": None, "function": write(tmp_path, "elsewhere.py", WRITES_ELSEWHERE) + ":transform"}
    said = failing(world, rest_catalog, dag_id, **given)
    for word in words:
        assert word in said
    assert len(said) < 2500, said
