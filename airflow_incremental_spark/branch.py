"""The attempt's branch of the target: written only while its head is what this driver left there, and marked when it is over.

Spark cannot make a commit depend on a branch's head, so each attempt has a branch of its own, which nobody else writes and which
the next attempt drops. Iceberg refuses to write to a branch that does not exist: ``Cannot use branch (does not exist)``.
"""

from __future__ import annotations

from typing import Any, Mapping

from airflow_incremental_spark.document import identifier
from airflow_incremental_spark.errors import DriverError
from airflow_incremental_spark.reads import snapshot_of, under
from airflow_incremental_spark.settings import ATTEMPT, functions_of, is_connect

#: Summary keys of the last snapshot that a driver leaves: ``done`` or ``failed``, and its report.
DRIVER = "incremental.driver"
REPORT = "incremental.driver-report"

_PROPERTY = "snapshot-property."
_STRADDLES = "some, but not all, rows match filter"


class Branch:
    """The target as one attempt writes it.

    :param document: the job document.
    """

    def __init__(self, spark: Any, document: Mapping[str, Any]) -> None:
        target = document["target"]
        self.spark = spark
        self.name: str = target["branch"]
        self.table: str = target["table"]
        self._catalog: str = document["catalog"]["name"]
        self.path = self._path("branch_" + self.name)
        self._base: int = target["base"]
        #: Head of the branch as this driver knows it.
        self.head: int = target["base"]
        #: Snapshots this driver committed, oldest first.
        self.own: list[int] = []
        #: Snapshots that were there before, whoever made them.
        self._before: frozenset[int] = frozenset()
        #: Where its rows begin: the snapshot before the first append.
        self.emptied: int = target["base"]

    def begin(self) -> None:
        """See that the branch is as it was made, and note what else there is.

        :raises DriverError: it is not (``code`` is ``late``).
        """
        self.check()
        self._before = frozenset(row["snapshot_id"] for row in self._snapshots().select("snapshot_id").collect())

    def check(self) -> None:
        """Refuse to go on when the branch is gone or holds what this driver did not write.

        :raises DriverError: so it is (``code`` is ``late``).
        """
        heads = {row["name"]: row["snapshot_id"] for row in self.spark.table(self._path("refs")).collect()}
        if self.name not in heads:
            raise DriverError(
                f"the branch {self.name!r} of {self.table} is gone",
                expected="the branch that was made for this attempt",
                hint="nothing: a later attempt took over, or the session is over; what this driver computed is not needed",
                where="write",
                code="late",
            )
        if heads[self.name] != self.head:
            raise DriverError(
                f"the branch {self.name!r} of {self.table} is at snapshot {heads[self.name]}, which this driver did not write",
                expected=f"snapshot {self.head}",
                hint="return the rows and write nothing else in the transform; and let a cluster start the driver of a job once "
                "(spark.yarn.maxAppAttempts=1): the task's own retries make a branch anew",
                where="write",
                code="late",
            )

    def empty(self, condition: Any) -> bool:
        """Remove the rows that a condition holds for, by whole files; False, and nothing removed, if files hold others as well.

        Where they do, sealing the session takes the rows out of them.

        :param condition: a column.
        """
        self.check()
        nothing = self.spark.table(self.path).limit(0)
        try:
            # By expression: overwriting the partitions of the output would leave those that get no row.
            nothing.writeTo(self.path).overwrite(condition)
        except Exception as error:
            if _STRADDLES not in str(error):
                raise
            return False
        self._committed()
        self.emptied = self.head
        return True

    def append(self, frame: Any) -> int:
        """Append rows, as one snapshot, and return how many they were."""
        self.check()
        frame.writeTo(self.path).append()
        return int(self._committed().get("added-records", 0))

    def mark(self, what: str, report: str) -> None:
        """Leave an empty snapshot that says how the driver ended: ``done`` or ``failed``.

        An append without rows makes a snapshot, with its properties, on Spark 3.5, 4.0 and 4.1 (measured).
        """
        self.check()
        writer = self.spark.table(self.path).limit(0).writeTo(self.path)
        writer.option(_PROPERTY + DRIVER, what).option(_PROPERTY + REPORT, report).append()

    def rows_since(self, start: int) -> Any:
        """Return the rows that this driver appended after one of its snapshots, under the target's columns of today."""
        if start == self.head:
            return self.spark.table(self.path).limit(0)
        options = {"start-snapshot-id": str(start), "end-snapshot-id": str(self.head)}
        return self.spark.read.options(**options).table(self._path())

    def rows_before(self) -> Any:
        """Return the rows that the target had when the branch was made, under its columns of today."""
        frame, schema = snapshot_of(self.spark, self._path(), self._base), self.spark.table(self.path).schema
        return under(frame, schema, {c: c for c in frame.columns if c in schema.names})

    def check_nothing_else_written(self, what: str) -> None:
        """Refuse commits to the target that this application made beside the branch.

        Told by a property that the session's commits carry (Iceberg for Spark 4.0 and later), or by the application's id, which
        under Spark Connect belongs to others as well and is not looked at.

        :param what: who would have made them.
        :raises DriverError: there are some, or the branch is not as this driver left it.
        """
        self.check()
        said = functions_of(self.spark).col("summary").getItem
        application = None if is_connect(self.spark) else self.spark.conf.get("spark.app.id", None)
        ours = said(ATTEMPT) == self.name
        if application:
            ours = ours | (said("spark.app.id") == application)
        # Found by Spark: summaries are long (begin records hold plans), and steps of a function come here one by one.
        for row in self._snapshots().where(ours).select("snapshot_id", "operation").collect():
            if row["snapshot_id"] not in self._before.union(self.own):
                raise DriverError(
                    f"{what} committed snapshot {row['snapshot_id']} ({row['operation']}) to {self.table} itself",
                    expected="rows that are returned: what is published has been audited before",
                    hint="take the writing out of the transform; if that snapshot is on main, undo it (rollback_to_snapshot)",
                    where="transform",
                )

    def _committed(self) -> dict[str, str]:
        """Take in the snapshot that was just committed, and return its summary.

        :raises DriverError: it does not follow what this driver left there.
        """
        before, functions = self.head, functions_of(self.spark)
        found = self.spark.table(self._path("refs")).where(functions.col("name") == self.name).collect()
        if not found:
            self.check()
        head: int = found[0]["snapshot_id"]
        row = self._snapshots().where(functions.col("snapshot_id") == head).collect()[0]
        if row["parent_id"] != before:
            raise DriverError(
                f"somebody else wrote to the branch {self.name!r} of {self.table}: snapshot {head} follows {row['parent_id']}",
                expected=f"snapshot {before}, which this driver left there, before it",
                hint="retry the task: it makes a branch anew",
                where="write",
                code="late",
            )
        self.head = head
        self.own.append(head)
        return dict(row["summary"] or {})

    def _snapshots(self) -> Any:
        return self.spark.table(self._path("snapshots")).select("snapshot_id", "parent_id", "operation", "summary")

    def _path(self, *more: str) -> str:
        return identifier(self._catalog, self.table, *more)
