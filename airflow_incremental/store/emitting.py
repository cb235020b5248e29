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
from sqlalchemy import Connection, bindparam, insert, select, update

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
    name_id, seq, kinds = _next(conn, emission.name)
    if not emission.params.keys() <= kinds.keys():
        kinds = {row.param: row.kind for row in conn.execute(_KINDS, {"of": name_id})}
    fixed = {key: kind_of(value) for key, value in emission.params.items() if key not in kinds}
    params = {
        key: read_as((kinds | fixed)[key], value, what=f"parameter {key!r} of signal {emission.name!r}")
        for key, value in emission.params.items()
    }
    said = Signal(
        name=emission.name,
        seq=seq,
        # Of the values as they are kept: a text and the time that it was read as are one fact.
        identity=emission.request_id or identity_of(emission.name, params),
        params=params,
        payload=None if emission.payload is None else json.loads(emission.payload),
        created_at=dt.datetime.now(UTC),
        emitter=emission.emitter,
    )
    row = {
        "name_id": name_id,
        "seq": seq,
        "identity": said.identity,
        "params": {key: plain_value(value) for key, value in params.items()},
        "payload": said.payload,
        "created_at": said.created_at,
        **attrs.asdict(emission.emitter),
    }
    if conn.execute(insert_or_leave(conn, signal), row).rowcount == 0:
        conn.execute(_SET_BACK, {"of": name_id})
        return Emitted(signal=one_signal(conn, name_id, said.identity), new=False)
    # Only now: what is no signal fixes no kind.
    if fixed:
        conn.execute(_FIX, [{"name_id": name_id, "param": key, "kind": kind} for key, kind in fixed.items()])
    if params:
        conn.execute(
            _PARAMS,
            [{"name_id": name_id, "seq": seq, "param": key, "value": encode(value)} for key, value in params.items()],
        )
    give(conn)
    return Emitted(signal=said, new=True)


# Statements are made once: to make one takes longer than to execute it.
_NAMED = update(signal_name).where(signal_name.c.name == bindparam("of")).values(last_seq=signal_name.c.last_seq + 1)
_SET_BACK = update(signal_name).where(signal_name.c.id == bindparam("of")).values(last_seq=signal_name.c.last_seq - 1)
_KINDS = select(signal_kind.c.param, signal_kind.c.kind).where(signal_kind.c.name_id == bindparam("of"))
_FIX = insert(signal_kind)
_PARAMS = insert(signal_param)


@cache
def _count_up(dialect: str) -> Any:
    kinds = select(object_of(dialect, signal_kind.c.param, signal_kind.c.kind))
    kinds = kinds.where(signal_kind.c.name_id == signal_name.c.id).correlate(signal_name)
    return _NAMED.returning(signal_name.c.id, signal_name.c.last_seq, kinds.scalar_subquery())


def _next(conn: Connection, name: str) -> tuple[int, int, dict[str, Kind]]:
    """Lock the name; return its id, the next place, and the kinds of its parameters.

    Whoever had to wait for the lock may miss kinds that were fixed meanwhile: of what it reads, PostgreSQL reads anew only the row
    that it locks.
    """
    count_up = _count_up(conn.dialect.name)
    found = conn.execute(count_up, {"of": name}).first()
    if found is None:
        conn.execute(insert_or_leave(conn, signal_name), {"name": name, "last_seq": 0})
        found = conn.execute(count_up, {"of": name}).one()
    name_id, seq, kinds = found
    return name_id, seq, kinds or {}
