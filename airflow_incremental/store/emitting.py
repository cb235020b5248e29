"""Emit a signal: one row, however often it is said, in the order in which the signals of a name become visible.

The name's row is locked by counting it up, so emits of one name come one after the other, and those of others go on beside them.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import attrs
from sqlalchemy import JSON, Connection, bindparam, cast, func, insert, select, true, update
from sqlalchemy.dialects import postgresql

from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signal_values import Kind, Value, encode, kind_of, plain_value, read_as
from airflow_incremental.core.signals import Emitter, Signal, check_name, dump_payload, identity_of, read_params
from airflow_incremental.store.database import Store
from airflow_incremental.store.dialects import insert_or_leave, object_of
from airflow_incremental.store.hints import give
from airflow_incremental.store.reading import one_signal
from airflow_incremental.store.schema import signal, signal_kind, signal_name, signal_param


@attrs.frozen(kw_only=True)
class Emission:
    """What is to be said.

    :param payload: JSON as text.
    :param request_id: the caller's identity for the fact; None makes it one of name and parameters.
    """

    name: str
    params: Mapping[str, Value]
    payload: str | None
    request_id: str | None
    emitter: Emitter

    @classmethod
    def read(
        cls,
        name: Any,
        params: Mapping[str, Any] | None,
        payload: Any = None,
        *,
        request_id: str | None = None,
        emitter: Emitter,
        reserved: bool = False,
    ) -> Emission:
        """Check and build one.

        :param reserved: whether the name may be one of the package's own.
        :raises ArgumentError: something of it is wrong.
        """
        check_name(name, what="the name of a signal", reserved=reserved)
        if request_id is not None:
            check_name(request_id, what=f"the request_id of signal {name!r}", reserved=True)
        return cls(
            name=name,
            params=read_params(params, name=name),
            payload=dump_payload(payload, name=name),
            request_id=request_id,
            emitter=emitter,
        )


@attrs.frozen(kw_only=True)
class Emitted:
    """A signal, and whether it is a new one."""

    signal: Signal
    new: bool


def emit(store: Store, emission: Emission) -> Emitted:
    """Emit a signal in a transaction of its own, again if that failed for a reason that passes.

    :raises ArgumentError: a parameter is of another kind than those of earlier signals of the name.
    :raises StoreError: the store did not take it; it may have it all the same, and the next try finds it then.
    """
    return store.writing(lambda conn: emit_on(conn, emission))


def emit_on(conn: Connection, emission: Emission) -> Emitted:
    """Emit a signal in the caller's transaction."""
    name_id, kinds = _look_up(conn, emission.name)
    if not emission.params.keys() <= kinds.keys():
        kinds = _kinds_under_lock(conn, name_id)
    fixed = {key: kind_of(value) for key, value in emission.params.items() if key not in kinds}
    params = {
        key: read_as((kinds | fixed)[key], value, what=f"parameter {key!r} of signal {emission.name!r}")
        for key, value in emission.params.items()
    }
    # Of the values as they are kept: a text and the time that it was read as are one fact.
    identity = emission.request_id or identity_of(emission.name, params)
    row = {
        "name_id": name_id,
        "identity": identity,
        "params": {key: plain_value(value) for key, value in params.items()},
        "payload": None if emission.payload is None else json.loads(emission.payload),
        **attrs.asdict(emission.emitter),
    }
    put = _put(conn, row, {key: encode(value) for key, value in params.items()})
    if put is None:
        conn.execute(_SET_BACK, {"of": name_id})
        return Emitted(signal=one_signal(conn, name_id, identity), new=False)
    seq, created_at = put
    said = Signal(
        name=emission.name,
        seq=seq,
        identity=identity,
        params=params,
        payload=row["payload"],
        created_at=created_at,
        emitter=emission.emitter,
    )
    # Only now: what is no signal fixes no kind.
    if fixed:
        conn.execute(_FIX, [{"name_id": name_id, "param": key, "kind": kind} for key, kind in fixed.items()])
    give(conn)
    return Emitted(signal=said, new=True)


