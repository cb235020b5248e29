"""The timetable in a real Airflow: as it goes, over a pause, and while a backfill goes on beside it."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator

import pytest

from demo.stack import AirflowStack
from tests.integration.ticking import Interval, Ticking, check_tiling

TICK, LAG, STEP = (dt.timedelta(seconds=seconds) for seconds in (4, 2, 20))
PAUSE = 30
FIRST = dt.datetime(2024, 2, 1, tzinfo=dt.timezone.utc)


@pytest.fixture
def dags(airflow_stack: AirflowStack) -> Iterator[list[Ticking]]:
    """Both of them, at work."""
    both = [Ticking(airflow_stack, dag_id) for dag_id in ("catching_up", "catching_up_with_assets")]
    for dag in both:
        dag.client.unpause(dag.dag_id)
    yield both
    for dag in both:
        dag.pause()


def test_a_pause_and_a_backfill(dags: list[Ticking]) -> None:
    for dag in dags:
        dag.wait_for(3)
        dag.pause()
    before = [len(dag.intervals()) for dag in dags]
    time.sleep(PAUSE)
    for dag in dags:
        dag.client.unpause(dag.dag_id)
    for dag in dags:
        dag.wait_for(3)
    last = FIRST + 5 * STEP - TICK
    backfills = [dag.client.backfill(dag.dag_id, FIRST, last, run_backwards=True, max_active_runs=1) for dag in dags]
    for dag, number, backfill in zip(dags, before, backfills, strict=True):
        assert set(dag.client.wait_for_backfill(dag.dag_id, backfill).values()) == {"success"}
        dag.wait_for(1)
        check_scheduled(dag.intervals(), before=number)
        steps = dag.intervals("backfill")
        expected = [(FIRST + n * STEP, FIRST + (n + 1) * STEP) for n in range(5)]
        assert [(each.start, each.end) for each in steps] == expected
        assert all(each.due == each.end + LAG for each in steps)


def check_scheduled(runs: list[Interval], *, before: int) -> None:
    """They tile time, none came early, and the pause is not a run per tick.

    :param before: how many there were before it.
    """
    check_tiling(runs, tick=TICK, lag=LAG)
    caught_up = [each for each in runs[before:] if each.made < runs[before].made + TICK]
    assert len(caught_up) <= 3, "one or two for the pause, and perhaps the next"
    missed = sum((each.end - each.start for each in caught_up), dt.timedelta(0))
    assert missed >= dt.timedelta(seconds=PAUSE) - 2 * TICK
