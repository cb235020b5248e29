"""DAGs that do nothing, every few seconds: what is looked at is when, and for which interval."""

from __future__ import annotations

import datetime as dt

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset
from airflow.timetables.assets import AssetOrTimeSchedule

from airflow_incremental import CatchUpTimetable

TIMETABLE = CatchUpTimetable(4, lag=2, backfill_interval=20)
START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)

with DAG("catching_up", schedule=TIMETABLE, start_date=START, catchup=False):
    EmptyOperator(task_id="nothing")

with DAG(
    "catching_up_with_assets",
    schedule=AssetOrTimeSchedule(timetable=TIMETABLE, assets=[Asset("never_said")]),
    start_date=START,
    catchup=False,
):
    EmptyOperator(task_id="nothing")
