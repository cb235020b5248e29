"""Look for signals: in all of history for a gate, beyond known places for whoever follows, by condition for people."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, String, and_, column, exists, select, values

from airflow_incremental.core.signal_values import Kind, encode, read_as
from airflow_incremental.core.signals import Signal, SignalDependency
from airflow_incremental.store.reading import read_signal, select_signals, signals_at
from airflow_incremental.store.schema import Number, signal, signal_kind, signal_name, signal_param

#: Names that one statement speaks of: each is two of its parameters, of which databases take some ten thousand.
_NAMES = 1000


def find_gate(conn: Connection, dependencies: Sequence[SignalDependency]) -> tuple[Signal, ...] | None:
    """Return signals of all of history, one per dependency, that match and whose join parameters are equal, or None.

    Of several, those that were emitted first: the first dependency's before all, then the second's, and so on. So the answer to a
    question stays the same once there is one.

    :raises ArgumentError: a condition is of another kind than the parameter.
    """
    known = [_known(conn, dependency.name) for dependency in dependencies]
    if any(found is None for found in known):
        return None
    # Without a join each is looked for by itself; together they would be all combinations.
    alone = not dependencies[0].join
    groups = [[n] for n in range(len(dependencies))] if alone else [list(range(len(dependencies)))]
    places: list[tuple[int, int]] = []
    for group in groups:
        found = _first(conn, [(dependencies[n], known[n]) for n in group])  # type: ignore[misc]
        if found is None:
            return None
        places += found
    read = signals_at(conn, places)
    return tuple(read[place] for place in places)


def has_signal(conn: Connection, name: str, identity: str) -> bool:
    """Say whether a fact was emitted."""
    query = exists().where(
        signal.c.name_id == signal_name.c.id, signal_name.c.name == name, signal.c.identity == identity
    )
    return bool(conn.execute(select(query)).scalar())


def newest(conn: Connection, names: Collection[str] | None = None) -> dict[str, int]:
    """Return name -> place of its newest signal, 0 for one that was never emitted.

    :param names: None for all that were ever emitted.
    """
    query = select(signal_name.c.name, signal_name.c.last_seq)
    if names is None:
        return {row.name: row.last_seq for row in conn.execute(query)}
    found = dict.fromkeys(names, 0)
    for some in _chunks(sorted(names)):
        rows = conn.execute(query.where(signal_name.c.name.in_(some)))
        found.update({row.name: row.last_seq for row in rows})
    return found


def since(conn: Connection, places: Mapping[str, int], *, limit: int) -> list[Signal]:
    """Return the signals of some names beyond known places, in the order of name and place, at most so many.

    What it returns of a name is without gaps, because signals of a name become visible one after the other.

    :param places: name -> place of the last signal that is known, 0 for none.
    """
    found: list[Signal] = []
    for some in _chunks(sorted(places)):
        known = (
            values(column("name", String), column("seq", Number), name="places")
            .data([(n, places[n]) for n in some])
            .cte("known")
        )
        query = (
            select_signals()
            .join(known, known.c.name == signal_name.c.name)
            .where(signal.c.seq > known.c.seq)
            .order_by(signal_name.c.name, signal.c.seq)
            .limit(limit - len(found))
        )
        found += [read_signal(row) for row in conn.execute(query)]
        if len(found) >= limit:
            break
    return found


def list_signals(conn: Connection, wanted: SignalDependency | None, *, limit: int) -> list[Signal]:
    """Return signals, newest first.

    :param wanted: name and conditions; None is all signals.
    """
    query = select_signals().order_by(signal.c.created_at.desc(), signal.c.seq.desc()).limit(limit)
    if wanted is not None:
        known = _known(conn, wanted.name)
        conditions = None if known is None else _conditions(signal, wanted, known)
        if known is None or conditions is None:
            return []
        query = query.where(signal.c.name_id == known[0], *conditions)
    return [read_signal(row) for row in conn.execute(query)]


def _known(conn: Connection, name: str) -> tuple[int, dict[str, Kind]] | None:
    """Return a name's id and the kinds of its parameters; None if it was never emitted."""
    name_id = conn.execute(select(signal_name.c.id).where(signal_name.c.name == name)).scalar()
    if name_id is None:
        return None
    rows = conn.execute(select(signal_kind.c.param, signal_kind.c.kind).where(signal_kind.c.name_id == name_id))
    return int(name_id), {row.param: row.kind for row in rows}


def _first(
    conn: Connection, group: Sequence[tuple[SignalDependency, tuple[int, dict[str, Kind]]]]
) -> list[tuple[int, int]] | None:
    """Return the places of the first signals that match and join."""
    tables = [signal.alias() for _ in group]
    conditions: list[ColumnElement[bool]] = []
    for table, (dependency, known) in zip(tables, group, strict=True):
        own = _conditions(table, dependency, known)
        if own is None:
            return None
        conditions += [table.c.name_id == known[0], *own]
    columns: list[list[Any]] = []
    for table, (dependency, _) in zip(tables, group, strict=True):
        joined = []
        for key in dependency.join:
            param = signal_param.alias()
            conditions.append(_is_param(param, table, key))
            joined.append(param.c.value)
        columns.append(joined)
    for joined in columns[1:]:
        conditions += [one == other for one, other in zip(columns[0], joined, strict=True)]
    places = [c for table in tables for c in (table.c.name_id, table.c.seq)]
    row = conn.execute(select(*places).where(*conditions).order_by(*(t.c.seq for t in tables)).limit(1)).first()
    return None if row is None else [(row[n], row[n + 1]) for n in range(0, len(row), 2)]


def _conditions(table: Any, dependency: SignalDependency, known: tuple[int, dict[str, Kind]]) -> list[Any] | None:
    """Return what a signal has to fulfil; None if no signal of the name ever had one of the parameters."""
    _, kinds = known
    if any(key not in kinds for key in (*dependency.match, *dependency.join)):
        return None
    found = []
    for key, condition in dependency.match.items():
        what = f"parameter {key!r} of signal {dependency.name!r}"
        wanted = [encode(read_as(kinds[key], value, what=what)) for value in condition.values]
        param = signal_param.alias()
        value = param.c.value
        if condition.operator in ("=", "in"):
            fits: ColumnElement[bool] = value.in_(wanted)
        else:
            # Values of a parameter are all of one kind, so the first letter of the text never decides.
            fits = {">": value > wanted[0], ">=": value >= wanted[0], "<": value < wanted[0], "<=": value <= wanted[0]}[
                condition.operator
            ]
        found.append(exists().where(_is_param(param, table, key), fits))
    return found


def _is_param(param: Any, table: Any, key: str) -> ColumnElement[bool]:
    return and_(param.c.name_id == table.c.name_id, param.c.seq == table.c.seq, param.c.param == key)


def _chunks(names: Sequence[str]) -> list[list[str]]:
    left = iter(names)
    return list(iter(lambda: list(itertools.islice(left, _NAMES)), []))
