"""Counting instead of timing: files opened and commits made, which do not depend on the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from pyiceberg.manifest import clear_manifest_cache
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate

from benchmarks.histories import CATALOG, new_catalog, places

Result = TypeVar("Result")


class CountingFileIO(PyArrowFileIO):
    """Counts the files that are opened for reading: on an object store each is at least one request."""

    opened: ClassVar[list[str]] = []

    def new_input(self, location: str) -> PyArrowFile:
        """Note that a file is about to be read."""
        self.opened.append(location)
        return super().new_input(location)


def reads_of(home: Path, identifier: str, work: Callable[[Table], Result]) -> tuple[int, Result]:
    """Return how many files work on a newly loaded table opens, and what it returns; loading the table does not count."""
    catalog = new_catalog(home, **{"py-io-impl": f"{CountingFileIO.__module__}.{CountingFileIO.__name__}"})
    table = catalog.load_table(identifier)
    clear_manifest_cache()
    CountingFileIO.opened.clear()
    result = work(table)
    return len(CountingFileIO.opened), result


class CountingCatalog(SqlCatalog):
    """Counts the commits that are tried."""

    commits: int = 0

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Count a commit and make it."""
        self.commits += 1
        return super().commit_table(table, requirements, updates)


def counting_catalog(home: Path) -> CountingCatalog:
    """Return a catalog that counts, over the tables of the one below ``home``."""
    return CountingCatalog(CATALOG, **places(home))
