"""The target's state before each step of a ``stateful`` job: what the target held, and what the job's own steps have written since.

``previous_step`` is read from the one unit of time before. ``latest_by`` is computed over the history before the first step once,
and then from what it was and what was written since, which is folded in every ``FOLD`` steps: what a step costs grows neither with
the history nor with the steps. It is kept in a local checkpoint, because Spark drops what it has cached of a table with every write
to it. A lost executor takes its part along; the job fails then, and the task's retry begins a new attempt.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Mapping

from airflow_incremental_spark.branch import Branch
from airflow_incremental_spark.conditions import in_scope
from airflow_incremental_spark.document import quote
from airflow_incremental_spark.errors import DriverError
from airflow_incremental_spark.settings import functions_of
from airflow_incremental_spark.times import EPOCH, MICROSECOND, Range, Ranges, TimeColumn

#: Steps whose rows are read anew before they are folded into what is kept.
FOLD = 16
_RANK = "__incremental_rank"
_NESTED = ("struct", "array", "map", "variant")


class StateKeeper:
    """Gives the state before each step.

    :param document: the job document; its ``steps`` ask for a state.
    """

    def __init__(self, document: Mapping[str, Any], branch: Branch) -> None:
        self._asked: Mapping[str, Any] = document["steps"]["state"]
        target = document["target"]
        time = TimeColumn.of(target)
        if time is None:
            raise DriverError("the target of a stateful job has no event time", expected="one", where="bind")
        self._time = time
        self._scope = (target.get("check") or {}).get("scope")
        self._branch = branch
        self._kept: Any = None
        #: Snapshot whose rows are folded in, and how many steps have come since.
        self._folded = branch.emptied
        self._since = 0

    def before(self, part: Range) -> Any:
        """Return the state before a step, as a DataFrame of the target's columns.

        :param part: start and end of the step; steps are asked for in order, each after the one before was written.
        """
        if self._asked["kind"] == "previous_step":
            unit = Ranges([(_before(part[0], self._asked["unit"]), part[0])], nulls=False)
            written = self._written(self._branch.emptied, unit)
            return self._in_scope(self._history(unit).union(written))
        past = Ranges([(None, part[0])], nulls=False)
        if self._kept is None:
            self._kept, self._folded = _kept(self._latest(self._in_scope(self._history(past)))), self._branch.emptied
        if self._branch.head == self._folded:
            return self._kept
        found = self._latest(self._kept.union(self._in_scope(self._written(self._folded, past))))
        self._since += 1
        if self._since < FOLD:
            return found
        self._kept, self._folded, self._since = _kept(found), self._branch.head, 0
        return self._kept

    def _written(self, start: int, past: Ranges) -> Any:
        """Return what the job itself has written since one of its snapshots."""
        return self._time.inside(self._branch.rows_since(start), past)

    def _history(self, past: Ranges) -> Any:
        """Return the target's rows that the session does not replace."""
        kept = self._time.inside(self._branch.rows_before(), past)
        return self._time.inside(kept, Ranges.read(self._asked["replaced"]).complement())

    def _in_scope(self, frame: Any) -> Any:
        return frame.where(in_scope(functions_of(frame), frame.schema, self._scope)) if self._scope else frame

    def _latest(self, frame: Any) -> Any:
        """Return of each key the row with the latest event time, of several always the same one, in whatever order they come."""
        keys: list[str] = self._asked["columns"]
        fixed = {*keys, self._time.name}
        rest = [f.name for f in frame.schema.fields if f.name not in fixed and f.dataType.typeName() not in _NESTED]
        order = ", ".join(f"{quote(c)} DESC NULLS LAST" for c in [self._time.name, *rest])
        rank = "row_number() OVER (PARTITION BY {} ORDER BY {})".format(", ".join(quote(k) for k in keys), order)
        ranked = frame.withColumn(_RANK, functions_of(frame).expr(rank))
        return ranked.where(f"{_RANK} = 1").drop(_RANK)


def _kept(frame: Any) -> Any:
    """Compute a DataFrame now, and return its rows without what they were made of."""
    try:
        return frame.localCheckpoint()
    except (AttributeError, NotImplementedError):
        return frame.persist()  # Spark Connect 3.5 knows no checkpoints: it is computed anew for every step


def _before(moment: int | None, unit: str) -> int | None:
    """Return the start of the unit of time that ends at a moment, which is the start of one."""
    if moment is None:
        return None
    last = EPOCH + (moment - 1) * MICROSECOND
    start = last.replace(minute=0, second=0, microsecond=0)
    if unit != "hour":
        start = start.replace(hour=0)
    if unit in {"month", "year"}:
        start = start.replace(day=1)
    if unit == "year":
        start = start.replace(month=1)
    return (start - EPOCH) // dt.timedelta(microseconds=1)
