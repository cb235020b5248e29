"""A load that ticks, and one whose first try is held until its process is killed: what is left of them without a scheduler."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, get_current_context

from airflow_incremental import (
    CatchUpTimetable,
    IcebergSource,
    IcebergTarget,
    IncrementalLoadOperator,
    restate_params,
)

DEFAULTS = {"retries": 2, "retry_delay": dt.timedelta(seconds=1)}
SQL = """
SELECT date_trunc('hour', ts) AS hour_ts, region, count(*) AS n, sum(v * {factor})::BIGINT AS total FROM events GROUP BY ALL
"""

with DAG(
    "outages_ticking",
    schedule=CatchUpTimetable(3, lag=1),
    start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
):
    IncrementalLoadOperator(
        task_id="load",
        sources={"events": IcebergSource("raw.outages_ticking", event_time="ts")},
        target=IcebergTarget("mart.outages_ticking", event_time="hour_ts"),
        mode="overwrite",
        transform=SQL.format(factor=1),
    )


def held(relations: Any, plan: Any) -> Any:
    """Say which try runs, in which process, and over what; wait while a file holds this try; then count rows per hour."""
    context = get_current_context()
    folder, attempt = Path(context["params"]["folder"]), context["ti"].try_number
    (folder / f"try-{attempt}.part").write_text(f"{os.getpid()} {os.getppid()}\n{plan.session}\n{plan.replaced}")
    (folder / f"try-{attempt}.part").rename(folder / f"try-{attempt}")
    deadline = time.monotonic() + 120
    while (folder / f"hold-{attempt}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    (folder / f"woke-{attempt}").touch()
    return relations["events"].query("events", SQL.format(factor=int(context["params"]["factor"])))


with DAG(
    "outages_held",
    schedule=None,
    default_args=DEFAULTS,
    params={**restate_params(), "folder": "/nonexistent", "factor": 1},
):
    IncrementalLoadOperator(
        task_id="load",
        sources={"events": IcebergSource("raw.outages_held", event_time="ts")},
        target=IcebergTarget("mart.outages_held", event_time="hour_ts"),
        mode="overwrite",
        transform=held,
    )
