"""Any history of emits, against a naive model: what is emitted, what followers see, and which gates open with which signals."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signals import Signal, SignalDependency, ge, gt, in_, le, lt, read_dependencies
from airflow_incremental.store import searching
from airflow_incremental.store.database import Store
from airflow_incremental.store.emitting import Emission, emit_on
from airflow_incremental.store.searching import find_gate, has_signal, list_signals, newest, since
from tests.support.stores import TASK, empty

NAMES = ("a", "b")
#: Parameter -> values of its kind: texts that sort otherwise in other locales, and that SQL or templates might take for theirs.
VALUES: dict[str, list[Any]] = {
    "n": [-(2**63), -10, -9, 0, 7, 10, 2**63 - 1],
    "text": ["", "B", "a", "Z", "é", "'", "%s {0}\\", "日本", "🦆", "￿"],
    "day": [dt.date(1999, 12, 31), dt.date(2023, 9, 14), dt.date(2023, 10, 1)],
    "at": [dt.datetime(2023, 9, 14, 6, 0, 0, micro, tzinfo=UTC) for micro in (0, 1, 999_999)],
}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Emission], list[tuple[SignalDependency, ...]]]:
    """What is emitted, and gates that ask for it: both of few values, so that they often meet."""
    few = {key: draw(st.lists(st.sampled_from(values), min_size=1, max_size=3)) for key, values in VALUES.items()}
    keys = st.sampled_from(list(VALUES))

    def params() -> dict[str, Any]:
        return {key: draw(st.sampled_from(few[key])) for key in VALUES if draw(st.integers(0, 5))}

    def match() -> dict[str, Any]:
        """Conditions with one range at most."""
        found: dict[str, Any] = {}
        for key in draw(st.lists(keys, max_size=1)):
            one = st.sampled_from(few[key])
            found[key] = draw(st.one_of(one, st.lists(one, min_size=1, max_size=3).map(in_)))
        for key in draw(st.lists(keys, max_size=1)):
            found[key] = draw(st.sampled_from([gt, ge, lt, le]))(draw(st.sampled_from(few[key])))
        return found

    def gate() -> tuple[SignalDependency, ...]:
        joined = draw(st.integers(0, 2))
        join = draw(st.lists(keys, min_size=joined, max_size=joined, unique=True))
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
        return read_dependencies([{"name": name, "match": match(), "join": join} for name in names])

    def emission() -> Emission:
        request_id = draw(st.sampled_from([None, None, None, "r1", "r2"]))
        return Emission.read(draw(st.sampled_from(NAMES)), params(), request_id=request_id, emitter=TASK)

    return [emission() for _ in range(draw(st.integers(0, 14)))], [gate() for _ in range(6)]


class Model:
    """All signals in a list."""

    def __init__(self) -> None:
        self.signals: list[Signal] = []

    def of(self, name: str) -> list[Signal]:
        return [signal for signal in self.signals if signal.name == name]

    def gate(self, dependencies: tuple[SignalDependency, ...]) -> tuple[Signal, ...] | None:
        fitting = [[s for s in self.of(wanted.name) if wanted.matches(s.params)] for wanted in dependencies]
        for signals in itertools.product(*fitting):  # in the order of seq, the first dependency's before all
            if len({wanted.join_value(s.params) for wanted, s in zip(dependencies, signals, strict=True)}) == 1:
                return signals
        return None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(world=worlds(), limit=st.integers(1, 4), few=st.sampled_from([0, 1, 100]))
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_any_history_is_searched_as_a_list_would_be(
    backend: str, request: pytest.FixtureRequest, world: tuple[list[Emission], list[Any]], limit: int, few: int
) -> None:
    history, asked = world
    store: Store = request.getfixturevalue(f"{backend}_store")
    empty(store)
    model, facts, places = Model(), set(), dict.fromkeys(NAMES, 0)
    seen: list[Signal] = []
    with store.write() as conn:
        for emission in history:
            emitted = emit_on(conn, emission)
            key = (emission.name, emission.request_id or tuple(emission.params.items()))
            assert emitted.new == (key not in facts)
            if emitted.new:
                assert emitted.signal.seq == len(model.of(emission.name)) + 1
                assert emitted.signal.params == emission.params
                facts.add(key)
                model.signals.append(emitted.signal)
            assert emitted.signal in model.signals
            for signal in since(conn, places, limit=limit):
                assert signal.seq == places[signal.name] + 1
                places[signal.name] = signal.seq
                seen.append(signal)
    with pytest.MonkeyPatch.context() as patch, store.read() as conn:
        while found := since(conn, places, limit=limit):
            places.update({signal.name: signal.seq for signal in found})
            seen += found
        assert sorted(seen, key=str) == sorted(model.signals, key=str)
        assert newest(conn, [*NAMES, "never"]) == {name: len(model.of(name)) for name in (*NAMES, "never")}
        assert all(has_signal(conn, signal.name, signal.identity) for signal in model.signals)
        patch.setattr(searching, "_FEW", few)
        for dependencies in [*asked, read_dependencies([{"name": "a"}, {"name": "never"}])]:
            assert find_gate(conn, dependencies) == model.gate(dependencies)
            wanted = dependencies[0]
            fitting = [s for s in model.of(wanted.name) if wanted.matches(s.params)]
            assert list_signals(conn, wanted, limit=limit) == fitting[::-1][:limit]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(key=st.sampled_from(list(VALUES)), other=st.sampled_from(list(VALUES)), data=st.data())
def test_a_gate_of_another_kind_is_refused_as_the_model_refuses_it(
    sqlite_store: Store, key: str, other: str, data: st.DataObject
) -> None:
    empty(sqlite_store)
    value, asked = data.draw(st.sampled_from(VALUES[key])), data.draw(st.sampled_from(VALUES[other]))
    with sqlite_store.write() as conn:
        signal = emit_on(conn, Emission.read("a", {"p": value}, emitter=TASK)).signal
    (wanted,) = read_dependencies([{"name": "a", "match": {"p": asked}}])

    def outcome(look: Any) -> Any:
        try:
            return bool(look())
        except ArgumentError as error:
            return str(error)

    with sqlite_store.read() as conn:
        assert outcome(lambda: find_gate(conn, [wanted])) == outcome(lambda: wanted.matches(signal.params))
