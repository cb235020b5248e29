"""What gates and subscriptions cost grows with the signals, not with their pairs; SQLite, which has no statistics, counts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection

from airflow_incremental.core.signals import SignalDependency, ge, read_dependencies
from airflow_incremental.store.database import Store
from airflow_incremental.store.emitting import Emission, emit_on
from airflow_incremental.store.searching import find_gate
from airflow_incremental.store.subscriptions import advance, subscribe
from tests.support.stores import TASK

T = TypeVar("T")
EACH = 400
#: Instructions of SQLite's machine, in thousands; a pair of signals takes some ten.
MOST = 150


@pytest.fixture
def filled(sqlite_store: Store) -> Store:
    """A store with signals of two names, all of one region, that share no batch."""
    with sqlite_store.write() as conn:
        for n in range(EACH):
            for name, batch in (("a", n), ("b", EACH + n)):
                emit_on(conn, Emission.read(name, {"batch": batch, "hour": n, "region": "eu"}, emitter=TASK))
    return sqlite_store


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        pytest.param(
            [
                SignalDependency("a", {"hour": ge(0)}, ("region",)),
                SignalDependency("b", {"hour": ge(EACH)}, ("region",)),
            ],
            None,
            id="the partner is not there yet",
        ),
        pytest.param(
            [SignalDependency("a", {"region": "eu"}, ("batch",)), SignalDependency("b", {"region": "eu"}, ("batch",))],
            None,
            id="none of many is the partner of another",
        ),
        pytest.param(
            [
                SignalDependency("a", {"region": "eu"}, ("batch", "hour")),
                SignalDependency("b", {"region": "eu"}, ("batch", "hour")),
            ],
            None,
            id="joined on two",
        ),
        pytest.param(
            [SignalDependency("a", {"hour": ge(9)}, ("region",)), SignalDependency("b", {"hour": ge(7)}, ("region",))],
            (10, 8),
            id="all are partners",
        ),
    ],
)
def test_a_gate_does_not_look_at_all_pairs(filled: Store, asked: list[Any], place: Any) -> None:
    dependencies = read_dependencies(asked)

    with filled.read() as conn:
        found, thousands = counted(conn, lambda: find_gate(conn, dependencies))

    assert (found and tuple(signal.seq for signal in found)) == place
    assert thousands < MOST


@pytest.mark.parametrize("joined", [(), ("region",), ("batch",)], ids=lambda joined: "joined on " + "".join(joined))
def test_a_subscription_that_comes_late_does_not_look_at_all_pairs(
    sqlite_store: Store, joined: tuple[str, ...]
) -> None:
    spent = []
    for turn, many in enumerate((100, 1_000)):
        name = f"s{turn}"
        with sqlite_store.write() as conn:
            subscribe(conn, name, [SignalDependency(name, join=joined)] * 2)
            for n in range(many):
                emit_on(conn, Emission.read(name, {"batch": n, "region": "eu"}, emitter=TASK))
        with sqlite_store.write() as conn:
            made, thousands = counted(conn, lambda conn=conn, name=name: advance(conn, name))  # type: ignore[misc]
        assert made == many
        spent.append(thousands)
    assert spent[1] < 25 * spent[0]


def counted(conn: Connection, work: Callable[[], T]) -> tuple[T, int]:
    """Do work, and return its result with how many thousands of instructions SQLite's machine took for it."""
    thousands = 0

    def count() -> int:
        nonlocal thousands
        thousands += 1
        return 0

    raw: Any = conn.connection.dbapi_connection
    raw.set_progress_handler(count, 1000)
    result = work()
    raw.set_progress_handler(None, 0)
    return result, thousands
