"""A step that waits for a signal, and a DAG that two signals start together."""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_incremental import ClaimMatchesOperator, SignalMatchTrigger, SignalSensor, ge

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
