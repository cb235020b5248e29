"""A world whose process appends the rows of two sources."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
from pyiceberg.table import Table

from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource
from airflow_incremental.sessions.process import Process
from tests.support.world import EVENTS, SOURCE, Row, World, create

OTHER = "raw.others"
TABLES = (SOURCE, OTHER)
UNION = """
SELECT id, ts, region, v * 10 AS v10 FROM events
UNION ALL
SELECT id, ts, region, v * 10 AS v10 FROM others
"""


@attrs.define
class Union(World):
    """Rows land in one source and the other by turns, unless one is meant."""

    #: The source that is meant by ``source``, and whether only its rows are.
    into: str = SOURCE
    alone: bool = False

    def set_up_with(self, *, source_version: str) -> World:
        World.set_up_with(self, source_version=source_version)
        create(self.catalog, OTHER, EVENTS, (), **{"format-version": source_version})
        return self

    @contextmanager
    def on(self, table: str) -> Iterator[Union]:
        """Mean one of the sources for a while."""
        before, self.into, self.alone = self.into, table, True
        yield self
        self.into, self.alone = before, False

    @property
    def source(self) -> Table:
        return self.catalog.load_table(self.into)

    @property
    def spec(self) -> ProcessSpec:
        one: ProcessSpec = World.spec.fget(self)  # type: ignore[attr-defined]
        return attrs.evolve(one, sources={**one.sources, "others": IcebergSource(OTHER, event_time="ts")})

    def process(self, run_id: str | None = None, **changes: Any) -> Process:
        return World.process(self, run_id, **{"transform": UNION, **changes})

    def land(self, *hours: float | None, region: str = "eu") -> list[Row]:
        found = World.land(self, *hours, region=region)
        if not self.alone:
            self.into = TABLES[1 - TABLES.index(self.into)]
        return found

    def source_rows(self, snapshot_id: int | None = None) -> list[Row]:
        if self.alone:
            return World.source_rows(self, snapshot_id)
        found = []
        for table in TABLES:
            with self.on(table):
                found += World.source_rows(self)
        return found
