"""The branches that Spark applications of a session write to: one for each attempt, of which only the latest counts.

Spark cannot assert what a branch points at when it commits, so an application that was given up and wakes up late still commits. It
does so to the branch of its own attempt, which is dropped when the next attempt begins: what it makes of it again, nobody takes.
Attempts count from 1; number 0 is the scratch branch of the worker itself and of the author's own tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import AssertRefSnapshotId, SetSnapshotRefUpdate, TableRequirement

from airflow_incremental.core.errors import TargetChanged
from airflow_incremental.core.spark_job import DRIVER, DRIVER_REPORT
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.commits import Change, commit
from airflow_incremental.iceberg.locks import Begin, check_owned
from airflow_incremental.iceberg.refs import removal
from airflow_incremental.iceberg.scratch import fork_expired
from airflow_incremental.iceberg.state import words_of

if TYPE_CHECKING:
    from airflow_incremental.core.plan import Plan


@attrs.frozen(kw_only=True)
class Attempt:
    """One run of a session's application: its number, and the branch that it may write to."""

    number: int
    branch: str


@attrs.frozen(kw_only=True)
class AttemptEnd:
    """How an application says that it ended."""

    #: ``done`` or ``failed``.
    outcome: str
    #: What it says about it: rows, seconds, versions; or its error.
    report: Mapping[str, Any]


def begin_attempt(catalog: Catalog, begin: Begin) -> Attempt:
    """Fork a new attempt's branch from where the session was planned, and drop those of earlier attempts, in one commit.

    :raises SessionSuperseded: the session does not hold the lock any more.
    :raises TargetChanged: the snapshot it was planned on is gone.
    """
    plan = begin.plan
    made: Attempt | None = None

    def build(table: Table) -> Change | None:
        nonlocal made
        check_owned(table, begin)
        found = attempts(table, plan)
        if made is not None and found and found[-1] == made:
            return None  # the answer to the commit was lost
        if plan.main not in snapshot_index(table):
            raise fork_expired(plan)
        number = found[-1].number + 1 if found else 1
        made = Attempt(number=number, branch=naming.scratch_ref(plan.process, plan.session, attempt=number))
        requirements: list[TableRequirement] = [
            AssertRefSnapshotId(ref=naming.lock_ref(plan.process), snapshot_id=begin.snapshot_id),
            AssertRefSnapshotId(ref=made.branch, snapshot_id=None),
            # An application that commits right now makes this commit look again, so that what it wrote goes as well.
            *(AssertRefSnapshotId(ref=a.branch, snapshot_id=table.metadata.refs[a.branch].snapshot_id) for a in found),
        ]
        return Change(
            updates=(
                *removal(table, [a.branch for a in found], fork=plan.main),
                SetSnapshotRefUpdate(ref_name=made.branch, type=SnapshotRefType.BRANCH, snapshot_id=plan.main),
            ),
            requirements=tuple(requirements),
        )

    table = commit(catalog, plan.target, build, what=f"a new attempt of session {plan.session}")
    found = attempts(table, plan)
    if made is None or not found or found[-1] != made:
        # Somebody ended the session, or began another attempt, between the commit and this look at it.
        check_owned(table, begin)
        raise TargetChanged(
            f"the branch of the new attempt of session {plan.session} is gone from {plan.target}",
            expected="that only the session moves or drops its branches",
            hint="retry the task",
        )
    return made


def attempts(table: Table, plan: Plan) -> list[Attempt]:
    """Return the attempts of a session whose branches exist, the latest last."""
    found = (
        Attempt(number=number, branch=name)
        for name in table.metadata.refs
        if (number := naming.attempt_of_ref(name, plan.process, plan.session))
    )
    return sorted(found, key=lambda a: a.number)


def end_of(table: Table, attempt: Attempt) -> AttemptEnd | None:
    """Return how the application of an attempt ended, as its last commit says; None if its last commit does not say it."""
    ref = table.metadata.refs.get(attempt.branch)
    snapshot = None if ref is None else snapshot_index(table).get(ref.snapshot_id)
    words = {} if snapshot is None else words_of(snapshot)
    if DRIVER not in words:
        return None
    return AttemptEnd(outcome=words[DRIVER], report=_report(words.get(DRIVER_REPORT, "")))


def _report(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}
