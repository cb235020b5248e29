"""A job: the steps of one attempt, each of which reads its sources and writes its rows, and the mark at the end."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from threading import Thread
from typing import Any, Callable, Iterator, Mapping

from airflow_incremental_spark.branch import Branch
from airflow_incremental_spark.checks import check_keys, check_scope, check_times
from airflow_incremental_spark.conditions import in_scope
from airflow_incremental_spark.errors import DriverError, during, first_lines, report_of
from airflow_incremental_spark.output import fitted, is_frame
from airflow_incremental_spark.settings import configure, functions_of
from airflow_incremental_spark.sources import Binder, Sources
from airflow_incremental_spark.state import StateKeeper
from airflow_incremental_spark.times import Range, Ranges, TimeColumn, micros, show

#: Begins every line that a driver prints.
PREFIX = "airflow-incremental: "
#: Ranges in a condition by which rows are removed; of more, sealing the session does it.
REMOVED = 256
#: Seconds in which a failed driver has to leave its mark.
_LAST_WORDS = 60.0


class Step:
    """One part of a job.

    :param sources: a mapping of names to DataFrames, made when they are asked for.
    :param plan: the session's plan as plain values, with the ranges of this part.
    """

    def __init__(self, job: Job, part: Range | None, plan: Mapping[str, Any], sources: Sources) -> None:
        self.plan = plan
        self.sources = sources
        self._job = job
        self._ranges = None if part is None else Ranges([part], nulls=False)
        #: Rows written, None before.
        self.rows: int | None = None

    def source(self, name: str) -> Any:
        """Return the rows of a source (or of ``<source>_changes``, ``plan_ranges``, ``state``, ...) as a DataFrame."""
        return self.sources[name]

    def write(self, frame: Any) -> int:
        """Append rows to the attempt's branch, check them, and return how many they were.

        :param frame: a DataFrame of the target's columns, by name.
        :raises DriverError: the columns do not fit, or rows lie outside of what is planned.
        """
        rows = self._job._append(frame, self._ranges, first=self.rows is None)  # noqa: SLF001 - one thing in two classes
        self.rows = rows + (self.rows or 0)
        return rows


class Job:
    """One attempt at a session's load, on a driver; see :func:`airflow_incremental_spark.open_job`."""

    def __init__(self, spark: Any, document: Mapping[str, Any], branch: Branch) -> None:
        self.spark = spark
        self.document = document
        #: The session's plan, as plain values.
        self.plan: Mapping[str, Any] = document["plan"]
        self.rows = 0
        self._started = time.monotonic()
        self._branch = branch
        self._binder = Binder(spark, document)
        self._over = False
        self._whole: Step | None = None
        steps = document.get("steps")
        self._parts: list[Range | None] = [None]
        if steps is not None:
            self._parts = [(micros(a), micros(b)) for a, b in steps["parts"]]
        #: Parts of which nothing is written yet.
        self._left = len(self._parts)
        self._state = StateKeeper(document, branch) if steps is not None and steps.get("state") else None

    @classmethod
    def begin(cls, spark: Any, document: Mapping[str, Any]) -> Job:
        """Set up the session, see that the branch is this attempt's, and remove from it what the plan replaces.

        :raises DriverError: the branch is gone, or somebody wrote to it (``code`` is ``late``).
        """
        branch = Branch(spark, document)
        try:
            with during("bind"):
                configure(spark, document)
                branch.begin()
                job = cls(spark, document, branch)
            with during("write"):
                job._remove_replaced()
        except Exception as error:
            last_words(branch, error, {})
            raise
        return job

    @property
    def steps(self) -> Iterator[Step]:
        """The parts of the job in order, one for a process without steps; each is written before the next one is begun."""
        for number, part in enumerate(self._parts):
            step = self._step(part)
            yield step
            if step.rows is None:
                raise DriverError(
                    f"step {number + 1} of {len(self._parts)} was left without its rows",
                    expected="step.write(...) in every step, with a DataFrame without rows if there is none",
                    where="transform",
                )
            if len(self._parts) > 1:
                told = "" if part is None else f", up to {show(part[1])}"
                say(f"step {number + 1:,} of {len(self._parts):,} is done{told}: {step.rows:,} rows")

    @property
    def sources(self) -> Sources:
        """A mapping of names to DataFrames: what the transform reads."""
        return self._at_once().sources

    def source(self, name: str) -> Any:
        """Return the rows of a source (or of ``<source>_changes``, ``plan_ranges``, ...) as a DataFrame."""
        return self._at_once().source(name)

    def write(self, frame: Any) -> int:
        """Append rows to the attempt's branch, check them, and return how many they were; may be called more than once.

        :param frame: a DataFrame of the target's columns, by name.
        :raises DriverError: the columns do not fit, or rows lie outside of what is planned.
        """
        return self._at_once().write(frame)

    def done(self) -> None:
        """Leave the mark that everything is written; ``open_job`` does so when its block ends.

        :raises DriverError: nothing was written, or not by this job alone.
        """
        if self._over:
            return
        if self._left > 0:
            raise DriverError(
                "the application wrote nothing"
                if len(self._parts) == 1
                else f"{self._left} steps were left without their rows",
                expected="job.write(...), or step.write(...) in every step, with a DataFrame without rows if there is none",
                where="transform",
            )
        self.check_nothing_else_written("the application")
        report = {"rows": self.rows, **self._report()}
        with during("write"):
            self._branch.mark("done", json.dumps(report))
        self._over = True
        self._forget()
        say(json.dumps({"driver": "done", **report}))

    def fail(self, error: BaseException) -> None:
        """Leave the mark that the job failed, if that can be done within a minute, and say so; never raises."""
        if self._over:
            return
        self._over = True
        last_words(self._branch, error, self._report())
        _quietly(self._forget)

    def check_nothing_else_written(self, what: str) -> None:
        """Refuse what was committed to the target beside the job's own writes.

        :param what: who would have made it, for the error.
        """
        with during("write"):
            self._branch.check_nothing_else_written(what)

    def _at_once(self) -> Step:
        if len(self._parts) != 1 or self._state is not None:
            raise DriverError(
                f"the session is computed in {len(self._parts)} steps, in order, each after the one before was written",
                expected="for step in job.steps: ... step.source(...) ... step.write(...)",
                where="transform",
            )
        if self._whole is None:
            self._whole = self._step(self._parts[0])
        return self._whole

    def _step(self, part: Range | None) -> Step:
        state: Callable[[], Any] | None = None
        if self._state is not None and part is not None:
            keeper, own = self._state, part
            state = lambda: keeper.before(own)  # noqa: E731 - made when the transform asks
        ranges = None if part is None else Ranges([part], nulls=False)
        return Step(self, part, self._plan_of(part), self._binder.sources(ranges, state))

    def _plan_of(self, part: Range | None) -> Mapping[str, Any]:
        if part is None:
            return self.plan
        text = ["{}/{}".format(show(part[0]) or "0001-01-01T00:00:00Z", show(part[1]) or "9999-12-31T23:59:59.999999Z")]
        return dict(self.plan, replaced=text, affected=text)

    def _append(self, frame: Any, part: Ranges | None, *, first: bool) -> int:
        if not is_frame(frame):
            raise DriverError(
                f"write() got {type(frame).__module__}.{type(frame).__qualname__}",
                expected="a Spark DataFrame",
                where="transform",
            )
        with during("write"):
            before = self._branch.head
            written = self._branch.append(fitted(frame, self.spark.table(self._branch.path).schema))
            self.rows += written
            self._left -= first
            if written:
                self._check(self._branch.rows_since(before), part)
        return written

    def _check(self, rows: Any, part: Ranges | None) -> None:
        asked = self.document["target"].get("check") or {}
        column = TimeColumn.of(self.document["target"])
        ranges = part
        if ranges is None and asked.get("ranges") is not None:
            ranges = Ranges.read(asked["ranges"])
        if column is not None and ranges is not None:
            check_times(rows, column, ranges)
        if asked.get("scope"):
            check_scope(rows, asked["scope"])
        keys = self._binder.find_keys() if asked.get("keys") else None
        if keys is not None:
            check_keys(rows, keys)

    def _remove_replaced(self) -> None:
        replace = self.document["target"].get("replace")
        if replace is None:
            return
        ranges = Ranges.read(replace["ranges"])
        column = TimeColumn.of(self.document["target"])
        if len(ranges.ranges) > REMOVED or (column is None and not ranges.everything):
            return
        functions = functions_of(self.spark)
        times = functions.lit(True) if column is None else functions.expr(column.condition(ranges))  # noqa: FBT003
        schema = self.spark.table(self._branch.path).schema
        condition = times & in_scope(functions, schema, replace["scope"]) if replace.get("scope") else times
        if not self._branch.empty(condition):
            say("files of the target hold rows outside of what is replaced as well; sealing the session rewrites them")

    def _report(self) -> dict[str, Any]:
        seconds = round(time.monotonic() - self._started, 1)
        return {
            "seconds": seconds,
            "spark": self.spark.version,
            "application": self.spark.conf.get("spark.app.id", None),
        }

    def _forget(self) -> None:
        if self._binder.keys is not None:
            self._binder.keys.forget()


