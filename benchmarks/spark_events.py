"""What a Spark application says of itself: its event log, read for where the time went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

#: Conf that makes an application write its log as one readable file into a folder that is there.
CONF = {
    "spark.eventLog.enabled": "true",
    "spark.eventLog.compress": "false",
    "spark.eventLog.rolling.enabled": "false",
}


@attrs.frozen(kw_only=True)
class Application:
    """One application, in seconds; moments are since 1970.

    :param began: moment at which its context was made: the JVM and Python run, and jars are there.
    :param ended: moment at which it was stopped.
    :param jobs: in which at least one job ran.
    :param tasks: that tasks took on executors, added up.
    """

    began: float
    ended: float
    jobs: float
    tasks: float

    @property
    def driver(self) -> float:
        """Seconds in which the driver was busy by itself: making the session, planning, talking to the catalog."""
        return self.ended - self.began - self.jobs


def read_application(folder: Path) -> Application:
    """Read the log of the only application that wrote to a folder."""
    (path,) = folder.iterdir()
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    ends = {e["Job ID"]: e["Completion Time"] for e in _of(events, "JobEnd")}
    jobs = [(e["Submission Time"], ends[e["Job ID"]]) for e in _of(events, "JobStart")]
    ((began,), (ended,)) = ([e["Timestamp"] for e in _of(events, f"Application{end}")] for end in ("Start", "End"))
    tasks = [e["Task Metrics"]["Executor Run Time"] for e in _of(events, "TaskEnd") if e.get("Task Metrics")]
    return Application(began=began / 1000, ended=ended / 1000, jobs=_covered(jobs) / 1000, tasks=sum(tasks) / 1000)


def _of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [e for e in events if e["Event"] == f"SparkListener{name}"]


def _covered(spans: list[tuple[int, int]]) -> int:
    """Return the length of what spans cover together."""
    found, reached = 0, 0
    for start, end in sorted(spans):
        found += max(0, end - max(start, reached))
        reached = max(reached, end)
    return found
