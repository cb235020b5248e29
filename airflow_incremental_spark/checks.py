"""What the rows of an attempt may be: inside the planned ranges, the process's scope and the changed keys.

Others are looked for among the rows that were appended, after they were: Iceberg knows the least and greatest values of the new
files, so those that lie wholly inside are not opened for it. A row outside would be added to a part of the table that the session
does not replace, and be doubled by the next one.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from airflow_incremental_spark.conditions import in_scope
from airflow_incremental_spark.document import quote
from airflow_incremental_spark.errors import DriverError
from airflow_incremental_spark.keys import Keys
from airflow_incremental_spark.settings import functions_of
from airflow_incremental_spark.times import Ranges, TimeColumn, show


def check_times(rows: Any, time: TimeColumn, ranges: Ranges) -> None:
    """Refuse rows whose event time is outside the ranges.

    :raises DriverError: with how many, and between which event times; no other values.
    """
    if ranges.everything:
        return
    name = quote(time.name)
    ends = f"CAST({name} AS TIMESTAMP)"
    found = (
        time.outside(rows.select(functions_of(rows).col(name)), ranges)
        .selectExpr(
            f"count({name}) AS rows",
            f"count_if({name} IS NULL) AS nulls",
            f"unix_micros(min({ends})) AS low",
            f"unix_micros(max({ends})) AS high",
        )
        .collect()[0]
    )
    if found["nulls"]:
        raise DriverError(
            f"the transform returned {found['nulls']:,} rows whose event time {time.name!r} is null",
            expected=f"event times in the planned ranges: {ranges}",
            hint=f"filter with {time.name} IS NOT NULL, or set on_null_event_time='own_range'",
            where="transform",
        )
    if found["rows"]:
        raise DriverError(
            f"the transform returned {found['rows']:,} rows whose {time.name!r} is outside the planned ranges, from "
            f"{show(found['low'])} to {show(found['high'])}",
            expected=f"event times in {ranges}",
            hint=f"filter {time.name!r} by the ranges in plan_ranges (range_start, range_end), or carry the source's event time "
            "through unchanged",
            where="transform",
        )


def check_scope(rows: Any, scope: Mapping[str, Sequence[Any]]) -> None:
    """Refuse rows outside the scope.

    :param scope: columns, and the values that each may have.
    :raises DriverError: with the column and how many.
    """
    for column, values in scope.items():
        outside = rows.where(~in_scope(functions_of(rows), rows.schema, {column: values})).count()
        if outside:
            raise DriverError(
                f"the transform returned {outside:,} rows whose {column!r} is outside the scope of the process",
                expected="{} in ({})".format(column, ", ".join(repr(v) for v in values)),
                hint=f"filter on {column!r} in the transform; a process of its own can load the other rows",
                where="transform",
            )


def check_keys(rows: Any, keys: Keys) -> None:
    """Refuse rows without a whole key, and of keys that did not change.

    :raises DriverError: with how many.
    """
    columns = [quote(c) for c in keys.columns]
    missing = " OR ".join(f"{c} IS NULL" for c in columns)
    found = (
        keys.others(rows.select(*columns)).selectExpr("count(*) AS rows", f"count_if({missing}) AS nulls").collect()[0]
    )
    names = ", ".join(keys.columns)
    if found["nulls"]:
        raise DriverError(
            f"the transform returned {found['nulls']:,} rows whose key ({names}) is null, or null in part",
            expected="a key in every row",
            hint="filter them out, or choose other keys",
            where="transform",
        )
    if found["rows"]:
        raise DriverError(
            f"the transform returned {found['rows']:,} rows whose key ({names}) is none of the {keys.count:,} changed ones",
            expected="rows of keys that the drivers' rows have: only those are replaced, others would be doubled",
            hint="carry the keys of the drivers through unchanged; keys that only a lookup has make no rows of their own",
            where="transform",
        )
