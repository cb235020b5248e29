"""Keys of every type find their rows, wherever the driver runs: conditions for Iceberg are not made of Python's values."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from airflow_incremental_spark import keys as module
from airflow_incremental_spark.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.spark.driver.lake import Lake

#: An hour that comes twice in New York, one that does not come there, and times before there were zones or years of four digits.
VALUES = {
    "timestamp": ["2024-11-03 05:30:00+00:00", "2024-11-03 06:30:00+00:00", "1800-01-01 00:00:00+00:00"],
    "timestamp_ntz": ["2024-11-03 01:30:00", "2024-03-10 02:30:00", "0001-01-01 00:00:00"],
    "date": ["0500-01-01", "1969-12-31", "2024-01-01"],
    "binary": ["", "a", "b"],
    "decimal(20,2)": ["-1.50", "0.00", "123456789012345678.25"],
    "string": ["", "A", "é"],
}


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_new_york")
@pytest.mark.parametrize("listed", [module.LISTED, 0])
@pytest.mark.parametrize("kind", VALUES)
def test_keys_find_their_rows(lake: Lake, monkeypatch: pytest.MonkeyPatch, kind: str, listed: int) -> None:
    monkeypatch.setattr(module, "LISTED", listed)
    name = lake.create("rows", f"k {kind}, n int")
    values = ", ".join(f"(CAST('{value}' AS {kind}), {n})" for n, value in enumerate(VALUES[kind]))
    lake.insert("rows", f"VALUES {values}, (NULL, 9)")
    rows = lake.spark.table(name)
    keys = Keys(rows.where("n < 9").select("k"))
    assert sorted(row["n"] for row in keys.rows(rows, ["k"]).select("n").collect()) == [0, 1, 2]
    assert [row["n"] for row in keys.others(rows).select("n").collect()] == [9]
    keys.forget()
