"""Retention: remove what is old and what nothing that is open can still need.

What stays, however old:

- the newest signal of each name, and the name's row, so that ``seq`` never starts again;
- the newest signal of each process: by it the next run knows that its last publish was announced. Without it, the run would
  announce it again, and that would be a new fact;
- signals an open subscription has not passed, holds as a candidate, or has in a match that stays;
- matches that no run claimed or whose event is not known to have reached Airflow;
- open waits, and all signals of the names they wait for: a gate looks into history, so only the names are a safe line. A wait whose
  task would have given up before ``older_than`` is not open, whatever it says: its run was cleared or deleted;
- signals that released a wait which stays, because they are its lineage.

A signal that was removed is forgotten: emitting its like again makes a new one. A run that is cleared after its matches were
removed claims nothing. So ``older_than`` lies before all that anybody would run again.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, select, tuple_

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.session_log import PROCESS_PARAM, SOURCE
from airflow_incremental.store.database import Store
from airflow_incremental.store.reading import CHUNK
from airflow_incremental.store.schema import (
    candidate,
    checkpoint,
    match,
    match_signal,
    signal,
    signal_name,
    signal_param,
    subscription,
    wait,
    wait_signal,
)


class _Undo(Exception):
    """Ends the transaction of a dry run without a commit."""


def clean(store: Store, older_than: dt.datetime, *, dry_run: bool = False) -> dict[str, int]:
    """Remove what is older than a time; return how many rows of each table went, or would go.

    Works in small transactions, so emits go on meanwhile; one that was interrupted is simply run again. A dry run is one
    transaction that is rolled back, because what may go depends on what went before.

    :raises ArgumentError: ``older_than`` has no time zone.
    """
    if older_than.tzinfo is None:
        raise ArgumentError(
            f"older_than is {older_than.isoformat()!r}, without zone", expected="a time with a time zone"
        )
    gone = Counter({_short(table): 0 for table in (wait, wait_signal, match, match_signal, signal, signal_param)})
    if dry_run:
        try:
            with store.write() as conn:
                while step := _step(conn, older_than):
                    gone.update(step)
                raise _Undo  # noqa: TRY301 (it is how the transaction is ended)
        except _Undo:
            return dict(gone)
    while step := store.writing(lambda conn: _step(conn, older_than)):
        gone.update(step)
    return dict(gone)


def _step(conn: Connection, older_than: dt.datetime) -> Counter[str]:
    """Remove one batch; return how many rows of each table went. Signals go after what refers to them."""
    gone: Counter[str] = Counter()
    is_open = wait.c.state == "open"
    closed = ~is_open & (wait.c.closed_at < older_than) | is_open & (wait.c.gives_up_at < older_than)
    if ids := conn.execute(select(wait.c.id).where(closed).limit(CHUNK)).scalars().all():
        _remove(conn, wait_signal, wait_signal.c.wait_id.in_(ids), gone)
        _remove(conn, wait, wait.c.id.in_(ids), gone)
        return gone
    done = (match.c.claimed_at < older_than) & match.c.announced_at.is_not(None)
    closed_for_good = select(subscription.c.id).where(subscription.c.state != "open")
    # Nobody announces for a closed subscription any more.
    done |= (match.c.claimed_at < older_than) & match.c.subscription_id.in_(closed_for_good)
    if ids := conn.execute(select(match.c.id).where(done).limit(CHUNK)).scalars().all():
        _remove(conn, match_signal, match_signal.c.match_id.in_(ids), gone)
        _remove(conn, match, match.c.id.in_(ids), gone)
        return gone
    query = select(signal.c.name_id, signal.c.seq).join(signal_name, signal_name.c.id == signal.c.name_id)
    keys = conn.execute(query.where(signal.c.created_at < older_than, *_unneeded(conn)).limit(CHUNK // 2)).all()
    if keys:
        pairs = [tuple(key) for key in keys]
        _remove(conn, signal_param, tuple_(signal_param.c.name_id, signal_param.c.seq).in_(pairs), gone)
        _remove(conn, signal, tuple_(signal.c.name_id, signal.c.seq).in_(pairs), gone)
    return gone


def _unneeded(conn: Connection) -> Sequence[ColumnElement[bool]]:
    """Return the conditions on ``signal`` and ``signal_name`` that nothing needs a signal."""
    open_waits = conn.execute(select(wait.c.dependencies).where(wait.c.state == "open")).scalars()
    waited_for = sorted({dependency["name"] for dependencies in open_waits for dependency in dependencies})
    ahead = exists().where(
        checkpoint.c.signal == signal_name.c.name,
        checkpoint.c.seq < signal.c.seq,
        checkpoint.c.subscription_id == subscription.c.id,
        subscription.c.state == "open",
    )
    own, later = signal_param.alias(), signal_param.alias()
    of_process = (own.c.name_id == signal.c.name_id) & (own.c.seq == signal.c.seq) & (own.c.param == PROCESS_PARAM)
    followed = exists().where(
        of_process,
        later.c.name_id == own.c.name_id,
        later.c.param == own.c.param,
        later.c.value == own.c.value,
        later.c.seq > own.c.seq,
    )
    held = [
        exists().where(table.c.name_id == signal.c.name_id, table.c.seq == signal.c.seq)
        for table in (candidate, match_signal, wait_signal)
    ]
    return [
        signal.c.seq < signal_name.c.last_seq,
        (signal.c.source != SOURCE) | followed,
        signal_name.c.name.not_in(waited_for),
        ~ahead,
        *(~holds for holds in held),
    ]


def _remove(conn: Connection, table: Table, where: ColumnElement[Any], gone: Counter[str]) -> None:
    gone[_short(table)] += conn.execute(delete(table).where(where)).rowcount


def _short(table: Table) -> str:
    return table.name.removeprefix("incremental_")
