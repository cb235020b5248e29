"""Which of many waits a new signal concerns, found without asking each of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signal_values import Kind, Value, encode, kind_of, read_as
from airflow_incremental.core.signals import SignalDependency

K = TypeVar("K", bound=Hashable)


class SignalIndex(Generic[K]):
    """Signals that are waited for, by name and by what their parameters have to equal.

    A signal is only compared with the dependencies whose equalities it fulfills: ten thousand waits for as many hours cost it one
    look into a dictionary.
    """

    def __init__(self) -> None:
        self._groups: dict[str, dict[tuple[str, ...], _Group[K]]] = {}

    def add(self, key: K, dependency: SignalDependency) -> None:
        """Add what ``key`` waits for; a key that is there already is replaced."""
        equal = _equalities(dependency)
        groups = self._groups.setdefault(dependency.name, {})
        groups.setdefault(equal, _Group(equal)).add(key, dependency)

    def remove(self, key: K, dependency: SignalDependency) -> None:
        """Take away what was added."""
        groups = self._groups[dependency.name]
        equal = _equalities(dependency)
        groups[equal].remove(key)
        if not groups[equal].waiting:
            del groups[equal]
        if not groups:
            del self._groups[dependency.name]

    def find(self, name: str, params: Mapping[str, Value]) -> list[K]:
        """Return the keys whose dependency a signal fits, in no order.

        A dependency that asks for a value of another kind than the signal has is found, too: whoever waits has to hear that
        nothing will ever fit.
        """
        groups: Iterable[_Group[K]] = self._groups.get(name, {}).values()
        return [key for group in groups for key in group.find(params)]


@attrs.define
class _Group(Generic[K]):
    """Dependencies on one name that ask for equality of the same parameters.

    :param tables: kinds of these parameters -> their encoded values -> keys. Text that a template rendered is read as the kind that
        the signals have, which is known when the first one comes.
    :param misread: kinds -> keys that ask for something that is no value of these kinds.
    """

    equal: tuple[str, ...]
    waiting: dict[K, SignalDependency] = attrs.field(factory=dict)
    tables: dict[tuple[Kind, ...], dict[tuple[str, ...], set[K]]] = attrs.field(factory=dict)
    misread: dict[tuple[Kind, ...], set[K]] = attrs.field(factory=dict)

    def add(self, key: K, dependency: SignalDependency) -> None:
        self.waiting[key] = dependency
        for kinds in self.tables:
            self._file(kinds, key)

    def remove(self, key: K) -> None:
        for kinds, table in self.tables.items():
            self.misread[kinds].discard(key)
            values = self._values(kinds, key)
            if values is not None:
                table[values].discard(key)
                if not table[values]:
                    del table[values]
        del self.waiting[key]

    def find(self, params: Mapping[str, Value]) -> list[K]:
        if any(name not in params for name in self.equal):
            return []
        kinds = tuple(kind_of(params[name]) for name in self.equal)
        if kinds not in self.tables:
            self.tables[kinds], self.misread[kinds] = {}, set()
            for key in self.waiting:
                self._file(kinds, key)
        values = tuple(encode(params[name]) for name in self.equal)
        near = self.tables[kinds].get(values, ())
        return [*self.misread[kinds], *(key for key in near if _fits(self.waiting[key], params))]

    def _file(self, kinds: tuple[Kind, ...], key: K) -> None:
        values = self._values(kinds, key)
        if values is None:
            self.misread[kinds].add(key)
        else:
            self.tables[kinds].setdefault(values, set()).add(key)

    def _values(self, kinds: tuple[Kind, ...], key: K) -> tuple[str, ...] | None:
        """Return what a dependency's equal parameters have to be, encoded; None if they are no values of these kinds."""
        match = self.waiting[key].match
        try:
            return tuple(
                encode(read_as(kind, match[name].values[0], what=name))
                for name, kind in zip(self.equal, kinds, strict=True)
            )
        except ArgumentError:
            return None


def _equalities(dependency: SignalDependency) -> tuple[str, ...]:
    return tuple(sorted(name for name, condition in dependency.match.items() if condition.operator == "="))


def _fits(dependency: SignalDependency, params: Mapping[str, Value]) -> bool:
    try:
        return dependency.matches(params)
    except ArgumentError:
        return True
