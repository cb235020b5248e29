"""A step that waits for a signal, a DAG that two signals start together, and a load whose publishes are signals."""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_incremental import (
    ClaimMatchesOperator,
    IcebergSource,
    IcebergTarget,
    IncrementalLoadOperator,
    SignalMatchTrigger,
    SignalSensor,
    ge,
)

DEFAULTS = {"retries": 2, "retry_delay": dt.timedelta(seconds=1)}

with DAG("signals_gate", schedule=None, params={"hour": 0}, default_args=DEFAULTS):
    SignalSensor(
        task_id="gate",
        name="it.facts",
        match={"hour": ge("{{ params.hour }}"), "region": "eu"},
        poke_interval=5,
        timeout=300,
    )

BOTH = Asset(
    "both",
    watchers=[
        AssetWatcher(
            name="both",
            trigger=SignalMatchTrigger(
                subscription="it_both",
                signals=[
                    {"name": "it.orders", "match": {"region": "eu"}, "join": ["day"]},
                    {"name": "it.payments", "join": ["date"]},
                ],
                poll_interval=1,
            ),
        )
    ],
)

with DAG("signals_started", schedule=[BOTH], max_active_runs=1, default_args=DEFAULTS):
    ClaimMatchesOperator(task_id="claim", subscription="it_both")

with DAG("signals_load", schedule=None, default_args={"retries": 0}):
    IncrementalLoadOperator(
        task_id="load",
        sources={"events": IcebergSource("raw.said", event_time="ts")},
        target=IcebergTarget("mart.said", event_time="ts"),
        mode="append",
        transform="SELECT id, ts, region, v FROM events",
    )
