"""Where what ``make setup-spark`` has made is."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[3]
#: The Python of drivers: Spark is there, Airflow and this package are not.
PYTHON = ROOT / ".venv-spark" / "bin" / "python"
_JARS = ROOT / "build" / "spark-jars"


def spark_jars() -> list[Path]:
    """Return the jars for Spark's class path: Iceberg, and PostgreSQL's JDBC driver."""
    return _jars("spark")


def rest_catalog_jars() -> list[Path]:
    """Return the jars that the REST catalog server runs on."""
    return _jars("rest-catalog")


def _jars(folder: str) -> list[Path]:
    found = sorted((_JARS / folder).glob("*.jar"))
    assert found and PYTHON.exists(), "Spark is not set up here: run make setup-spark"  # noqa: PT018  (one cause)
    return found
