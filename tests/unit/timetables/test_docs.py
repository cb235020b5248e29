"""What docs/timetable.md says happens."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag

from airflow_incremental import CatchUpTimetable
from tests.support.scheduling import UTC, Scheduler

PAGE = (Path(__file__).parents[3] / "docs" / "timetable.md").read_text(encoding="utf-8")
HOUR = dt.timedelta(hours=1)


def test_the_dags_on_the_page_are_imported(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "page.py").write_text(code)
    bag = DagBag(str(tmp_path), bundle_path=tmp_path, bundle_name="page")
    assert not bag.import_errors
    hourly, as_they_come = (bag.dags[name].timetable for name in ("hourly_orders", "orders_as_they_come"))
    assert hourly == CatchUpTimetable("@hourly", lag=900)
    assert as_they_come.timetable == CatchUpTimetable("0 */6 * * *")


def outage(**settings: int) -> list[list[str]]:
    """Return the runs of the drawn day: interval, due and made."""
    day = dt.datetime(2024, 3, 10, tzinfo=UTC)
    airflow = Scheduler(day + 9.25 * HOUR)
    timetable = CatchUpTimetable("@hourly", lag=900, **settings)
    airflow.parse(None, schedule=timetable, start_date=None, catchup=False)
    for hour in (9.25, 10.25, 14.5, 15.25, 16.25):
        airflow.now = day + hour * HOUR
        while airflow.loop():
            pass
    return [[f"{time:%H:%M}" for time in (run.start, run.end, run.run_after, run.created)] for run in airflow.runs]


def test_the_outage_is_as_drawn() -> None:
    rows = re.findall(r"^\| \d \| ([\d:]+) \S ([\d:]+) \| ([\d:]+) \| ([\d:]+) \|$", PAGE, re.MULTILINE)
    assert outage() == [list(row) for row in rows]
    assert len(rows) == 6


def test_max_interval_would_make_two_of_the_long_one() -> None:
    assert "With `max_interval=timedelta(hours=2)` run 4 would be two" in PAGE
    intervals = [run[:2] for run in outage(max_interval=7_200)]
    assert intervals[3:5] == [["11:00", "13:00"], ["13:00", "14:00"]]
    assert len(intervals) == 7