@contextmanager
def finished(job: Job) -> Iterator[Job]:
    """Mark a job ``done`` when the block ends, or ``failed`` when it raises, and let the error pass."""
    try:
        yield job
        job.done()
    except BaseException as error:
        job.fail(error)
        raise


def say(text: str) -> None:
    """Print a line of the driver's log, where spark-submit and the cluster's own tools look for it."""
    print(PREFIX + text, flush=True)


def say_failed(error: BaseException, more: Mapping[str, Any]) -> str:
    """Print the line by which a worker finds out why a driver failed, and return the report in it."""
    report = {**report_of(error), **more}
    say(json.dumps({"driver": "failed", **report}))
    return json.dumps(report)


def last_words(branch: Branch, error: BaseException, more: Mapping[str, Any]) -> None:
    """Say why a job failed, and leave that on its branch if it can be done within a minute; never raises."""
    report = say_failed(error, more)
    if getattr(error, "code", "") == "late":
        return  # the branch is not its own
    # In a thread: Spark may wait for a catalog that does not answer, far longer than anybody waits for the reason.
    mark = Thread(target=_quietly, args=(branch.mark, "failed", report), daemon=True)
    mark.start()
    mark.join(_LAST_WORDS)


def _quietly(function: Callable[..., None], *arguments: Any) -> None:
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001 - the first error is the one that counts
        say(f"and then, {type(error).__name__}: {first_lines(error).splitlines()[0]}")
