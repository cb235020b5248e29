"""Where the Spark is that ``make setup-spark`` has made, and how programs find it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
#: The Python of drivers: Spark is there, Airflow and this package are not.
PYTHON = ROOT / ".venv-spark" / "bin" / "python"
_JARS = ROOT / "build" / "spark-jars"
#: Airflow connection by which tasks submit to Spark.
CONNECTION_ID = "spark_default"
#: What a site writes into ``spark-defaults.conf``. This one is a small machine that others use, too.
DEFAULTS: Mapping[str, str] = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.log.level": "WARN",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


class SparkMissing(Exception):
    """What ``make setup-spark`` makes is not there."""


def spark_jars() -> list[Path]:
    """Return the jars for Spark's class path: Iceberg, and PostgreSQL's JDBC driver."""
    return _jars("spark")


def rest_catalog_jars() -> list[Path]:
    """Return the jars that the REST catalog server runs on."""
    return _jars("rest-catalog")


def spark_home() -> Path:
    """Return the folder that has Spark's programs in ``bin``."""
    found = list(PYTHON.parent.parent.glob("lib/python3*/site-packages/pyspark/bin/spark-submit"))
    if not found:
        raise SparkMissing("Spark is not set up here: run make setup-spark")
    return found[0].parent.parent


def spark_environment(conf_dir: Path, defaults: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables with which ``spark-submit`` is found and runs with the Python of drivers.

    :param conf_dir: folder that gets a ``spark-defaults.conf``; made when it is missing.
    :param defaults: what it holds besides ``DEFAULTS``.
    """
    conf_dir.mkdir(parents=True, exist_ok=True)
    lines = [f"{key} {value}\n" for key, value in {**DEFAULTS, **(defaults or {})}.items()]
    (conf_dir / "spark-defaults.conf").write_text("".join(lines), encoding="utf-8")
    home = spark_home()
    return {
        "SPARK_HOME": str(home),
        "SPARK_CONF_DIR": str(conf_dir),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": str(PYTHON),
        "PYSPARK_DRIVER_PYTHON": str(PYTHON),
    }


def spark_connection(master: str = "local[2]") -> dict[str, str]:
    """Return the environment variable that is an Airflow connection to Spark.

    :param master: where applications run; ``local[2]`` is two threads of the driver.
    """
    return {f"AIRFLOW_CONN_{CONNECTION_ID.upper()}": json.dumps({"conn_type": "spark", "host": master})}


def _jars(folder: str) -> list[Path]:
    found = sorted((_JARS / folder).glob("*.jar"))
    if not found:
        raise SparkMissing(f"{_JARS / folder} holds no jars: run make setup-spark")
    return found
