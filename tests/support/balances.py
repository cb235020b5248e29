"""A world with a stateful process: what each customer has after each event, as far as the source is complete."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Finished, Process
from tests.support.world import SOURCE, TARGET, World

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

    def check(self, *, rows: Any = None) -> None:
        """Assert what ``verify`` does, and that no session is left open."""
        assert rows is None
        self.verify()
        assert set(self.target.metadata.refs) <= {"main", "inc_wm_proc"}

    def verify(self) -> None:
        """Assert that the target is what all events before ``processed`` give, one after the other."""
        through, totals, expected = self.processed, defaultdict[str, int](int), []
        for i, ts, region, v in sorted(self.source_rows(), key=lambda r: (r[1], r[0])):
            if through is not None and ts is not None and ts < through:
                totals[region] += v
                expected.append((ts, i, region, totals[region]))
        assert sorted(self.target_rows().elements()) == sorted(expected)
