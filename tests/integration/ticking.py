"""The runs that a ``CatchUpTimetable`` makes in a real Airflow, by their intervals."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import pairwise

import attrs

from demo.stack import AirflowStack


@attrs.frozen
class Interval:
    """A run's interval, when it was due and made, and what became of it."""

    start: dt.datetime
    end: dt.datetime
    due: dt.datetime
    made: dt.datetime
    state: str


class Ticking:
    """A DAG that runs every few seconds."""

    def __init__(self, stack: AirflowStack, dag_id: str) -> None:
        self.client, self.dag_id = stack.client, dag_id

    def intervals(self, kind: str = "scheduled") -> list[Interval]:
        """Return the intervals of the runs of a kind, in order."""
        params = {"run_type": kind, "limit": 100, "order_by": "logical_date"}
        runs = self.client.call("GET", f"/dags/{self.dag_id}/dagRuns", params=params)["dag_runs"]
        fields = ("data_interval_start", "data_interval_end", "run_after", "queued_at")
        return [
            Interval(*(dt.datetime.fromisoformat(run[f].replace("Z", "+00:00")) for f in fields), state=run["state"])
            for run in runs
        ]

    def pause(self) -> None:
        self.client.call("PATCH", f"/dags/{self.dag_id}", json={"is_paused": True})

    def wait_for(self, more: int) -> None:
        """Wait until there are some more scheduled runs."""
        enough = len(self.intervals()) + more
        self.client.wait_until(lambda: len(self.intervals()) >= enough, timeout=120, what=f"{more} more runs")


def check_tiling(runs: Sequence[Interval], *, tick: dt.timedelta, lag: dt.timedelta) -> None:
    """They tile time without gap or overlap, end on ticks, and none came early."""
    assert all(earlier.end == later.start for earlier, later in pairwise(runs))
    assert all(each.due == each.end + lag and each.made >= each.due for each in runs)
    assert all(each.end.timestamp() % tick.total_seconds() == 0 for each in runs)
