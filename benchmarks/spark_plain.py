"""What Spark does without this package, to see what is ours: a program for ``spark-submit``.

``empty`` makes a session and stops it. ``by hand CATALOG SOURCE TARGET SQL`` reads one table, and appends to the other, in the REST
catalog at the address CATALOG.
"""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession


def main(what: str, *arguments: str) -> None:
    """Run one of them."""
    spark = SparkSession.builder.getOrCreate()
    if what == "by hand":
        address, source, target, sql = arguments
        spark.conf.set("spark.sql.catalog.lake", "org.apache.iceberg.spark.SparkCatalog")
        spark.conf.set("spark.sql.catalog.lake.type", "rest")
        spark.conf.set("spark.sql.catalog.lake.uri", address)
        spark.table(f"lake.{source}").createOrReplaceTempView("events")
        spark.sql(sql).writeTo(f"lake.{target}").append()
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
