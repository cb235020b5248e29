"""Steps that wait for signals: what they wait for, what released them, and who let them go without it.

A wait is one step until it is cleared: all tries of it share the wait, so a try that was killed after its release finds it.
Every change of state is a compare-and-set from the state that was seen.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

import attrs
from sqlalchemy import Connection, insert, select, update

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signals import RESERVED, Emitter, Signal, SignalDependency
from airflow_incremental.store.database import Store
from airflow_incremental.store.dialects import insert_or_leave
from airflow_incremental.store.emitting import Emission, emit_on
from airflow_incremental.store.reading import signals_at
from airflow_incremental.store.schema import signal_name, wait, wait_signal

WaitState = Literal["open", "released", "bypassed", "timed_out", "canceled"]

#: Signals by which whoever polls hears that a wait was bypassed.
BYPASS = f"{RESERVED}bypass"
#: Of who bypasses a wait, and of why, in characters.
_BY_LIMIT, _REASON_LIMIT = 512, 4_000


@attrs.frozen(kw_only=True)
class Wait:
    """A step that waits, or waited.

    :param dependencies: what it waits for, in the plain form.
    :param gives_up_at: when its time is over, at the latest. A step that still waits then is gone, with its run or a clear of it.
    :param closed_by: of a bypass: who.
    :param reason: of a bypass: why.
    """

    id: str
    state: WaitState
    dependencies: Sequence[Any]
    opened_at: dt.datetime
    gives_up_at: dt.datetime | None
    closed_at: dt.datetime | None
    closed_by: str | None
    reason: str | None
    task: Emitter


def wait_id(task: Emitter, *, max_tries: int) -> str:
    """Return the id of a task's wait.

    :param max_tries: the last of the tries that Airflow grants the task: it grants more when the task is cleared. (A run's clear
        number will not do: it counts the clears of other tasks, too, and would turn a step away from the wait that it is in.)
    """
    whose = [task.deployment, task.dag_id, task.run_id, task.task_id, task.map_index, max_tries]
    return hashlib.sha256(json.dumps(whose).encode()).hexdigest()[:32]


def open_wait(
    store: Store, identity: str, dependencies: Sequence[SignalDependency], task: Emitter, *, timeout: dt.timedelta
) -> Wait:
    """Open a wait, or find it as an earlier try left it; one that was given up is open again.

    What the same task waited for before its run was cleared is over with that: nothing looks for it any more.

    :param timeout: how long the step waits from now on, at most.
    """
    plain, now = [dependency.to_json() for dependency in dependencies], dt.datetime.now(UTC)
    gives_up_at = now + min(timeout, dt.datetime.max.replace(tzinfo=UTC) - now)

    def work(conn: Connection) -> Wait:
        row = {
            "id": identity,
            "dependencies": plain,
            "state": "open",
            "opened_at": now,
            **_task_columns(task),
        }
        conn.execute(insert_or_leave(conn, wait).values(row))
        # The DAG may have been changed between two tries.
        waiting = wait.c.state.in_(("open", "timed_out", "canceled"))
        conn.execute(
            update(wait)
            .where(wait.c.id == identity, waiting)
            .values(state="open", closed_at=None, dependencies=plain, gives_up_at=gives_up_at)
        )
        found = find_wait(conn, identity)
        same_task = [wait.c[name] == value for name, value in _task_columns(task).items() if name != "try_number"]
        before = [wait.c.id != identity, wait.c.opened_at < found.opened_at, wait.c.state == "open"]
        conn.execute(update(wait).where(*same_task, *before).values(state="canceled", closed_at=now))
        return found

    return store.writing(work)


def release(store: Store, identity: str, signals: Sequence[Signal]) -> Wait:
    """Say that signals released a wait, unless it has ended already; return it as it is then.

    It stays open if one of the signals has been cleaned away since it was found.
    """

    def work(conn: Connection) -> Wait:
        rows = conn.execute(select(signal_name).where(signal_name.c.name.in_({s.name for s in signals})))
        ids = {row.name: row.id for row in rows}
        places = [(ids[s.name], s.seq) for s in signals]
        if len(signals_at(conn, places)) == len(set(places)) and _close(conn, identity, "released"):
            conn.execute(
                insert(wait_signal),
                [
                    {"wait_id": identity, "position": n, "name_id": name_id, "seq": seq}
                    for n, (name_id, seq) in enumerate(places)
                ],
            )
        return find_wait(conn, identity)

    return store.writing(work)


def close_wait(store: Store, identity: str, state: WaitState) -> Wait:
    """End an open wait without a signal; return it as it is then."""

    def work(conn: Connection) -> Wait:
        _close(conn, identity, state)
        return find_wait(conn, identity)

    return store.writing(work)


def bypass(store: Store, identity: str, *, by: str, reason: str) -> Wait:
    """Let a waiting step go on without its signals, on somebody's word.

    :raises ArgumentError: there is no such wait, or it is over.
    """
    for what, text, limit in (("author", by, _BY_LIMIT), ("reason", reason, _REASON_LIMIT)):
        # What a terminal hands over that is no text is halves of surrogate pairs, which no database takes.
        if not text.strip() or len(text) > limit or "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise ArgumentError(
                f"the {what} of a bypass is {text[:80]!r}, of {len(text)} characters",
                expected=f"who does it, and why, for whoever asks later, in 1 to {limit:,} characters of text",
            )

    def work(conn: Connection) -> Wait:
        if not _close(conn, identity, "bypassed", closed_by=by, reason=reason):
            found = find_wait(conn, identity)
            if (found.state, found.closed_by, found.reason) == ("bypassed", by, reason):
                return found  # by this very call, whose first commit was not answered
            raise ArgumentError(
                f"wait {identity} is {found.state}", expected="an open wait", hint="nothing waits for it any more"
            )
        said = Emission.read(
            BYPASS, {"wait": identity}, {"by": by, "reason": reason}, emitter=Emitter(source="bypass"), reserved=True
        )
        emit_on(conn, said)
        return find_wait(conn, identity)

    return store.writing(work)


def find_wait(conn: Connection, identity: str) -> Wait:
    """Return a wait.

    :raises ArgumentError: there is none.
    """
    found = find_waits(conn, identity=identity)
    if not found:
        raise ArgumentError(
            f"there is no wait {identity}", expected="an id that 'airflow-incremental signals waits' shows"
        )
    return found[0]


def find_waits(
    conn: Connection,
    *,
    identity: str | None = None,
    state: str | None = None,
    dag_id: str | None = None,
    run_id: str | None = None,
    task_id: str | None = None,
    map_index: int | None = None,
    limit: int = 1000,
) -> list[Wait]:
    """Return waits, newest first, narrowed by what is given."""
    task = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    given = {"id": identity, "state": state, **task}
    conditions = [wait.c[name] == value for name, value in given.items() if value is not None]
    rows = conn.execute(
        select(wait).where(*conditions).order_by(wait.c.opened_at.desc(), wait.c.id).limit(limit)
    ).mappings()
    return [
        Wait(
            id=row["id"],
            state=row["state"],
            dependencies=row["dependencies"],
            opened_at=row["opened_at"],
            gives_up_at=row["gives_up_at"],
            closed_at=row["closed_at"],
            closed_by=row["closed_by"],
            reason=row["reason"],
            task=Emitter(source="task", **{name: row[name] for name in _TASK}),
        )
        for row in rows
    ]


def signals_of_wait(conn: Connection, identity: str) -> list[Signal]:
    """Return the signals that released a wait, in the order of its dependencies; none if it has not been."""
    query = select(wait_signal.c.name_id, wait_signal.c.seq).where(wait_signal.c.wait_id == identity)
    places = [(row.name_id, row.seq) for row in conn.execute(query.order_by(wait_signal.c.position))]
    read = signals_at(conn, places)
    return [read[place] for place in places]


_TASK = ("deployment", "dag_id", "run_id", "task_id", "map_index", "try_number")


def _task_columns(task: Emitter) -> dict[str, Any]:
    return {name: getattr(task, name) for name in _TASK}


def _close(conn: Connection, identity: str, state: WaitState, **more: Any) -> bool:
    """Close an open wait, and say whether this very call did."""
    change = update(wait).where(wait.c.id == identity, wait.c.state == "open")
    return conn.execute(change.values(state=state, closed_at=dt.datetime.now(UTC), **more)).rowcount == 1