# Statements are made once: to make one takes longer than to execute it.
_COUNT_UP = (
    update(signal_name)
    .where(signal_name.c.id == bindparam("name_id"))
    .values(last_seq=signal_name.c.last_seq + 1)
    .returning(signal_name.c.last_seq)
)
_SET_BACK = update(signal_name).where(signal_name.c.id == bindparam("of")).values(last_seq=signal_name.c.last_seq - 1)
_LOCK = select(signal_name.c.id).where(signal_name.c.id == bindparam("of")).with_for_update()
_KINDS = select(signal_kind.c.param, signal_kind.c.kind).where(signal_kind.c.name_id == bindparam("of"))
_FIX = insert(signal_kind)
_PARAMS = insert(signal_param)


@cache
def _named(dialect: str) -> Any:
    kinds = select(object_of(dialect, signal_kind.c.param, signal_kind.c.kind))
    kinds = kinds.where(signal_kind.c.name_id == signal_name.c.id).correlate(signal_name)
    return select(signal_name.c.id, kinds.scalar_subquery()).where(signal_name.c.name == bindparam("of"))


def _look_up(conn: Connection, name: str) -> tuple[int, dict[str, Kind]]:
    """Return a name's id and the kinds of its parameters, which do not change once they are there."""
    named = _named(conn.dialect.name)
    found = conn.execute(named, {"of": name}).first()
    if found is None:
        conn.execute(insert_or_leave(conn, signal_name), {"name": name, "last_seq": 0})
        found = conn.execute(named, {"of": name}).one()
    name_id, kinds = found
    return name_id, kinds or {}


def _put_at_once() -> Any:
    counted = _COUNT_UP.cte("counted")
    given = {c.name: bindparam(c.name, type_=c.type) for c in signal.c if c.name not in ("seq", "created_at")}
    said = postgresql.insert(signal).from_select(
        [*given, "seq", "created_at"], select(*given.values(), counted.c.last_seq, func.clock_timestamp())
    )
    put = said.on_conflict_do_nothing().returning(signal.c.seq, signal.c.created_at).cte("put")
    each = func.json_each_text(cast(bindparam("encoded", type_=JSON), JSON)).table_valued("key", "value")
    rows = select(given["name_id"], put.c.seq, each.c.key, each.c.value).select_from(put.join(each, true()))
    params = insert(signal_param).from_select(["name_id", "seq", "param", "value"], rows).cte("with_params")
    return select(put.c.seq, put.c.created_at).add_cte(params)


_PUT = _put_at_once()


def _put(conn: Connection, row: dict[str, Any], params: Mapping[str, str]) -> tuple[int, dt.datetime] | None:
    """Lock the name, count it up, and insert a signal with its encoded parameters; return its seq and time, None if it was there.

    In PostgreSQL it is one statement, because the name is locked from there to the end of the transaction. The time is that of the
    database there, taken under the lock, so that times are in the order of ``seq``.
    """
    if conn.dialect.name == "postgresql":
        found = conn.execute(_PUT, {**row, "encoded": params}).first()
        return None if found is None else (found.seq, found.created_at)
    seq, now = conn.execute(_COUNT_UP, {"name_id": row["name_id"]}).scalar_one(), dt.datetime.now(UTC)
    if conn.execute(insert_or_leave(conn, signal), {**row, "seq": seq, "created_at": now}).rowcount == 0:
        return None
    if params:
        of = {"name_id": row["name_id"], "seq": seq}
        conn.execute(_PARAMS, [{**of, "param": key, "value": value} for key, value in params.items()])
    return seq, now


def _kinds_under_lock(conn: Connection, name_id: int) -> dict[str, Kind]:
    """Lock a name, so that nobody else fixes kinds of its parameters meanwhile, and return those that are fixed."""
    conn.execute(_LOCK, {"of": name_id})
    return {row.param: row.kind for row in conn.execute(_KINDS, {"of": name_id})}
