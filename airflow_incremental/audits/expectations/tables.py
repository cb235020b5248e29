"""Expectations of the rows as a whole and of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations.given import Finding, Given, Left


def row_count_between(given: Given) -> Measure:
    """``expect_table_row_count_to_be_between``."""
    low, high = given.number("min_value"), given.number("max_value")
    if low is None and high is None:
        raise Left("neither min_value nor max_value is given")
    above, below = given.flag("strict_min"), given.flag("strict_max")

    def read(values: Sequence[Any]) -> Finding:
        (rows,) = values
        fits = (low is None or (rows > low if above else rows >= low)) and (
            high is None or (rows < high if below else rows <= high)
        )
        return Finding(fits, {"observed_value": rows})

    return given.measure((given.count(),), read)


def row_count_equal(given: Given) -> Measure:
    """``expect_table_row_count_to_equal``."""
    value = given.number("value")
    if not isinstance(value, int):
        raise Left("value is not a whole number")

    def read(values: Sequence[Any]) -> Finding:
        return Finding(values[0] == value, {"observed_value": values[0]})

    return given.measure((given.count(),), read)
