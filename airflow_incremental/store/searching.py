"""Look for signals: in all of history for a gate, beyond known places for whoever follows, by condition for people."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Text,
    and_,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB

from airflow_incremental.core.signal_values import Kind, encode, read_as
from airflow_incremental.core.signals import Condition, Signal, SignalDependency
from airflow_incremental.store.reading import read_signal, select_signals, signals_at
from airflow_incremental.store.schema import signal, signal_kind, signal_name, signal_param

#: Signals that fit a dependency, and are looked at one by one if there are no more.
_FEW = 100
#: Names whose new signals are asked for in one statement.
_NAMES = 100


def find_gate(conn: Connection, dependencies: Sequence[SignalDependency]) -> tuple[Signal, ...] | None:
    """Return signals of all of history, one per dependency, that match and whose join parameters are equal, or None.

    Of several, those that were emitted first: the first dependency's before all, then the second's, and so on. So the answer to a
    question stays the same once there is one.

    :raises ArgumentError: a condition is of another kind than the parameter.
    """
    wanted = _look_up(conn, dependencies)
    if wanted is None:
        return None
    first, *others = wanted
    restrictions = first.fits()
    if others:
        few = _few_joins(conn, wanted)
        if few is None:
            # Not all combinations: a first signal that has partners, and then, its join being known, each partner by itself.
            restrictions += [_has_partner(conn, first, other) for other in others]
        elif not few:
            return None
        elif first.join:
            restrictions.append(first.among(few))
    found = conn.execute(first.places(*restrictions).limit(1)).first()
    if found is None:
        return None
    seq, *join = found
    places = [(first.name_id, seq)]
    for other in others:
        partner = conn.execute(other.places(*other.joins(join)).limit(1)).scalars().one()
        places.append((other.name_id, partner))
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
    if names is not None:
        given = _given(conn, dict.fromkeys(names, 0))
        query = query.join(given, given.c.key == signal_name.c.name)
    return dict.fromkeys(names or (), 0) | {row.name: row.last_seq for row in conn.execute(query)}


def since(conn: Connection, places: Mapping[str, int], *, limit: int) -> list[Signal]:
    """Return the signals of some names beyond known places, in the order of name and place, at most so many.

    What it returns of a name is without gaps, because signals of a name become visible one after the other. It is one query if
    there are none, whatever the number of names, and what it costs does not depend on how many signals there were before.

    :param places: name -> place of the last signal that is known, 0 for none.
    """
    given = _given(conn, places)
    ahead = signal_name.c.last_seq > cast(given.c.value, BigInteger)
    moved = select(signal_name.c.name, signal_name.c.id).join(given, given.c.key == signal_name.c.name).where(ahead)
    names = sorted((row.name, row.id) for row in conn.execute(moved))
    found: list[Signal] = []
    for first in range(0, len(names), _NAMES):
        some = names[first : first + _NAMES]
        # Written out, because a database that joined the places would go through all signals of a name.
        beyond = or_(*(and_(signal.c.name_id == name_id, signal.c.seq > places[name]) for name, name_id in some))
        query = select_signals().where(beyond).order_by(signal_name.c.name, signal.c.seq).limit(limit - len(found))
        found += [read_signal(row) for row in conn.execute(query)]
        if len(found) >= limit:
            break
    return sorted(found, key=lambda each: (each.name, each.seq))


def list_signals(conn: Connection, wanted: SignalDependency | None, *, limit: int) -> list[Signal]:
    """Return signals, newest first.

    :param wanted: name and conditions; None is all signals.
    """
    if wanted is None:
        query = (
            select_signals().order_by(signal.c.created_at.desc(), signal.c.name_id, signal.c.seq.desc()).limit(limit)
        )
        return [read_signal(row) for row in conn.execute(query)]
    found = _look_up(conn, [wanted])
    if found is None:
        return []
    (only,) = found
    newest_first = select(only.seq).where(*only.fits()).order_by(only.seq.desc())
    places = [(only.name_id, seq) for seq in conn.execute(newest_first.limit(limit)).scalars()]
    read = signals_at(conn, places)
    return [read[place] for place in places]


@attrs.frozen
class _Wanted:
    """A dependency as a query.

    :param params: the table of parameters, once for each one that is asked for.
    :param conditions: on their values.
    :param unindexed: the same, but that ranges are not looked up in the index: without statistics, SQLite takes a range for
        narrower than the values of a join that are known, and goes through all of it.
    :param join: the values of the join.
    :param seq: of a signal that fits.
    """

    name_id: int
    params: Mapping[str, FromClause]
    conditions: Sequence[ColumnElement[bool]]
    unindexed: Sequence[ColumnElement[bool]]
    join: Sequence[ColumnElement[str]]
    seq: ColumnElement[int]

    def fits(self, *, joined: bool = False) -> list[ColumnElement[bool]]:
        """Say that a signal is as it is asked for.

        :param joined: whether the values of the join are known besides.
        """
        of_one = [param.c.seq == self.seq for param in self.params.values() if param.c.seq is not self.seq]
        named = [param.c.param == key for key, param in self.params.items()]
        of_name = [param.c.name_id == self.name_id for param in self.params.values()]
        return [*of_name, *named, *of_one, *(self.unindexed if joined else self.conditions)]

    def joins(self, values: Sequence[ColumnElement[str] | str]) -> list[ColumnElement[bool]]:
        """Say that a signal is as it is asked for, and that the values of the join are these."""
        return [*self.fits(joined=True), *(own == other for own, other in zip(self.join, values, strict=True))]

    def among(self, values: Collection[tuple[str, ...]]) -> ColumnElement[bool]:
        """Say that the values of the join are some of these."""
        if len(self.join) == 1:
            return self.join[0].in_([value for (value,) in values])
        return tuple_(*self.join).in_(list(values))

    def places(self, *restrictions: ColumnElement[bool]) -> Select[Any]:
        """Select the seq of signals, and the values of their join, first ones first."""
        columns: list[ColumnElement[Any]] = [self.seq, *self.join]
        return select(*columns).where(*restrictions).order_by(self.seq)


def _few_joins(conn: Connection, wanted: Sequence[_Wanted]) -> set[tuple[str, ...]] | None:
    """Return the values of the join that all dependencies have, or None if there are many signals that fit each of them.

    Mostly, what is waited for is not there yet, or few signals fit. A database that had to find out by itself, without statistics
    or with misleading ones, would go through all partners for each of the other signals.
    """
    known: list[set[tuple[Any, ...]]] = []
    many = []
    for each in wanted:
        query = select(*(each.join or [literal(0)])).where(*each.fits())
        rows = conn.execute(query.limit(_FEW + 1 if each.join else 1)).all()
        if not rows:
            return set()
        if each.join and len(rows) > _FEW:
            many.append(each)
        else:
            known.append({tuple(row) for row in rows})
    if not known:
        return None
    few = set.intersection(*known)
    for each in many:
        if few:
            query = select(*each.join).where(*each.fits(joined=True), each.among(few)).distinct()
            few &= {tuple(row) for row in conn.execute(query)}
    return few


def _has_partner(conn: Connection, first: _Wanted, other: _Wanted) -> ColumnElement[bool]:
    """Say that there is a signal with the same values of the join."""
    if conn.dialect.name == "postgresql":
        return exists().where(*other.joins(first.join))
    # SQLite looks into a list that it makes once, and not through an index that may be the wrong one, again and again.
    own = [column.concat("") for column in first.join]
    return tuple_(*own).in_(select(*other.join).where(*other.fits()))


def _look_up(conn: Connection, dependencies: Sequence[SignalDependency]) -> list[_Wanted] | None:
    """Return dependencies as queries, or None if one asks for a name or a parameter that no signal has had yet."""
    query = (
        select(signal_name.c.name, signal_name.c.id, signal_kind.c.param, signal_kind.c.kind)
        .outerjoin(signal_kind)
        .where(signal_name.c.name.in_({dependency.name for dependency in dependencies}))
    )
    ids: dict[str, int] = {}
    kinds: dict[str, dict[str, Kind]] = {dependency.name: {} for dependency in dependencies}
    for row in conn.execute(query):
        ids[row.name] = row.id
        kinds[row.name][row.param] = row.kind
    # All are read before one is given up, so that a wrong condition is told of even while another signal is not there.
    wanted = [_wanted(dependency, ids.get(dependency.name), kinds[dependency.name]) for dependency in dependencies]
    found = [each for each in wanted if each is not None]
    return found if len(found) == len(wanted) else None


def _wanted(dependency: SignalDependency, name_id: int | None, kinds: Mapping[str, Kind]) -> _Wanted | None:
    params = {key: signal_param.alias() for key in dict.fromkeys((*dependency.match, *dependency.join))}
    conditions, unindexed = [], []
    for key, condition in dependency.match.items():
        if key in kinds:
            value, what = params[key].c.value, f"parameter {key!r} of signal {dependency.name!r}"
            conditions.append(_holds(condition, value, kinds[key], what=what))
            unindexed.append(
                _holds(condition, value.concat("") if condition.is_range else value, kinds[key], what=what)
            )
    if name_id is None or not params.keys() <= kinds.keys():
        return None
    join = [params[key].c.value for key in dependency.join]
    if not params:
        table = signal.alias()
        of_name = [table.c.name_id == name_id]
        return _Wanted(name_id, {}, of_name, of_name, [], table.c.seq)
    return _Wanted(name_id, params, conditions, unindexed, join, next(iter(params.values())).c.seq)


def _holds(condition: Condition, value: ColumnElement[str], kind: Kind, *, what: str) -> ColumnElement[bool]:
    """Say that a value is as asked for; those of a parameter are all of one kind, so the letters of kinds never decide."""
    wanted = [encode(read_as(kind, each, what=what)) for each in condition.values]
    if condition.operator in ("=", "in"):
        return value.in_(wanted)
    (limit,) = wanted
    ranges = {">": value > limit, ">=": value >= limit, "<": value < limit, "<=": value <= limit}
    return ranges[condition.operator]


def _given(conn: Connection, places: Mapping[str, int]) -> Any:
    """Return names and places as a table of ``key`` and ``value``.

    One JSON text, because databases take only some ten thousand parameters, and because the statement is then always the same.
    """
    text = json.dumps(dict(places))
    if conn.dialect.name == "postgresql":
        return func.jsonb_each_text(cast(literal(text, Text), JSONB)).table_valued("key", "value", name="given")
    return func.json_each(text).table_valued("key", "value", name="given")
