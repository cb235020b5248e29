"""Airflow's scheduler without a database: its own code decides what the next run is, and the clock is the test's."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from unittest.mock import patch

import attrs
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DataInterval
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunType

UTC = dt.timezone.utc
CLOCK = "airflow_incremental.timetables.catch_up._now"


def plain(moment: Any) -> Any:
    """Return a time without pendulum, which cannot divide a length by a timedelta."""
    return moment and dt.datetime.combine(moment.date(), moment.time(), tzinfo=UTC)


def stored(schedule: Any, **arguments: Any) -> SerializedDAG:
    """Return a DAG as the scheduler has it: written as JSON by the process that parsed it, and read again."""
    dag = DAG("moved", schedule=schedule, **arguments)
    serialized = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    found = DagSerialization.from_dict(serialized)
    assert isinstance(found, SerializedDAG)
    return found


@attrs.frozen
class Run:
    """A scheduled run.

    :param created: when the scheduler made it.
    :param computed: when its interval was, which is earlier, and by what.
    """

    start: dt.datetime
    end: dt.datetime
    run_after: dt.datetime
    created: dt.datetime
    computed: dt.datetime
    by: Any


class Scheduler:
    """What Airflow does for one DAG, in the order of ``_create_dag_runs`` and of ``update_dags`` after parsing.

    :param now: the time on its clock.
    """

    def __init__(self, now: dt.datetime) -> None:
        self.now = now
        self.runs: list[Run] = []
        self.by: Any = None
        self._dag: SerializedDAG
        self._model = DagModel(dag_id="moved")
        self._rows: dict[dt.datetime, DagRun] = {}
        self._ids: set[str] = set()
        self._computed = now

    @property
    def due(self) -> dt.datetime | None:
        """When the next run may be made."""
        return plain(self._model.next_dagrun_create_after)

    @property
    def planned(self) -> tuple[dt.datetime, dt.datetime] | None:
        """The next interval, as it is stored."""
        interval = self._model.next_dagrun_data_interval
        return None if interval is None else (plain(interval.start), plain(interval.end))

    def parse(self, by: Any, **arguments: Any) -> None:
        """Parse the DAG's file; the next run follows from the last automated run.

        :param by: what the test remembers of it.
        """
        self.by = by
        self._dag = stored(**arguments)
        automated = [row for row in self._rows.values() if row.run_type != DagRunType.MANUAL]
        self._compute(max(automated, key=lambda row: row.logical_date, default=None))

    def loop(self) -> bool:
        """Make the next run, if it is due; say whether one was there already or was made."""
        if self.due is None or self.due > self.now:
            return False
        interval = self._model.next_dagrun_data_interval
        if interval.start in self._rows:
            self._compute(self._rows[interval.start])
            return True
        info = self._dag.timetable.next_run_info_from_dag_model(dag_model=self._model)
        assert info is not None
        run_id = self._dag.timetable.generate_run_id(
            run_type=DagRunType.SCHEDULED, run_after=info.run_after, data_interval=info.data_interval
        )
        assert run_id not in self._ids, "Airflow could not store it"
        self._ids.add(run_id)
        start, end = self.planned  # type: ignore[misc]  # it is due
        run = Run(start, end, self.due, self.now, self._computed, self.by)
        self.runs.append(run)
        self._compute(self._row(DagRunType.SCHEDULED, interval.start, interval, info.run_after, run_id))
        return True

    def trigger(self, logical_date: dt.datetime) -> DataInterval:
        """Make a run as a person does who gives it a logical date."""
        interval = self._dag.timetable.infer_manual_data_interval(run_after=logical_date)
        self._row(DagRunType.MANUAL, logical_date, interval, self.now, f"manual__{logical_date.isoformat()}")
        return interval

    def backfill(self, first: dt.datetime, last: dt.datetime) -> list[DataInterval]:
        """Make the runs of a backfill, but those whose logical date is taken, as its button does by default."""
        infos = list(self._dag.iter_dagrun_infos_between(first, last))
        made = [info for info in infos if info.data_interval and info.data_interval.start not in self._rows]
        for info in made:
            assert info.data_interval is not None
            run_id = DagRun.generate_run_id(
                run_type=DagRunType.BACKFILL_JOB, logical_date=info.data_interval.start, run_after=info.run_after
            )
            self._row(DagRunType.BACKFILL_JOB, info.data_interval.start, info.data_interval, info.run_after, run_id)
        return [DataInterval(*map(plain, info.data_interval)) for info in made if info.data_interval]

    def _row(self, kind: DagRunType, at: dt.datetime, interval: DataInterval, run_after: Any, run_id: str) -> DagRun:
        row = DagRun(
            dag_id="moved",
            run_id=run_id,
            logical_date=at,
            data_interval=interval,
            run_after=run_after,
            run_type=kind,
            state=DagRunState.QUEUED,
        )
        self._rows[at] = row
        return row

    def _compute(self, reference: DagRun | None) -> None:
        self._computed = self.now
        with (
            patch(CLOCK, lambda: self.now),
            patch("airflow.models.dag.log"),
            patch("airflow.serialization.definitions.dag.log") as log,
        ):
            self._model.calculate_dagrun_date_fields(self._dag, reference_run=reference)
        assert not log.exception.called, "Airflow logs what a timetable raises, and makes no more runs"
