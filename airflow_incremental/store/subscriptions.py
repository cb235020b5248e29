"""Subscriptions: who starts runs on signals, and how far each has looked.

Of the signals that fit a subscription, the i-th of each dependency make the i-th match of their join value. That depends on the
order within each name alone, so two triggerers, a restart or another interval of polling find the same matches.

All functions take a connection in a transaction of the caller (on SQLite begun IMMEDIATE); its commit is the point where all or
nothing has happened. Those that change something lock the subscription's row first, so no two of them work at once.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import Any, Literal

import attrs
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signal_values import Kind, read_as, read_value
from airflow_incremental.core.signals import SignalDependency, check_name, read_dependencies
from airflow_incremental.store.dialects import insert_or_leave
from airflow_incremental.store.reading import chunks
from airflow_incremental.store.schema import (
    candidate,
    checkpoint,
    match,
    match_signal,
    signal,
    signal_kind,
    signal_name,
    subscription,
)

#: Signals that are read into memory at once.
_BATCH = 1_000
#: Of a join's values in letters; of more, a hash is kept, because an index of PostgreSQL takes some 2,700 bytes.
_JOIN_LIMIT = 1_000
#: ``polled_at`` is not written more often than this, because it is for people.
_SEEN_EVERY = dt.timedelta(minutes=1)


@attrs.frozen(kw_only=True)
class Subscription:
    """One subscription.

    :param state: ``open`` or ``closed``.
    :param polled_at: when a triggerer last looked, to the minute; an old one has no triggerer any more.
    :param matches: how many it has had.
    """

    id: int
    name: str
    dependencies: tuple[SignalDependency, ...]
    state: str
    created_at: dt.datetime
    polled_at: dt.datetime
    matches: int


def subscribe(
    conn: Connection,
    name: str,
    dependencies: Sequence[SignalDependency | dict[str, Any]],
    *,
    start: Literal["latest", "earliest"] = "latest",
) -> Subscription:
    """Return the open subscription of the name, making it if there is none; a closed one is opened anew, from ``start``.

    :param start: which signals it gets: those emitted from now on, or all that the store still has.
    :raises ArgumentError: the name is open with other dependencies, or something of them is wrong.
    """
    check_name(name, what="the name of a subscription")
    if start not in {"latest", "earliest"}:
        raise ArgumentError(f"start of subscription {name!r} is {start!r}", expected="latest or earliest")
    wanted = read_dependencies(dependencies)
    _check_kinds(conn, name, wanted)
    plain = [dependency.to_json() for dependency in wanted]
    found = _locked(conn, name)
    if found is not None and found.state == "open":
        if found.dependencies != plain:
            raise ArgumentError(
                f"subscription {name!r} asks for {json.dumps(plain)}, and was made for {json.dumps(found.dependencies)}",
                expected="the same signals under the same name, because it holds signals that wait for their partners",
                hint="give it another name, or close the subscription first",
            )
        return _read(found)
    now = dt.datetime.now(UTC)
    if found is None:
        values = {
            "name": name,
            "dependencies": plain,
            "state": "open",
            "created_at": now,
            "polled_at": now,
            "matches": 0,
        }
        number = conn.execute(insert_or_leave(conn, subscription).values(values).returning(subscription.c.id)).scalar()
        if number is None:
            # Another triggerer was faster, and has committed by now.
            return subscribe(conn, name, wanted, start=start)
    else:
        number = found.id
        conn.execute(
            update(subscription)
            .where(subscription.c.id == number)
            .values(dependencies=plain, state="open", created_at=now, polled_at=now)
        )
    places = _last_seqs(conn, wanted) if start == "latest" else {}
    conn.execute(
        insert(checkpoint),
        [
            {"subscription_id": number, "position": i, "signal": d.name, "seq": places.get(d.name, 0)}
            for i, d in enumerate(wanted)
        ],
    )
    return _read(conn.execute(select(subscription).where(subscription.c.id == number)).one())


def advance(conn: Connection, name: str) -> int:
    """Look at the signals that are new to a subscription, make all matches that are complete; return how many. 0 if it is closed.

    :raises ArgumentError: there is no such subscription, or it compares a parameter with a value of another kind: it then stays
        where it is, so nothing is lost, and says so each time until it is closed.
    """
    found = _existing(conn, name)
    if found.state != "open":
        return 0
    wanted = _read(found).dependencies
    # Emits go on meanwhile: those after this look are for the next one.
    through = _last_seqs(conn, wanted)
    touched: set[str] = set()
    for position, dependency in enumerate(wanted):
        touched |= _look(conn, found.id, position, dependency, through.get(dependency.name, 0))
    made = _match(conn, found, sorted(touched), len(wanted))
    now = dt.datetime.now(UTC)
    if made or now - found.polled_at >= _SEEN_EVERY:
        conn.execute(
            update(subscription)
            .where(subscription.c.id == found.id)
            .values(matches=found.matches + made, polled_at=now)
        )
    return made


def close_subscription(conn: Connection, name: str) -> None:
    """Close a subscription: what it held and what nobody claimed goes, what runs claimed stays as lineage.

    :raises ArgumentError: there is no such subscription.
    """
    found = _existing(conn, name)
    unclaimed = select(match.c.id).where(match.c.subscription_id == found.id, match.c.claimed_at.is_(None))
    conn.execute(delete(match_signal).where(match_signal.c.match_id.in_(unclaimed)))
    conn.execute(delete(match).where(match.c.subscription_id == found.id, match.c.claimed_at.is_(None)))
    conn.execute(delete(candidate).where(candidate.c.subscription_id == found.id))
    conn.execute(delete(checkpoint).where(checkpoint.c.subscription_id == found.id))
    conn.execute(update(subscription).where(subscription.c.id == found.id).values(state="closed"))


def list_subscriptions(conn: Connection) -> list[Subscription]:
    """Return all subscriptions, by name."""
    return [_read(row) for row in conn.execute(select(subscription).order_by(subscription.c.name))]


def lock_subscription(conn: Connection, name: str) -> int:
    """Lock a subscription until the transaction ends, and return its id.

    :raises ArgumentError: there is no such subscription.
    """
    return int(_existing(conn, name).id)


def _look(conn: Connection, number: int, position: int, dependency: SignalDependency, through: int) -> set[str]:
    """Keep the new signals that fit a dependency, move its checkpoint, and return the join values that got a signal."""
    here = (checkpoint.c.subscription_id == number) & (checkpoint.c.position == position)
    place = start = conn.execute(select(checkpoint.c.seq).where(here)).scalar_one()
    touched = set()
    while place < through:
        rows = conn.execute(
            select(signal.c.name_id, signal.c.seq, signal.c.params)
            .join(signal_name, signal_name.c.id == signal.c.name_id)
            .where(signal_name.c.name == dependency.name, signal.c.seq > place, signal.c.seq <= through)
            .order_by(signal.c.seq)
            .limit(_BATCH)
        ).all()
        if not rows:  # cleaned away before anybody subscribed
            break
        kept = []
        for row in rows:
            params = {key: read_value(value, what=f"parameter {key!r}") for key, value in row.params.items()}
            if dependency.matches(params):
                join_value = _join_value(dependency.join_value(params))
                touched.add(join_value)
                kept.append(
                    {
                        "subscription_id": number,
                        "position": position,
                        "name_id": row.name_id,
                        "seq": row.seq,
                        "join_value": join_value,
                    }
                )
        if kept:
            conn.execute(insert(candidate), kept)
        place = rows[-1].seq
    if through > start:
        conn.execute(update(checkpoint).where(here).values(seq=through))
    return touched


def _join_value(values: tuple[str, ...]) -> str:
    text = json.dumps(values)
    return text if len(text) <= _JOIN_LIMIT else hashlib.sha256(text.encode()).hexdigest()


def _match(conn: Connection, found: Row[Any], touched: Sequence[str], width: int) -> int:
    """Make the matches that are complete; only join values that got a signal can have any."""
    sets: list[list[Row[Any]]] = []
    for values in chunks(touched):
        turn = func.row_number().over(
            partition_by=(candidate.c.join_value, candidate.c.position), order_by=candidate.c.seq
        )
        ranked = (
            select(candidate, turn.label("turn"))
            .where(candidate.c.subscription_id == found.id, candidate.c.join_value.in_(values))
            .cte("ranked")
        )
        parts_of_turn = func.count().over(partition_by=(ranked.c.join_value, ranked.c.turn))
        counted = select(ranked, parts_of_turn.label("parts")).cte("counted")
        rows = conn.execute(
            select(counted)
            .where(counted.c.parts == width)
            .order_by(counted.c.join_value, counted.c.turn, counted.c.position)
        ).all()
        sets += [list(rows[i : i + width]) for i in range(0, len(rows), width)]
    if not sets:
        return 0
    sets.sort(key=lambda rows: [row.seq for row in rows])
    now = dt.datetime.now(UTC)
    ids = [uuid.uuid4().hex for _ in sets]
    conn.execute(
        insert(match),
        [
            {"id": id_, "subscription_id": found.id, "number": found.matches + i, "matched_at": now}
            for i, id_ in enumerate(ids, start=1)
        ],
    )
    parts = [
        {"match_id": id_, "position": row.position, "name_id": row.name_id, "seq": row.seq}
        for id_, rows in zip(ids, sets, strict=True)
        for row in rows
    ]
    conn.execute(insert(match_signal), parts)
    for position in range(width):
        for seqs in chunks([rows[position].seq for rows in sets]):
            used = (candidate.c.position == position) & candidate.c.seq.in_(seqs)
            conn.execute(delete(candidate).where(candidate.c.subscription_id == found.id, used))
    return len(sets)


def _check_kinds(conn: Connection, name: str, wanted: Sequence[SignalDependency]) -> None:
    """Refuse a condition of another kind than its parameter is known to have."""
    names = {dependency.name for dependency in wanted}
    kinds: dict[tuple[str, str], Kind] = {
        (row.name, row.param): row.kind
        for row in conn.execute(
            select(signal_name.c.name, signal_kind.c.param, signal_kind.c.kind)
            .join(signal_kind, signal_kind.c.name_id == signal_name.c.id)
            .where(signal_name.c.name.in_(names))
        )
    }
    for dependency in wanted:
        for param, condition in dependency.match.items():
            if kind := kinds.get((dependency.name, param)):
                for value in condition.values:
                    what = f"parameter {param!r} of signal {dependency.name!r} in subscription {name!r}"
                    read_as(kind, value, what=what)


def _last_seqs(conn: Connection, wanted: Sequence[SignalDependency]) -> dict[str, int]:
    names = {dependency.name for dependency in wanted}
    rows = conn.execute(select(signal_name.c.name, signal_name.c.last_seq).where(signal_name.c.name.in_(names)))
    return {row.name: row.last_seq for row in rows}


def _locked(conn: Connection, name: str) -> Row[Any] | None:
    # SQLite has no row locks; there the whole transaction holds the only one.
    return conn.execute(select(subscription).where(subscription.c.name == name).with_for_update()).one_or_none()


def _existing(conn: Connection, name: str) -> Row[Any]:
    found = _locked(conn, name)
    if found is None:
        raise ArgumentError(f"there is no subscription {name!r}", expected="one that a triggerer has made")
    return found


def _read(row: Row[Any]) -> Subscription:
    return Subscription(
        id=row.id,
        name=row.name,
        dependencies=read_dependencies(row.dependencies),
        state=row.state,
        created_at=row.created_at,
        polled_at=row.polled_at,
        matches=row.matches,
    )
