"""The package: one process for each hop, a whole session of each per tick; without Airflow, whose tasks would cost all the same."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs

from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.plan import Owner
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Process
from benchmarks.late.hops import COMPLETE, CUSTOMERS, FACTS, STATES, Hop
from benchmarks.late.place import Place

#: Hop -> what its author declares.
DECLARED: dict[str, dict[str, Any]] = {
    FACTS.name: {"mode": "overwrite"},
    STATES.name: {"mode": "stateful", "state": "latest_by(customer_id)"},
    CUSTOMERS.name: {"mode": "merge", "keys": ("customer_id",)},
}


def spec_of(hop: Hop) -> ProcessSpec:
    """Return what the author of a load would declare."""
    rule = CompleteThrough.property(COMPLETE) if hop is FACTS else None
    return ProcessSpec(
        process=hop.name,
        sources={hop.source: IcebergSource(hop.source_table, event_time=hop.source_time, complete_through=rule)},
        target=IcebergTarget(hop.table, event_time=hop.event_time),
        **DECLARED[hop.name],
    )


@attrs.frozen(kw_only=True)
class Ours:
    """Sessions."""

    place: Place

    def load(self, hop: Hop, day: dt.date) -> None:
        """Bring a hop up to date, on a day."""
        finished = steps.run(
            Process(
                spec=spec_of(hop),
                catalog=self.place.catalog,
                owner=Owner(deployment="bench", dag_id="late", run_id=day.isoformat(), task_id=hop.name),
                transform=hop.sql,
                engine=self.place.engine,
            )
        )
        assert finished.outcome == "published", finished.reason
