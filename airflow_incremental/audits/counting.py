"""The one pass over the rows: all aggregates of all measures as one statement, and what its values mean.

Only what is to be unique takes another look, and only if the first says that some rows share their key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_incremental.audits.compile import Counts, Measure
from airflow_incremental.core.audit import AuditIncomplete


def counting(measures: Sequence[Measure], rows: str, more: Sequence[str] = ()) -> str:
    """Return the statement: one row of the number of rows, each measure's aggregates in order, and ``more`` of them.

    :param rows: the relation.
    """
    parts = ["count(*)", *(a for m in measures for a in m.aggregates), *more]
    return f"SELECT {', '.join(parts)} FROM {rows}"  # noqa: S608


def taken_apart(measures: Sequence[Measure], values: Sequence[Any]) -> tuple[int, dict[str, list[Any]]]:
    """Return the number of rows and the values of each measure's aggregates, by its name, of the statement's row."""
    total, *found = values
    numbers = iter(found)
    return total, {m.name: [next(numbers) for _ in m.aggregates] for m in measures}


def sharing(keys: Sequence[str], rows: str) -> str:
    """Return a query of how many rows share their key with another.

    :param rows: the relation.
    """
    present = " AND ".join(f"{k} IS NOT NULL" for k in keys)
    group = f"FROM {rows} WHERE {present} GROUP BY {', '.join(keys)} HAVING count(*) > 1"
    return f"SELECT CAST(coalesce(sum(n), 0) AS BIGINT) FROM (SELECT count(*) AS n {group})"  # noqa: S608


def shares(measure: Measure, values: Sequence[Any]) -> bool:
    """Say whether the values of a measure's aggregates show that rows share a key: rows with a key, different keys."""
    return bool(measure.keys) and values[0] != values[1]


def counts_of(
    measures: Sequence[Measure], total: int, taken: Mapping[str, Sequence[Any]], shared: Mapping[str, int]
) -> dict[str, Counts]:
    """Return what each measure found, by its name.

    :param shared: how many rows share their key with another, for the measures of which some do.
    :raises AuditIncomplete: none do where the first look said that some would.
    """
    if any(shares(m, taken[m.name]) and not shared.get(m.name) for m in measures):
        raise AuditIncomplete(
            "reading the written rows a second time gave other rows than the first",
            expected="the rows of one snapshot, however often they are read",
            hint="retry the task; if it happens again, report it with the storage the table is on",
        )
    return {
        m.name: m.read(total, [*taken[m.name], shared.get(m.name, 0)] if m.keys else taken[m.name]) for m in measures
    }
