"""The values of a group's session, as references that other tasks' arguments can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_incremental.compat import XComArg
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.operators.load import IncrementalLoadOperator
from airflow_incremental.operators.reports import SESSION_VALUES


class SessionValues(Mapping[str, XComArg]):
    """What the plan of a group's session says, as references: ``load.session["branch"]``.

    A reference stands for the value in the run and makes whoever uses it wait for the plan. It can be an argument of a ``@task``
    function or stand in a templated field. All values are None in a run that finds nothing to do.

    ============== =====================================================================
    session        id of the session
    process        name of the process
    target         identifier of the target
    branch         branch of the target that own writes go to
    kind           ``load``, ``reload`` or ``restatement``
    reason         why there is a session, in a sentence
    ranges         event times to compute: a list of ``start/end``, half-open, UTC; ``null`` stands for rows without event time
    range_start    start of the first range, or None
    range_end      end of the last range (exclusive), or None
    late_ranges    the part of the ranges below what was already complete
    snapshots      source name -> snapshot id to read
    base_snapshots source name -> snapshot id consumed before, or None
    complete_through  event time up to which the target will be complete, or None
    ============== =====================================================================
    """

    def __init__(self, plan: IncrementalLoadOperator) -> None:
        self._plan = plan

    def __getitem__(self, key: str) -> Any:
        """Return the reference to one value.

        :raises ArgumentError: there is no such value.
        """
        if key not in SESSION_VALUES:
            raise ArgumentError(
                f"session[{key!r}] of {self._plan.group_name!r} does not exist",
                expected=f"one of {', '.join(SESSION_VALUES)}",
            )
        # Only what is referred to is pushed: each value is a call to Airflow's API.
        self._plan.session_keys.add(key)
        return XComArg(self._plan, key=key)

    def __iter__(self) -> Iterator[str]:
        return iter(SESSION_VALUES)

    def __len__(self) -> int:
        return len(SESSION_VALUES)

    def __contains__(self, key: object) -> bool:
        return key in SESSION_VALUES
