"""Emit a signal: one row, however often it is said, in the order in which the signals of a name become visible.

The name's row is locked by counting it up, so emits of one name come one after the other, and those of others go on beside them.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import attrs
from sqlalchemy import Connection, insert, select, update

from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signal_values import Kind, Value, encode, kind_of, plain_value, read_as
from airflow_incremental.core.signals import Emitter, Signal, check_name, dump_payload, identity_of, read_params
from airflow_incremental.store.database import Store
from airflow_incremental.store.dialects import insert_or_leave
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
    name_id, seq = _next(conn, emission.name)
    params = _of_known_kinds(conn, name_id, emission)
    said = Signal(
        name=emission.name,
        seq=seq,
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
    if conn.execute(insert_or_leave(conn, signal).values(row).returning(signal.c.seq)).first() is None:
        conn.execute(update(signal_name).where(signal_name.c.id == name_id).values(last_seq=seq - 1))
        return Emitted(signal=one_signal(conn, name_id, said.identity), new=False)
    if params:
        conn.execute(
            insert(signal_param),
            [{"name_id": name_id, "seq": seq, "param": key, "value": encode(value)} for key, value in params.items()],
        )
    return Emitted(signal=said, new=True)


def _next(conn: Connection, name: str) -> tuple[int, int]:
    """Lock the name, and return its id and the next place."""
    count_up = (
        update(signal_name)
        .where(signal_name.c.name == name)
        .values(last_seq=signal_name.c.last_seq + 1)
        .returning(signal_name.c.id, signal_name.c.last_seq)
    )
    found = conn.execute(count_up).first()
    if found is None:
        conn.execute(insert_or_leave(conn, signal_name).values(name=name, last_seq=0))
        found = conn.execute(count_up).one()
    return int(found[0]), int(found[1])


def _of_known_kinds(conn: Connection, name_id: int, emission: Emission) -> dict[str, Value]:
    """Return the parameters as of the kinds that they have had since the first signal of the name."""
    rows = conn.execute(select(signal_kind.c.param, signal_kind.c.kind).where(signal_kind.c.name_id == name_id))
    known: dict[str, Kind] = {row.param: row.kind for row in rows}
    read = {
        key: read_as(known[key], value, what=f"parameter {key!r} of signal {emission.name!r}")
        if key in known
        else value
        for key, value in emission.params.items()
    }
    fresh = [
        {"name_id": name_id, "param": key, "kind": kind_of(value)} for key, value in read.items() if key not in known
    ]
    if fresh:
        conn.execute(insert(signal_kind), fresh)
    return read
