"""Loads whose transform waits as long as somebody holds it, so that a test can hurt the task in the middle of a session."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, get_current_context

from airflow_incremental import IcebergSource, IcebergTarget, IncrementalLoad, IncrementalLoadOperator, NotNull


def held(relations: Any, plan: Any) -> Any:
    """Say who runs, wait while the file ``hold`` is there, then count rows per hour."""
    del plan
    folder = Path(get_current_context()["params"]["folder"])
    (folder / "loading").write_text(str(os.getpid()))
    deadline = time.monotonic() + 120
    while (folder / "hold").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return relations["events"].query(
        "events",
        "SELECT date_trunc('hour', ts) AS hour_ts, region, count(*) AS n, sum(v)::BIGINT AS total FROM events GROUP BY ALL",
    )


DEFAULTS = {"retries": 2, "retry_delay": dt.timedelta(seconds=1)}
COMMON: dict[str, Any] = {
    "sources": {"events": IcebergSource("raw.events", event_time="ts")},
    "mode": "overwrite",
    "transform": held,
    "audits": [NotNull("hour_ts", "region")],
}

with DAG("scheduled_fused", schedule=None, params={"folder": "/nonexistent"}, default_args=DEFAULTS, max_active_runs=4):
    IncrementalLoadOperator(
        task_id="load",
        target=IcebergTarget("mart.fused", event_time="hour_ts"),
        when_busy="fail",
        **COMMON,
    )

with DAG("scheduled_group", schedule=None, params={"folder": "/nonexistent"}, default_args=DEFAULTS, max_active_runs=4):
    IncrementalLoad("load", target=IcebergTarget("mart.grouped", event_time="hour_ts"), **COMMON)
