"""Iceberg's own REST catalog server, which keeps its tables in PostgreSQL."""

from __future__ import annotations

from demo.rest_catalog import RestCatalogServer as Server
from tests.spark.support.catalogs import SharedCatalog


class RestCatalogServer(Server):
    """The server, and the catalog it serves as both are told of it."""

    def __enter__(self) -> RestCatalogServer:  # noqa: PYI034 - typing.Self is not in Python 3.10
        super().__enter__()
        return self

    @property
    def catalog(self) -> SharedCatalog:
        """The catalog it serves."""
        return SharedCatalog(
            name="lake",
            properties={"type": "rest", "uri": self.address},
            spark={"type": "rest", "uri": self.address},
        )
