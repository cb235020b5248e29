"""A small range by Airflow's own backfill, a run per hour or day, and by the form, in one run."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence

import attrs

from benchmarks.backfill.lake import START, Load
from benchmarks.backfill.place import PATIENCE, Place

#: Runs of a backfill at a time: they wait for one another's lock, and do the rest of their work beside one another.
WAYS = (4, 1)


@attrs.frozen(kw_only=True)
class Native:
    """What each way took.

    :param backfill: runs at a time -> wall seconds, from asking for a backfill to the end of its last run.
    :param form: wall seconds of one run of the form over the same range, between them.
    """

    backfill: Mapping[int, float]
    form: Sequence[float]


def measure(place: Place, load: Load, *, step: dt.timedelta, runs: int) -> Native:
    """Load, then restate all of it by the form and by backfills in turn, each time by another factor.

    :param step: of the backfills.
    :param runs: of each.
    """
    client, dag_id = place.stack.client, load.target
    client.unpause(dag_id)
    place.run(dag_id)
    load.check(1)
    # The schedule has made a run of its own.
    client.wait_until(lambda: _is_quiet(place, dag_id), timeout=PATIENCE, what=f"{dag_id} to be quiet")
    form, backfill = [_by_form(place, load, factor=2)], {}
    for number, at_a_time in enumerate(WAYS):
        factor = 3 + 2 * number
        began = time.monotonic()
        # Airflow takes both ends. The second backfill takes the runs of the first again.
        options = {"reprocess_behavior": "completed", "max_active_runs": at_a_time, "dag_run_conf": {"factor": factor}}
        backfill_id = client.backfill(dag_id, START, START + (runs - 1) * step, **options)
        client.wait_for_backfill(dag_id, backfill_id, PATIENCE)
        backfill[at_a_time] = time.monotonic() - began
        made = place.backfill_runs(dag_id)
        assert {run["state"] for run in made} == {"success"}
        assert len(made) == runs
        load.check(factor)
        form.append(_by_form(place, load, factor=factor + 1))
    return Native(backfill=backfill, form=form)


def _by_form(place: Place, load: Load, *, factor: int) -> float:
    began = time.monotonic()
    asked = {"restate_from": load.start, "restate_to": load.end, "reason": "another factor", "factor": factor}
    place.run(load.target, asked)
    took = time.monotonic() - began
    load.check(factor)
    return took


def _is_quiet(place: Place, dag_id: str) -> bool:
    runs = place.stack.client.call("GET", f"/dags/{dag_id}/dagRuns", params={"limit": 100})["dag_runs"]
    return any(run["run_type"] == "scheduled" for run in runs) and all(run["state"] == "success" for run in runs)
