"""The session log: one row per session and per process, written as they go on, and again from what the tables say.

A row only gains: what a step does not know it leaves as it was, and a session that is published or ended stays so, whatever an
older try of one of its tasks says later.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, null, or_, update

from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.session_log import LoadKey, ProcessEntry, SessionEntry
from airflow_incremental.store.dialects import insert_into
from airflow_incremental.store.schema import process, session

#: States of a session that is neither published nor given up.
_OPEN = ("planned", "loaded", "audited")


def write_session(conn: Connection, key: LoadKey, entry: SessionEntry) -> None:
    """Write what a step knows of a session, or what its table tells of it.

    When a session is planned, earlier ones of its process that are neither published nor failed are over: a process has one open
    session at a time.
    """
    row = {
        **{name: value for name, value in attrs.asdict(entry, recurse=False).items() if name != "owner"},
        **attrs.asdict(key),
        **{name: value for name, value in entry.owner.to_json().items() if name in session.c},
        "reason": _kept(entry.reason),
        "error": _kept(entry.error),
        "updated_at": dt.datetime.now(UTC),
    }
    insert = insert_into(conn, session).values(row)
    changed: dict[str, ColumnElement[Any]] = {
        name: func.coalesce(insert.excluded[name], session.c[name]) for name in row if name != "session"
    }
    stays = or_(session.c.state == "published", and_(session.c.state == "ended", insert.excluded.state != "published"))
    changed["state"] = case(
        (stays, session.c.state),
        (and_(session.c.state.in_(_OPEN), insert.excluded.state == "planned"), session.c.state),
        else_=insert.excluded.state,
    )
    # What a failed try said is of interest until another one gets further.
    changed["error"] = case(
        (session.c.state == "published", null()),
        (stays, func.coalesce(session.c.error, insert.excluded.error)),
        else_=insert.excluded.error,
    )
    changed["rebuilt"] = and_(session.c.rebuilt, insert.excluded.rebuilt)
    conn.execute(insert.on_conflict_do_update(index_elements=["session"], set_=changed))
    if entry.planned_at is not None:
        same = (session.c[name] == value for name, value in attrs.asdict(key).items())
        earlier = session.c.planned_at < entry.planned_at
        conn.execute(update(session).where(*same, earlier, session.c.state.in_(_OPEN)).values(state="ended"))


def _kept(text: str | None) -> str | None:
    """Return a text that every database can keep: values in it, which may be of a row, can hold NULs and halves of characters."""
    return None if text is None else text.replace("\0", r"\x00").encode(errors="backslashreplace").decode()


def write_process(conn: Connection, key: LoadKey, entry: ProcessEntry) -> None:
    """Write how far a process is, unless a later publish was written already."""
    watermark = entry.watermark
    row = {
        **attrs.asdict(key),
        "mode": entry.mode,
        "session": entry.session,
        "snapshot_id": entry.snapshot_id,
        "complete_through": watermark.complete_through,
        "processed_through": watermark.processed_through,
        "watermark": watermark.to_json(),
        "previous_watermark": entry.previous_watermark,
        "published_at": entry.published_at,
        "updated_at": dt.datetime.now(UTC),
    }
    keys = tuple(attrs.asdict(key))
    insert = insert_into(conn, process).values(row)
    conn.execute(
        insert.on_conflict_do_update(
            index_elements=list(keys),
            set_={name: insert.excluded[name] for name in row if name not in keys},
            where=or_(process.c.published_at.is_(None), process.c.published_at <= insert.excluded.published_at),
        )
    )


def forget_process(conn: Connection, key: LoadKey, at: dt.datetime | None) -> None:
    """Take away what is said of a process that has no watermark any more, unless it was written after that.

    :param at: when its watermark was taken away.
    """
    same = (process.c[name] == value for name, value in attrs.asdict(key).items())
    conn.execute(delete(process).where(*same, or_(process.c.published_at.is_(None), process.c.published_at <= at)))


def forget_processes(conn: Connection, *, iceberg_conn_id: str, target: str) -> None:
    """Take away what is said of the processes of a target, before it is written anew: ``main`` may have been rolled back."""
    conn.execute(delete(process).where(process.c.iceberg_conn_id == iceberg_conn_id, process.c.target == target))
