"""Say that flights are ready up to an hour: a DAG that signals start, with a step that waits for one.

Each publish of a load is a signal named after its target, with the event time up to which the target is complete. Two of them that
agree on it start a run here. Its first task takes what has been found, each pair once, whatever becomes of events and runs; its
second waits until the table that follows them has come as far; then anybody may wait for ``flights.ready``.

``airflow-incremental signals lineage mart.flight_fact 1`` shows what came of a publish.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_incremental import (
    ClaimMatchesOperator,
    EmitSignalOperator,
    SignalDependency,
    SignalMatchTrigger,
    SignalSensor,
    as_timestamp,
    ge,
)

BOTH_MARTS = Asset(
    "flights-both-marts",
    watchers=[
        AssetWatcher(
            name="both-marts",
            trigger=SignalMatchTrigger(
                subscription="flights_ready",
                signals=[
                    SignalDependency("mart.flight_fact", join=("complete_through",)),
                    SignalDependency("mart.hourly_departures", join=("complete_through",)),
                ],
                # Also what was published before anybody looked.
                start="earliest",
                poll_interval=2,
            ),
        )
    ],
)
_UNTIL = "ti.xcom_pull(task_ids='claim')[-1]['signals'][0]['params']['complete_through']['timestamp']"
#: The hour of the newest pair.
UNTIL = f"{{{{ {_UNTIL} }}}}"
#: Until when the aircraft have followed then: their load counts an hour as complete only when 8 more have passed.
FOLLOWED = f"{{{{ macros.datetime.fromisoformat({_UNTIL}) - macros.timedelta(hours=8) }}}}"

with DAG("flights_ready", schedule=[BOTH_MARTS], max_active_runs=1, tags=["example", "flights"], doc_md=__doc__):
    (
        ClaimMatchesOperator(task_id="claim", subscription="flights_ready")
        >> SignalSensor(
            task_id="wait_for_aircraft",
            name="mart.aircraft_state",
            match={"complete_through": ge(FOLLOWED)},
            poke_interval=2,
        )
        >> EmitSignalOperator(task_id="announce", name="flights.ready", parameters={"until": as_timestamp(UNTIL)})
    )
