"""Lineage: from a signal to the tasks it released and the runs it started, to what those emitted, and back.

A step of the way is a run: a wait's or a match's signals lead to the run that waited or claimed, and from there to all signals of
that run. (Which task of a run used what another one waited for is the DAG's own affair.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import attrs
from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, exists, select

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signals import Emitter, Signal
from airflow_incremental.store.reading import read_emitter, read_signal, select_signals
from airflow_incremental.store.schema import match, match_signal, signal, signal_name, subscription, wait, wait_signal

Direction = Literal["down", "up"]


@attrs.frozen(kw_only=True)
class Step:
    """A signal, or a task that signals released or started.

    :param kind: ``signal``, ``wait`` (a task they released) or ``match`` (a run they started).
    :param title: what it is, for people.
    :param task: who emitted, waited or claimed; None for a match that nobody claimed yet.
    :param next: what it led to, or, upwards, what led to it.
    :param cut: whether there may be more: a limit was reached, or it is shown in full elsewhere in the tree.
    """

    kind: Literal["signal", "wait", "match"]
    title: str
    task: Emitter | None
    next: tuple[Step, ...] = ()
    cut: bool = False

    def describe(self, indent: int = 0) -> Iterator[str]:
        """Return lines for people, indented by the way from the start."""
        where = f", {self.task.dag_id} {self.task.run_id} {self.task.task_id}" if self.task and self.task.run_id else ""
        yield f"{'  ' * indent}{self.kind} {self.title}{where}{' ...' if self.cut else ''}"
        for step in self.next:
            yield from step.describe(indent + 1)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "kind": self.kind,
            "title": self.title,
            "task": attrs.asdict(self.task) if self.task else None,
            "cut": self.cut,
            "next": [step.to_json() for step in self.next],
        }


def lineage(
    conn: Connection, name: str, seq: int, *, direction: Direction = "down", depth: int = 10, limit: int = 500
) -> Step:
    """Return what a signal led to (``down``) or came from (``up``).

    :param depth: hops from signal to signal.
    :param limit: steps of the tree.
    :raises ArgumentError: there is no such signal, or a limit is below 1.
    """
    if depth < 1 or limit < 1:
        raise ArgumentError(f"lineage is limited to depth {depth}, {limit} steps", expected="at least 1 of each")
    row = conn.execute(select_signals().where(signal_name.c.name == name, signal.c.seq == seq)).one_or_none()
    if row is None:
        raise ArgumentError(f"there is no signal {name!r} {seq}", expected="one that was emitted and not cleaned away")
    return _Walk(conn, direction, limit).signal(read_signal(row), row.name_id, depth)


class _Walk:
    """One way through the store; counts its steps and remembers which signals it was at."""

    def __init__(self, conn: Connection, direction: Direction, limit: int) -> None:
        self._conn = conn
        self._direction = direction
        self._left = limit
        self._seen: set[tuple[int, int]] = set()

    def signal(self, found: Signal, name_id: int, depth: int) -> Step:
        self._left -= 1
        params = ", ".join(f"{key}={value}" for key, value in found.params.items())
        title = f"{found.name} {found.seq}" + (f" ({params})" if params else "")
        key = (name_id, found.seq)
        if key in self._seen or depth == 0:
            return Step(kind="signal", title=title, task=found.emitter, cut=True)
        self._seen.add(key)
        steps, cut = [], False
        for kind, row in self._around(found, key):
            if self._left <= 0:
                cut = True
                break
            steps.append(self._task(kind, row, depth))
        return Step(kind="signal", title=title, task=found.emitter, next=tuple(steps), cut=cut)

    def _task(self, kind: Literal["wait", "match"], row: Row[Any], depth: int) -> Step:
        self._left -= 1
        task = read_emitter(row) if row.run_id else None
        title = f"{row.id} {row.state}" if kind == "wait" else f"{row.subscription} {row.number}"
        steps, cut = [], False
        for other in self._signals(kind, row):
            if self._left <= 0:
                cut = True
                break
            steps.append(self.signal(read_signal(other), other.name_id, depth - 1))
        return Step(kind=kind, title=title, task=task, next=tuple(steps), cut=cut)

    def _around(self, found: Signal, key: tuple[int, int]) -> Iterator[tuple[Literal["wait", "match"], Row[Any]]]:
        """Return the waits and matches next to a signal: that it is part of or, upwards, that its run had."""
        of_wait: ColumnElement[bool]
        of_match: ColumnElement[bool]
        if self._direction == "down":
            of_wait = wait.c.id.in_(_holding(wait_signal, wait_signal.c.wait_id, key))
            of_match = match.c.id.in_(_holding(match_signal, match_signal.c.match_id, key))
        elif found.emitter.run_id:
            of_wait, of_match = _same_run(wait, found.emitter), _same_run(match, found.emitter)
        else:
            return
        # One more than is left says that there are more.
        room = self._left + 1
        for row in self._conn.execute(select(wait).where(of_wait).order_by(wait.c.opened_at, wait.c.id).limit(room)):
            yield "wait", row
        matches = select(match, subscription.c.name.label("subscription")).join(subscription).where(of_match)
        for row in self._conn.execute(matches.order_by(match.c.matched_at, match.c.id).limit(room)):
            yield "match", row

    def _signals(self, kind: Literal["wait", "match"], row: Row[Any]) -> list[Row[Any]]:
        """Return the signals that a wait's or match's run emitted or, upwards, that it is made of."""
        if self._direction == "down":
            if not row.run_id:
                return []
            query = select_signals().where(_same_run(signal, read_emitter(row)))
        else:
            table, owner = (wait_signal, "wait_id") if kind == "wait" else (match_signal, "match_id")
            query = select_signals().where(
                exists().where(
                    table.c[owner] == row.id, table.c.name_id == signal.c.name_id, table.c.seq == signal.c.seq
                )
            )
        query = query.order_by(signal.c.created_at, signal.c.name_id, signal.c.seq).limit(max(self._left, 0) + 1)
        return list(self._conn.execute(query))


def _holding(table: Table, owner: ColumnElement[Any], key: tuple[int, int]) -> Select[Any]:
    return select(owner).where(table.c.name_id == key[0], table.c.seq == key[1])


def _same_run(table: Table, task: Emitter) -> ColumnElement[bool]:
    return and_(table.c.deployment == task.deployment, table.c.dag_id == task.dag_id, table.c.run_id == task.run_id)
