"""Worlds with a stateful process: what each customer has after each event, and sums of hours, as far as the source is complete."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.core.plan import Plan
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import draft
from airflow_incremental.sessions.process import Finished, Process
from tests.support.world import SOURCE, TARGET, Row, World, hour

SCHEMA = pa.schema(
    [("ts", pa.timestamp("us", "UTC")), ("id", pa.int64()), ("customer", pa.string()), ("balance", pa.int64())]
)
#: What a customer has after each event: the same text with steps and without.
BALANCES = """
SELECT e.ts, e.id, e.region AS customer,
       coalesce(s.balance, 0) + sum(e.v) OVER (PARTITION BY e.region ORDER BY e.ts, e.id)::BIGINT AS balance
FROM events e LEFT JOIN state s ON s.customer = e.region
"""


@attrs.define
class Balances(World):
    """Balances of customers after each event, as far as the source is complete."""

    step: str | None = None
    through: Any = "latest_event"
    unit: str = "hour"
    state: str | None = "latest_by(customer)"
    initial: Any = "all"
    policies: Any = attrs.field(factory=dict)

    @property
    def target_schema(self) -> pa.Schema:
        return SCHEMA

    @property
    def spec(self) -> ProcessSpec:
        return ProcessSpec(
            process="proc",
            sources={"events": IcebergSource(SOURCE, event_time="ts", complete_through=self.through)},
            target=IcebergTarget(TARGET, event_time="ts"),
            mode="stateful",
            state=self.state,
            step=self.step,
            initial=self.initial,
            **self.policies,
        )

    def set_up(self) -> Balances:
        self.target_fields = ((self.unit, "ts"),)
        World.set_up(self)
        return self

    def process(self, run_id: str | None = None, **changes: Any) -> Process:
        return World.process(self, run_id, **{"transform": BALANCES, **changes})

    def tick(self) -> Finished:
        return steps.run(self.process())

    @property
    def processed(self) -> dt.datetime | None:
        last = published(self.target, "proc")
        return None if last is None else last.watermark.processed_through

    def verify(self) -> None:
        """Assert that the target is what all events before ``processed`` give, one after the other."""
        assert self.target_rows() == self.oracle(self.source_rows())

    def oracle(self, rows: Iterable[Row]) -> Counter[tuple[Any, ...]]:
        """Compute the target from scratch, in plain Python."""
        through, totals, expected = self.processed, defaultdict[str, int](int), []
        for i, ts, region, v in sorted(rows, key=lambda r: (r[1], r[0])):
            if through is not None and ts is not None and ts < through:
                totals[region] += v
                expected.append((ts, i, region, totals[region]))
        return Counter(expected)


SUMS = """
SELECT date_trunc('hour', ts) AS ts, count(*) AS id, region AS customer, sum(v)::BIGINT AS balance
FROM events GROUP BY ALL
"""


@attrs.define
class Sums(Balances):
    """Sums per hour and customer, as far as the source is complete; no hour depends on another."""

    state: str | None = None
    policies: Any = attrs.field(factory=lambda: {"catch_up": "missed"})

    def process(self, run_id: str | None = None, **changes: Any) -> Process:
        return World.process(self, run_id, **{"transform": SUMS, **changes})

    def oracle(self, rows: Iterable[Row]) -> Counter[tuple[Any, ...]]:
        """Compute the target from scratch, in plain Python."""
        through, sums = self.processed, defaultdict[tuple[dt.datetime, str], list[int]](list)
        for _, ts, region, v in rows:
            if through is not None and ts is not None and ts < through:
                sums[ts.replace(minute=0), region].append(v)
        return Counter((ts, len(vs), region, sum(vs)) for (ts, region), vs in sums.items())


def planned(world: World) -> list[str]:
    """Return what the next session would replace, in hours since the world's first day began."""
    found = draft(world.process(), world.target)
    return shown(found.replaced) if isinstance(found, Plan) else []


def shown(ranges: EventRanges) -> list[str]:
    """Return ranges in hours since the world's first day began."""

    def number(moment: dt.datetime) -> int:
        return (moment - hour(0)) // dt.timedelta(hours=1)

    return [f"{number(r.start)}-{number(r.end)}" for r in ranges.ranges]
