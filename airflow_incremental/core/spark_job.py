"""What a worker asks of a Spark application, and what it finds of it afterwards: the job document, and the marker of its end.

The worker plans, and writes down as JSON what is to be read, run and written: the job. The application reads it, runs the
transform and commits to the branch it was given; its last commit there is empty and says how it ended. That is all either knows
of the other.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from airflow_incremental.core.ranges import MAX_TIME, MIN_TIME, EventRanges

#: Version of the document; a driver refuses one it does not know.
JOB_VERSION = 1
#: Key of the summary of the last snapshot of an attempt's branch: how the application ended, ``DONE`` or ``FAILED``.
DRIVER = "incremental.driver"
#: Key beside it: what there is to say about it, as JSON (rows written, seconds, versions; or the error).
DRIVER_REPORT = "incremental.driver-report"
DONE = "done"
FAILED = "failed"
#: Conf of the Spark session that times and casts depend on; set at run time, whatever the cluster says.
SESSION_CONF: Mapping[str, str] = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "true"}


@runtime_checkable
class SparkRunner(Protocol):
    """A transform that runs on Spark: how its application is started, and what the job says of it and of the catalog."""

    @property
    def catalog(self) -> Mapping[str, Any]:
        """Name of the catalog in Spark, and its conf without the prefix ``spark.sql.catalog.<name>.``; it may hold secrets."""

    @property
    def transform(self) -> Mapping[str, Any]:
        """What is run: ``kind`` (``sql``, ``function`` or ``application``), and what belongs to it."""

    @property
    def fingerprint(self) -> str:
        """A digest of the rendered transform: a retry after it was corrected does the load again."""

    def run(self, job: Mapping[str, Any]) -> None:
        """Run a job and return when its application has ended, well or not.

        :raises TransformError: it could not be started, or ended with an error; the driver's own comes first in its text.
        """


def ranges_as_job(ranges: EventRanges) -> dict[str, Any]:
    """Return event times as the document has them: half-open, UTC, open ends as null."""
    return {"ranges": [[_end(r.start), _end(r.end)] for r in ranges.ranges], "nulls": ranges.nulls}


def _end(moment: dt.datetime) -> str | None:
    return None if moment in (MIN_TIME, MAX_TIME) else moment.isoformat()
