"""What a gate on joined signals costs grows with the signals, not with their pairs; SQLite, which has no statistics, counts it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_incremental.core.signals import SignalDependency, ge, read_dependencies
from airflow_incremental.store.database import Store
from airflow_incremental.store.emitting import Emission, emit_on
from airflow_incremental.store.searching import find_gate
from tests.support.stores import TASK

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
    thousands = 0

    def count() -> int:
        nonlocal thousands
        thousands += 1
        return 0

    with filled.read() as conn:
        raw: Any = conn.connection.dbapi_connection
        raw.set_progress_handler(count, 1000)
        found = find_gate(conn, dependencies)
        raw.set_progress_handler(None, 0)

    assert (found and tuple(signal.seq for signal in found)) == place
    assert thousands < MOST
