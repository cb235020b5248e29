"""Loads that ask a person: what the tests answer, or do not."""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.sdk import DAG

from airflow_incremental import IcebergSource, IcebergTarget, IncrementalLoad, RowCount

DEFAULTS = {"retries": 1, "retry_delay": dt.timedelta(seconds=1)}


def load(name: str, **arguments: Any) -> None:
    """Make a DAG ``approval_<name>`` that loads ``mart.<name>``."""
    with DAG(f"approval_{name}", schedule=None, default_args=DEFAULTS, max_active_runs=3):
        IncrementalLoad(
            "load",
            sources={"events": IcebergSource("raw.approvals", event_time="ts")},
            target=IcebergTarget(f"mart.{name}", event_time="ts"),
            mode="append",
            transform="SELECT id, ts, region, v * 10 AS v10 FROM events",
            audits=[RowCount(max=1, severity="ask")],
            **{"approval": "on_warning", "poll_interval": 2, **arguments},
        )


load("asked", approvers=["admin"])
load("denied", approval_timeout=dt.timedelta(seconds=8), approval_on_reject="discard")
load("replaced", when_pending="replace", approval_on_reject="quarantine")
