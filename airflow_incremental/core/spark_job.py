"""What a worker asks of a Spark application, and what it finds of it afterwards: the job document, and the marker of its end.

The worker plans, and writes down as JSON what is to be read, run and written: the job. The application reads it, runs the
transform and commits to the branch it was given; its last commit there is empty and says how it ended. That is all either knows
of the other.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import attrs

from airflow_incremental.core.ranges import MAX_TIME, MIN_TIME, EventRanges

#: Version of the document; a driver refuses one it does not know.
JOB_VERSION = 1
#: Key of the summary of the last snapshot of an attempt's branch: how the application ended, ``DONE`` or ``FAILED``.
DRIVER = "incremental.driver"
#: Key beside it: what there is to say about it, as JSON (rows written, seconds, versions; or the error).
DRIVER_REPORT = "incremental.driver-report"
DONE = "done"
FAILED = "failed"
#: In the report of an application that failed, under ``code``: a snapshot or file that it had to read is gone.
EXPIRED = "expired"
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


@runtime_checkable
class RejoiningRunner(SparkRunner, Protocol):
    """One that can find an application again which an earlier try has started."""

    def rejoin(self, branch: str) -> bool:
        """Wait for the application that an earlier try of this very transform has started, as long as it runs.

        :param branch: that it writes to.
        :returns: whether there is one, and it ended well.
        """


@attrs.frozen(kw_only=True)
class SparkRead:
    """Rows of a source as Spark can read them: of a snapshot, or those that a run of append snapshots added.

    A read of a snapshot applies its row-level deletes and has the columns the table had then; a read of appends applies none, and
    has the columns the table has now.
    """

    #: Either this, the snapshot that is read, or ``start`` (exclusive) and ``end`` (inclusive) of a run of append snapshots.
    snapshot: int | None = None
    start: int | None = None
    end: int | None = None
    #: Only rows of these data files, or without those of some; at most one of the two.
    files: tuple[str, ...] | None = None
    not_files: tuple[str, ...] | None = None
    #: Only rows with these event times, and without those with some. Where the files are given, the first only tells where to look.
    keep: EventRanges | None = None
    drop: EventRanges | None = None
    #: Name of a column where it is read -> its name at the pinned snapshot, in the order there; a column that is missing is null.
    columns: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        where = {"snapshot": self.snapshot} if self.start is None else {"start": self.start, "end": self.end}
        return {
            **where,
            "files": None if self.files is None else list(self.files),
            "not_files": None if self.not_files is None else list(self.not_files),
            "keep": None if self.keep is None else ranges_as_job(self.keep),
            "drop": None if self.drop is None else ranges_as_job(self.drop),
            "columns": dict(self.columns),
        }


def ranges_as_job(ranges: EventRanges) -> dict[str, Any]:
    """Return event times as the document has them: half-open, UTC, open ends as null."""
    return {"ranges": [[_end(r.start), _end(r.end)] for r in ranges.ranges], "nulls": ranges.nulls}


def _end(moment: dt.datetime) -> str | None:
    return None if moment in (MIN_TIME, MAX_TIME) else moment.isoformat()
