"""Matches of subscriptions on their way: found, announced to Airflow (at least once), claimed by a run (exactly one).

All functions take a connection in a transaction of the caller, as those of ``subscriptions`` do.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import attrs
from sqlalchemy import Connection, Row, select, update

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signals import Emitter, Signal
from airflow_incremental.store.reading import chunks, is_task, read_emitter, read_signal, select_signals
from airflow_incremental.store.schema import match, match_signal, signal, subscription
from airflow_incremental.store.subscriptions import lock_subscription


@attrs.frozen(kw_only=True)
class Match:
    """Signals that fit a subscription together, in the order of its dependencies.

    :param number: which of the subscription's matches, from 1.
    :param claimed_by: the task that took it; None until one has.
    """

    id: str
    subscription: str
    number: int
    signals: tuple[Signal, ...]
    matched_at: dt.datetime
    claimed_by: Emitter | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for events, XCom and people."""
        return {
            "id": self.id,
            "subscription": self.subscription,
            "number": self.number,
            "signals": [signal_.to_json() for signal_ in self.signals],
            "matched_at": self.matched_at.isoformat(),
        }


def unannounced(conn: Connection, name: str, limit: int, *, after: int = 0) -> list[Match]:
    """Return the oldest matches of a subscription whose event may not have reached Airflow yet.

    :param after: number of a match; only those after it.
    """
    rows = conn.execute(
        select(match, subscription.c.name)
        .join(subscription)
        .where(subscription.c.name == name, match.c.announced_at.is_(None), match.c.number > after)
        .order_by(match.c.number)
        .limit(limit)
    ).all()
    return _read(conn, rows)


def mark_announced(conn: Connection, match_ids: Sequence[str]) -> None:
    """Note that Airflow has the events of matches. To be called after it has: a crash before this announces them again."""
    now = dt.datetime.now(UTC)
    for ids in chunks(match_ids):
        conn.execute(update(match).where(match.c.id.in_(ids), match.c.announced_at.is_(None)).values(announced_at=now))


def claim(conn: Connection, name: str, run: Emitter, *, limit: int | None = None) -> list[Match]:
    """Take all matches of a subscription that nobody has taken, and return them after those this task took in an earlier try.

    :param limit: how many it may have, with those of earlier tries.
    :raises ArgumentError: there is no such subscription, or the task does not say which run it is of.
    """
    if not (run.dag_id and run.run_id):
        raise ArgumentError(
            f"matches of subscription {name!r} are claimed by {run}", expected="a task, with its DAG and its run"
        )
    number = lock_subscription(conn, name)
    mine = [match.c.subscription_id == number, match.c.claimed_at.is_not(None), *is_task(match, run)]
    free = [match.c.subscription_id == number, match.c.claimed_at.is_(None)]
    had = conn.execute(select(match.c.id).where(*mine)).scalars().all()
    room = None if limit is None else max(limit - len(had), 0)
    taken = conn.execute(select(match.c.id).where(*free).order_by(match.c.number).limit(room)).scalars().all()
    values = attrs.asdict(run) | {"claimed_at": dt.datetime.now(UTC)}
    del values["source"]
    for ids in chunks(taken):
        conn.execute(update(match).where(*free, match.c.id.in_(ids)).values(values))
    rows = conn.execute(
        select(match, subscription.c.name).join(subscription).where(*mine).order_by(match.c.number)
    ).all()
    return _read(conn, rows)


def _read(conn: Connection, rows: Sequence[Row[Any]]) -> list[Match]:
    parts: dict[str, list[Signal]] = {row.id: [] for row in rows}
    for ids in chunks(list(parts)):
        query = (
            select_signals(match_signal.c.match_id)
            .join(
                match_signal,
                (match_signal.c.name_id == signal.c.name_id) & (match_signal.c.seq == signal.c.seq),
            )
            .where(match_signal.c.match_id.in_(ids))
            .order_by(match_signal.c.match_id, match_signal.c.position)
        )
        for part in conn.execute(query):
            parts[part.match_id].append(read_signal(part))
    return [
        Match(
            id=row.id,
            subscription=row.name,
            number=row.number,
            signals=tuple(parts[row.id]),
            matched_at=row.matched_at,
            claimed_by=None if row.claimed_at is None else read_emitter(row),
        )
        for row in rows
    ]
