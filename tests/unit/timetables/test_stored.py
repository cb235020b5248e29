"""The form in which Airflow keeps the timetable, and what people see of it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from airflow import plugins_manager
from airflow.dag_processing.dagbag import DagBag
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.assets import AssetOrTimeSchedule as CoreAssetOrTimeSchedule
from dateutil.relativedelta import relativedelta

from airflow_incremental import CatchUpTimetable
from airflow_incremental.core.errors import ArgumentError
from tests.support.scheduling import stored

DAY = dt.timedelta(days=1)
FULL = CatchUpTimetable(
    "30 2 * * *",
    lag=dt.timedelta(hours=2),
    max_interval=relativedelta(days=7),
    backfill_interval=relativedelta(months=1, days=2),
    timezone="Europe/Berlin",
)
FULL_STORED = {
    "version": 1,
    "cron": "30 2 * * *",
    "lag": 7_200,
    "max_interval": {"days": 7},
    "backfill_interval": {"months": 1, "days": 2},
    "timezone": "Europe/Berlin",
}
EXAMPLES = [
    FULL,
    CatchUpTimetable("@hourly"),
    CatchUpTimetable("0 0 * * * 30"),
    CatchUpTimetable(900, lag=60, max_interval=DAY),
    CatchUpTimetable(relativedelta(months=3), timezone="Asia/Tokyo"),
    CatchUpTimetable("@daily", timezone=dt.timezone(dt.timedelta(hours=-3))),
]


def test_the_form_of_version_1() -> None:
    """What has been stored once is read by every version after it."""
    assert FULL.serialize() == FULL_STORED
    assert CatchUpTimetable.deserialize(FULL_STORED) == FULL
    interval = CatchUpTimetable(900).serialize()
    assert interval == {
        "version": 1,
        "interval": 900,
        "lag": 0,
        "max_interval": None,
        "backfill_interval": None,
        "timezone": "UTC",
    }


@pytest.mark.parametrize("timetable", EXAMPLES, ids=lambda t: t.summary)
def test_it_is_the_same_after_the_way_through_the_database(timetable: CatchUpTimetable) -> None:
    found = stored(schedule=timetable).timetable
    assert isinstance(found, CatchUpTimetable)
    assert found == timetable
    assert (found.summary, found.description) == (timetable.summary, timetable.description)
    assert found.type_name == "airflow_incremental.timetables.catch_up.CatchUpTimetable"


@pytest.mark.parametrize("version", [2, None, "1"])
def test_another_version_is_refused(version: Any) -> None:
    with pytest.raises(ArgumentError) as refused:
        CatchUpTimetable.deserialize({**FULL_STORED, "version": version, "of": "the future"})
    for words in (f"has version {version!r}", "version 1", "in all of Airflow's components"):
        assert words in str(refused.value)


def test_what_was_stored_without_a_version_is_refused() -> None:
    with pytest.raises(ArgumentError, match="version None"):
        CatchUpTimetable.deserialize({})


def test_two_parses_give_one_dag() -> None:
    hashes = {SerializedDagModel.hash(DagSerialization.to_dict(DAG("one", schedule=again))) for again in (FULL, FULL)}
    again = CatchUpTimetable.deserialize(json.loads(json.dumps(FULL.serialize())))
    assert hashes == {SerializedDagModel.hash(DagSerialization.to_dict(DAG("one", schedule=again)))}


@pytest.mark.parametrize("kind", [AssetOrTimeSchedule, CoreAssetOrTimeSchedule])
def test_within_a_schedule_by_assets(kind: Any) -> None:
    found = stored(schedule=kind(timetable=FULL, assets=[Asset("orders"), Asset("customers")])).timetable
    assert isinstance(found, CoreAssetOrTimeSchedule)
    assert found.timetable == FULL
    assert [key.name for key, _ in found.asset_condition.iter_assets()] == ["orders", "customers"]
    assert found.periodic, "it can be backfilled"
    assert found.summary == "Asset or 30 2 * * *, lag 2h"
    assert found.description == f"Triggered by assets or {FULL.description}"


def test_the_plugin_registers_it() -> None:
    name = "airflow_incremental.timetables.catch_up.CatchUpTimetable"
    assert plugins_manager.get_timetables_plugins()[name] is CatchUpTimetable


@pytest.mark.parametrize(
    ("timetable", "summary", "description"),
    [
        (
            CatchUpTimetable("@hourly"),
            "0 * * * *",
            "Every hour; missed time is made up for in one run",
        ),
        (
            FULL,
            "30 2 * * *, lag 2h",
            (
                "At 02:30 (Europe/Berlin); 2 hours after the end of the interval; "
                "missed time is made up for in runs of up to 7 days; backfills step by 1 month 2 days"
            ),
        ),
        (
            CatchUpTimetable(5_400, lag=90, max_interval=DAY),
            "every 1h30m, lag 1m30s",
            (
                "Every 1 hour 30 minutes; 1 minute 30 seconds after the end of the interval;"
                " missed time is made up for in runs of up to 1 day"
            ),
        ),
        (
            CatchUpTimetable(relativedelta(months=1), timezone="Asia/Tokyo"),
            "every 1mo",
            "Every month (Asia/Tokyo); missed time is made up for in one run",
        ),
        (
            CatchUpTimetable("0 0 * * * 30"),
            "0 0 * * * 30",
            "By cron 0 0 * * * 30; missed time is made up for in one run",
        ),
        (
            CatchUpTimetable("0 0 1 * 1"),
            "0 0 1 * 1",
            "At 00:00, on day 1 of the month (or) At 00:00, only on Monday; missed time is made up for in one run",
        ),
        (
            CatchUpTimetable("@daily", timezone=dt.timezone(dt.timedelta(hours=-3))),
            "0 0 * * *",
            "At 00:00 (UTC-03:00); missed time is made up for in one run",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_what_people_read(timetable: CatchUpTimetable, summary: str, description: str) -> None:
    assert (timetable.summary, timetable.description) == (summary, description)
    assert description in repr(timetable)


BROKEN = """
from airflow.sdk import DAG
from airflow_incremental import CatchUpTimetable
DAG("broken", schedule=CatchUpTimetable("0 0 30 2 *"))
"""


def test_a_mistake_is_an_import_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    bag = DagBag(str(tmp_path), bundle_path=tmp_path, bundle_name="broken")
    (message,) = bag.import_errors.values()
    assert "the cron expression is '0 0 30 2 *'" in message
    assert bag.dags == {}
