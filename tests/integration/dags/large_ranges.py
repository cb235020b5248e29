"""A load in chunks side by side, by form and first run; the workers of some chunks wait until they are killed."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, get_current_context

from airflow_incremental import IcebergSource, IcebergTarget, IncrementalLoad, restate_params

SQL = """
SELECT date_trunc('hour', ts) AS hour_ts, region, count(*) AS n, sum(v * {factor})::BIGINT AS total FROM events GROUP BY ALL
"""


def count_rows(relations: Any, plan: Any) -> Any:
    """Say which try computes which hours, in which process; wait while a file holds it; then count rows per hour."""
    context = get_current_context()
    folder, ti = Path(context["params"]["folder"]), context["ti"]
    name = f"{ti.map_index}-{ti.try_number}"
    (folder / f"{name}.part").write_text(f"{os.getpid()} {plan.affected.count(plan.grain)}")
    (folder / f"{name}.part").rename(folder / name)
    deadline = time.monotonic() + 120
    while (folder / f"hold-{name}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return relations["events"].query("events", SQL.format(factor=int(context["params"]["factor"])))


with DAG(
    "large_ranges",
    schedule=None,
    default_args={"retries": 2, "retry_delay": dt.timedelta(seconds=1)},
    params={**restate_params(), "folder": "/nonexistent", "factor": 1},
):
    IncrementalLoad(
        "load",
        sources={"events": IcebergSource("raw.large_ranges", event_time="ts")},
        target=IcebergTarget("mart.large_ranges", event_time="hour_ts"),
        mode="overwrite",
        transform=count_rows,
        chunk_bytes=1,
        max_chunks=5,
        parallel_chunks=2,
    )
