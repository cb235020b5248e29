"""A world with a merge process: one row per key, of all the events of that key; some keys have none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Finished, Process
from tests.support.world import EVENTS, SOURCE, TARGET, Row, World


@attrs.define
class Totals(World):
    """Totals over all events of each key, by default of each region; a key whose total is a multiple of five has no row."""

    keys: tuple[str, ...] = ("region",)

    @property
    def target_schema(self) -> pa.Schema:
        return pa.schema([*(EVENTS.field(k) for k in self.keys), ("n", pa.int64()), ("total", pa.int64())])

    @property
    def event_time(self) -> str:
        return "ts"

    @property
    def spec(self) -> ProcessSpec:
        return ProcessSpec(
            process=self.name,
            sources={"events": IcebergSource(SOURCE, event_time="ts")},
            target=IcebergTarget(TARGET, scope=self.scope),
            mode="merge",
            keys=self.keys,
            **self.policies,
        )

    @property
    def sql(self) -> str:
        keys = ", ".join(self.keys)
        return (
            f"SELECT {keys}, count(*) AS n, sum(v)::BIGINT AS total FROM events GROUP BY {keys} HAVING sum(v) % 5 <> 0"
        )

    def set_up_with(self, *, source_version: str) -> World:
        self.target_fields = self.target_fields or ()
        return super().set_up_with(source_version=source_version)

    def process(self, run_id: str | None = None, **changes: Any) -> Process:
        return World.process(self, run_id, **{"transform": self.sql, **changes})

    def tick(self, **changes: Any) -> Finished:
        return steps.run(self.process(**changes))

    def oracle(self, rows: Iterable[Row]) -> Counter[tuple[Any, ...]]:
        groups = defaultdict[tuple[Any, ...], list[int]](list)
        for row in rows:
            named = dict(zip(EVENTS.names, row, strict=True))
            groups[tuple(named[k] for k in self.keys)].append(named["v"])
        return Counter((*key, len(vs), sum(vs)) for key, vs in groups.items() if sum(vs) % 5)


def four_regions(home: Path) -> Totals:
    """Return a world of four regions, each in files of its own, loaded once."""
    world = Totals(home=home).set_up()
    for region in ("eu", "us", "ap"):
        world.land(1, 2, region=region)
    world.land(1, 2, 3, region="za")
    world.tick()
    world.check()
    return world
