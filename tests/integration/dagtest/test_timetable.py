"""The timetable in Airflow's database, with the scheduler's and the backfill's own statements; only the clock is the test's.

And its example, which runs as it stands.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.backfill import Backfill, ReprocessBehavior, _create_backfill
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

from airflow_incremental import CatchUpTimetable
from demo.flights import load_flights
from demo.landing import Lakehouse, create_source, land
from tests.integration.dagtest.runner import BUNDLE, register, run_dag
from tests.support.scheduling import CLOCK, UTC, plain

ROOT = Path(__file__).parents[3]
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
NOON = dt.datetime(2024, 3, 10, 12, 5, tzinfo=UTC)


class Deployment:
    """A DAG in the database, and a scheduler that makes its runs."""

    def __init__(self, dag_id: str, *, assets: bool) -> None:
        self.dag_id = dag_id
        self.assets = assets
        self.now = NOON
        self._scheduler = SchedulerJobRunner(job=Job(), executors=[])

    def deploy(self, timetable: CatchUpTimetable) -> None:
        """Parse the DAG's file after its author has changed it."""
        schedule: Any = (
            AssetOrTimeSchedule(timetable=timetable, assets=[Asset("orders_of_the_timetable")])
            if self.assets
            else timetable  # type: ignore[list-item]
        )
        with DAG(
            self.dag_id, schedule=schedule, start_date=dt.datetime(2024, 1, 1, tzinfo=UTC), catchup=False
        ) as self._dag:
            EmptyOperator(task_id="load")
        self.parse()

    def parse(self) -> None:
        register(self._dag)

    def make_runs(self) -> int:
        """Let the scheduler go round until nothing is due; return how many runs it made."""
        before = len(self.runs())
        for _ in range(10):
            with create_session() as session:
                model = session.get(DagModel, self.dag_id)
                assert model is not None
                if model.next_dagrun_create_after is None or model.next_dagrun_create_after > self.now:
                    break
                model.exceeds_max_non_backfill = False  # that the runs before have not ended is not the test's matter
                self._scheduler._create_dag_runs([model], session)
        return len(self.runs()) - before

    def runs(self, kind: DagRunType = DagRunType.SCHEDULED) -> list[tuple[dt.datetime, dt.datetime]]:
        """Return the intervals of the runs of a kind, in order."""
        found = select(DagRun).where(DagRun.dag_id == self.dag_id, DagRun.run_type == kind)
        with create_session() as session:
            rows = session.scalars(found.order_by(DagRun.logical_date))
            return [(plain(row.data_interval_start), plain(row.data_interval_end)) for row in rows]

    def trigger(self, logical_date: dt.datetime) -> None:
        """Make a run by hand."""
        with create_session() as session:
            dag = self._scheduler._get_current_dag(dag_id=self.dag_id, session=session)
            assert dag is not None
            dag.create_dagrun(
                run_id="manual__by_hand",
                logical_date=logical_date,
                data_interval=dag.timetable.infer_manual_data_interval(run_after=logical_date),  # type: ignore[arg-type]
                run_after=self.now,
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.TEST,
                state="queued",  # type: ignore[arg-type]
                session=session,
            )

    def backfill(self, first: dt.datetime, last: dt.datetime, *, reverse: bool = False) -> list[Any]:
        """Start a backfill as the API does; return the intervals, in the order in which they would run, and why some are not."""
        _create_backfill(
            dag_id=self.dag_id,
            from_date=first,
            to_date=last,
            max_active_runs=10,
            reverse=reverse,
            dag_run_conf=None,
            triggering_user_name="somebody",
            reprocess_behavior=ReprocessBehavior.NONE,
        )
        with create_session() as session:
            made = session.scalars(
                select(Backfill).where(Backfill.dag_id == self.dag_id).order_by(-Backfill.id)
            ).first()
            assert made is not None
            rows = sorted(made.backfill_dag_run_associations, key=lambda row: row.sort_ordinal)
            made.completed_at = self.now
            return [
                row.exception_reason or (plain(row.dag_run.data_interval_start), plain(row.dag_run.data_interval_end))
                for row in rows
            ]


