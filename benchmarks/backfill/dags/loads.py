"""The same load in mapped tasks and in one task, over years; and, over days, for backfills by the hour and by the day."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

from airflow.sdk import DAG

from airflow_incremental import (
    CatchUpTimetable,
    IcebergSource,
    IcebergTarget,
    IncrementalLoad,
    IncrementalLoadOperator,
    restate_params,
)

#: Chunks of a run at a time.
PARALLEL = 2
#: The param stands for SQL that somebody corrects.
SQL = """
SELECT date_trunc('hour', ts) AS hour_ts, count(*) AS n, sum(v * {{ params.factor }})::BIGINT AS total FROM events GROUP BY ALL
"""
OPTIONS: dict[str, Any] = {
    "default_args": {"retries": 3, "retry_delay": dt.timedelta(seconds=1)},
    "params": {**restate_params(), "factor": 1},
}
SIZE: dict[str, Any] = {
    "chunk_bytes": int(os.environ["BENCH_CHUNK_BYTES"]),
    "max_chunks": int(os.environ["BENCH_MAX_CHUNKS"]),
}


def arguments(source: str, target: str) -> dict[str, Any]:
    """Return what all of them say."""
    return {
        "sources": {"events": IcebergSource(f"raw.{source}", event_time="ts")},
        "target": IcebergTarget(f"mart.{target}", event_time="hour_ts"),
        "mode": "overwrite",
        "transform": SQL,
        # Runs of a backfill wait for one another.
        "poll_interval": 1,
    }


with DAG("in_chunks", schedule=None, **OPTIONS):
    IncrementalLoad("fact", **arguments("years", "in_chunks"), parallel_chunks=PARALLEL, **SIZE)

with DAG("in_one_task", schedule=None, **OPTIONS):
    IncrementalLoadOperator(task_id="load", **arguments("years", "in_one_task"), **SIZE)

for name, every in (("by_hour", "@hourly"), ("by_day", "@daily")):
    start = dt.datetime(2019, 1, 1, tzinfo=dt.timezone.utc)
    with DAG(name, schedule=CatchUpTimetable(every), start_date=start, catchup=False, **OPTIONS):
        IncrementalLoadOperator(task_id="load", **arguments(name, name))
