"""Catalogs that pyiceberg and Spark open alike: Iceberg's REST catalog server, and the JDBC catalog on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import attrs
from pyiceberg.catalog import Catalog, load_catalog

NAMESPACES = ("raw", "mart")


@attrs.frozen(kw_only=True)
class SharedCatalog:
    """One catalog, as each of the two is told of it.

    :param name: what both call it: JDBC keeps it beside each table.
    :param properties: pyiceberg's properties.
    :param spark: Spark's conf, without the prefix ``spark.sql.catalog.<name>.``.
    """

    name: str
    properties: Mapping[str, str]
    spark: Mapping[str, str]

    def load(self) -> Catalog:
        """Return a new catalog object, as every task process has its own."""
        return load_catalog(self.name, **self.properties)

    def emptied(self) -> SharedCatalog:
        """Drop all tables, keep their files, and make the namespaces that worlds use."""
        catalog = self.load()
        for namespace in catalog.list_namespaces():
            for table in catalog.list_tables(namespace):
                catalog.drop_table(table)
        for namespace in NAMESPACES:
            catalog.create_namespace_if_not_exists(namespace)
        return self

    def conf(self) -> dict[str, str]:
        """Return the conf with which a Spark session has this catalog."""
        prefix = f"spark.sql.catalog.{self.name}"
        return {
            prefix: "org.apache.iceberg.spark.SparkCatalog",
            **{f"{prefix}.{key}": value for key, value in self.spark.items()},
        }

    def through(self, address: str) -> SharedCatalog:
        """Return the same REST catalog for Spark, reached at another address; pyiceberg reaches it as before."""
        return attrs.evolve(self, spark={**self.spark, "uri": address})

    def all_through(self, address: str) -> SharedCatalog:
        """Return the same REST catalog, reached by both at another address."""
        return attrs.evolve(self.through(address), properties={**self.properties, "uri": address})


def jdbc_catalog(database: str, *, name: str, warehouse: Path) -> SharedCatalog:
    """Return a catalog in tables of PostgreSQL, which pyiceberg's ``SqlCatalog`` and Java's ``JdbcCatalog`` share.

    ``jdbc.schema-version`` has to be V1: pyiceberg's tables have the column ``iceberg_type``, and Java's V0 lists nothing
    right from them.

    :param database: SQLAlchemy URL of the database; several catalogs, told apart by name, may share it.
    """
    found = urlsplit(database)
    warehouse.mkdir(parents=True, exist_ok=True)
    return SharedCatalog(
        name=name,
        properties={"type": "sql", "uri": database, "warehouse": f"file://{warehouse}"},
        spark={
            "type": "jdbc",
            "uri": urlunsplit(("jdbc:postgresql", f"{found.hostname}:{found.port}", found.path, "", "")),
            "jdbc.user": found.username or "",
            "jdbc.schema-version": "V1",
            "warehouse": f"file://{warehouse}",
        },
    )