@pytest.fixture(params=[False, True], ids=["alone", "with assets"])
def hourly(request: pytest.FixtureRequest, dag_id: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """An hourly DAG with ten minutes of lag that has made one run."""
    # Otherwise the scheduler sees a changed DAG half a minute later.
    monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")
    deployment = Deployment(dag_id, assets=request.param)
    with patch(CLOCK, lambda: deployment.now):
        deployment.deploy(CatchUpTimetable("@hourly", lag=600))
        assert deployment.make_runs() == 1
        yield deployment


def test_an_outage_and_a_pause(hourly: Deployment) -> None:
    hourly.now += 10 * HOUR
    assert hourly.make_runs() == 2
    hourly.now += 10 * HOUR
    hourly.parse()
    assert hourly.make_runs() == 1
    runs = hourly.runs()
    assert [(end - start) / HOUR for start, end in runs] == [1, 1, 9, 10]
    assert all(earlier[1] == later[0] for earlier, later in pairwise(runs))


def test_changes_of_the_schedule(hourly: Deployment) -> None:
    """Two hours less of lag: a run is due at the time at which the one before it was."""
    for timetable in (
        CatchUpTimetable("@hourly", lag=3 * HOUR),
        CatchUpTimetable("@hourly", lag=HOUR),
        CatchUpTimetable("30 2 * * *", timezone="Europe/Berlin"),
        CatchUpTimetable("*/20 * * * *"),
    ):
        hourly.deploy(timetable)
        hourly.now += 6 * HOUR
        assert hourly.make_runs() > 0
    runs = hourly.runs()
    assert len(runs) > 5
    assert all(earlier[1] == later[0] for earlier, later in pairwise(runs))
    assert runs[-1][1] == hourly.now.replace(minute=0)


def test_a_backfill_of_a_day_beside_scheduled_runs(hourly: Deployment) -> None:
    day = dt.datetime(2024, 2, 1, tzinfo=UTC)
    made = hourly.backfill(day, day + 23 * HOUR, reverse=True)
    assert made == [(day + n * HOUR, day + (n + 1) * HOUR) for n in reversed(range(24))]
    hourly.now += HOUR
    hourly.parse()
    assert hourly.make_runs() == 1
    assert all(earlier[1] == later[0] for earlier, later in pairwise(hourly.runs()))


def test_a_backfill_by_day_leaves_out_what_has_a_run(hourly: Deployment) -> None:
    """Airflow knows a run by its start, not by its end."""
    hourly.deploy(CatchUpTimetable("@hourly", lag=600, backfill_interval=DAY))
    day = dt.datetime(2024, 2, 1, tzinfo=UTC)
    week = [(day + n * DAY, day + (n + 1) * DAY) for n in range(7)]
    assert hourly.backfill(day, day + 7 * DAY - HOUR) == week
    again = hourly.backfill(day - DAY, day + 2 * DAY - HOUR)
    assert [made for made in again if isinstance(made, tuple)] == [(day - DAY, day)]
    assert len(again) == 3


def test_a_backfill_after_a_change_of_the_lag_may_find_an_id_taken(hourly: Deployment) -> None:
    """Airflow names the runs of backfills by when they are due."""
    day = dt.datetime(2024, 2, 1, tzinfo=UTC)
    hourly.deploy(CatchUpTimetable("@hourly", lag=HOUR))
    assert hourly.backfill(day, day) == [(day, day + HOUR)]
    hourly.deploy(CatchUpTimetable("@hourly"))
    assert hourly.backfill(day + HOUR, day + 2 * HOUR) == ["in flight", (day + 2 * HOUR, day + 3 * HOUR)]


def test_a_run_by_hand_in_the_way(hourly: Deployment) -> None:
    """Alone, it costs one tick; within a schedule by assets Airflow does not ask, and finds it in its way for ever."""
    start = hourly.runs()[-1][1]
    hourly.trigger(start)
    hourly.now += 4 * HOUR
    hourly.parse()
    if hourly.assets:
        assert hourly.make_runs() == 0
    else:
        assert hourly.make_runs() == 1
        assert hourly.runs()[-1] == (start + HOUR, start + 4 * HOUR)


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flight that lands last is of the first hour; a run by hand has the last hour whose lag has passed."""
    lakehouse = Lakehouse(tmp_path / "lake")
    for name, value in lakehouse.connection().items():
        monkeypatch.setenv(name, value)
    bag = DagBag(dag_folder=ROOT / "dags" / "hourly_catch_up.py", bundle_name=BUNDLE)
    assert not bag.import_errors
    catalog = lakehouse.catalog()
    create_source(catalog)
    flights = load_flights().slice(0, 2_000)
    for part in (flights.slice(1), flights.slice(0, 1)):
        land(catalog, part)
        run = run_dag(bag.dags["hourly_catch_up"])
        assert run.state == "success"
    assert run.xcom("carrier_hours.publish")["late_rows"] == 1
    expected = Counter(zip(flights["time_hour"].to_pylist(), flights["carrier"].to_pylist(), strict=True))
    found = catalog.load_table("mart.carrier_hours").scan().to_arrow().to_pylist()
    assert {(row["time_hour"], row["carrier"]): row["flights"] for row in found} == dict(expected)
    with create_session() as session:
        row = session.scalars(select(DagRun).where(DagRun.dag_id == run.dag_id, DagRun.run_id == run.run_id)).one()
        start, end, by_hand = (
            plain(time) for time in (row.data_interval_start, row.data_interval_end, row.logical_date)
        )
    assert end == (by_hand - 0.25 * HOUR).replace(minute=0, second=0, microsecond=0)
    assert end - start == HOUR
