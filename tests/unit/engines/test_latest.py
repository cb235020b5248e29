"""The SQL of a state: rows in scope only, of each key the latest, and of equal ones always the same."""

from __future__ import annotations

import datetime as dt
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from airflow_incremental.core.stateful import State
from airflow_incremental.engines.latest import state_query

DAY = dt.date(2024, 1, 1)
SCHEMA = pa.schema(
    [
        ("ts", pa.int64()),
        ("key", pa.string()),
        ('odd "name', pa.string()),
        ("n", pa.int64()),
        ("d", pa.date32()),
        ("b", pa.bool_()),
    ]
)
ROWS = [
    (1, "x", "o'k", 1, DAY, True),
    (2, "x", None, 2, DAY, False),
    (2, "y", "o'k", 3, None, True),
    (2, "y", "o'k", 4, DAY, None),
    (None, "z", "other", 5, DAY, True),
]


def found(state: str, scope: Any = None, rows: Any = ROWS) -> list[int]:
    table = pa.Table.from_pylist([dict(zip(SCHEMA.names, r, strict=True)) for r in rows], schema=SCHEMA)
    with duckdb.connect() as con:
        con.register("state", table)
        made = con.sql(state_query(State.parse(state), SCHEMA, "ts", scope)).fetchall()  # type: ignore[arg-type]
    return sorted(r[3] for r in made)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (None, [1, 2, 3, 4, 5]),
        ({'odd "name': ("o'k",)}, [1, 3, 4]),
        ({'odd "name': ("o'k", None)}, [1, 2, 3, 4]),
        ({'odd "name': (None,)}, [2]),
        ({"n": (1, 5)}, [1, 5]),
        ({"d": (DAY,), "b": (True,)}, [1, 5]),
        ({"b": (False, None)}, [2, 4]),
    ],
)
def test_only_rows_in_scope(scope: Any, expected: list[int]) -> None:
    assert found("previous_step", scope) == expected


def test_of_each_key_the_latest_in_scope() -> None:
    assert found("latest_by(key)") == [2, 4, 5]
    assert found("latest_by(key)", {'odd "name': ("o'k",)}) == [1, 4], "not the latest of all, if that is out of scope"
    assert found("latest_by(key)", rows=ROWS[::-1]) == [2, 4, 5], "whatever order rows come in"
    assert found("latest_by(key, b)") == [1, 2, 3, 4, 5]
