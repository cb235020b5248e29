"""Spark itself fetches the jars that ``spark.jars.packages`` names."""

from __future__ import annotations

from pathlib import Path

from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.spark_process import SparkProcess

PACKAGE = "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0"


def test_iceberg_is_resolved_into_an_empty_cache(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse"
    catalog = SharedCatalog(name="lake", properties={}, spark={"type": "hadoop", "warehouse": f"file://{warehouse}"})
    conf = {"spark.jars.packages": PACKAGE, "spark.jars.ivy": str(tmp_path / "ivy")}
    with SparkProcess(tmp_path / "spark", conf) as spark:
        found = spark.sql(
            catalog,
            "CREATE TABLE raw.t (id BIGINT) USING iceberg",
            "INSERT INTO raw.t VALUES (1), (2)",
            "SELECT id FROM raw.t ORDER BY id",
        )
    assert found.to_pydict() == {"id": [1, 2]}
    assert [p.name for p in (tmp_path / "ivy" / "jars").glob("*iceberg*")] == [
        "org.apache.iceberg_iceberg-spark-runtime-4.1_2.13-1.11.0.jar"
    ]
