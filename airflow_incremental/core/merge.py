"""What ``merge`` needs declared: the columns that make up a key, in the target and in every driver.

A target row depends on all source rows of its key, so the keys of changed rows say what is computed again (the row-level filter of
Netflix's incremental processing): all source rows of those keys are read, and the target rows of those keys are replaced.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template


def parse_horizon(value: Any) -> dt.timedelta | None:
    """Read how far apart in event time the rows of one key can be: a duration, or seconds."""
    if value is None or isinstance(value, dt.timedelta):
        found = value
    elif is_template(value):
        return None  # looked at when it is rendered
    elif (isinstance(value, (int, float)) and not isinstance(value, bool)) or _is_number(value):
        found = dt.timedelta(seconds=float(value))
    else:
        raise ArgumentError(f"key_horizon is {value!r}", expected="a timedelta, a number of seconds, or None")
    if found is not None and found < dt.timedelta(0):
        raise ArgumentError(f"key_horizon is {found}", expected="a duration that is not negative")
    return found


def _is_number(value: Any) -> bool:
    """Say whether a text is a number, as templates render it."""
    return isinstance(value, str) and value.replace(".", "", 1).isdigit()


def check_merge(
    process: str,
    mode: str,
    *,
    keys: tuple[str, ...],
    horizon: dt.timedelta | None,
    on_rewrite: str,
    drivers: dict[str, Any],
) -> None:
    """Refuse keys where there is no ``merge``, and a ``merge`` whose rows cannot be told by key.

    :raises ArgumentError: with what to write instead.
    """
    with_keys = [name for name, s in drivers.items() if s.key_columns is not None]
    if mode != "merge":
        if (keys or horizon is not None or with_keys) and not is_template(mode):
            what = (
                "keys" if keys else "key_horizon" if horizon is not None else f"key_columns of source {with_keys[0]!r}"
            )
            raise ArgumentError(
                f"process {process!r} has mode={mode!r} and {what}", expected=f"{what} in mode 'merge' only"
            )
        return
    if not keys:
        raise ArgumentError(
            f"process {process!r} has mode='merge' and no keys",
            expected="the columns by which a target row is told from others",
            hint="write keys=['customer_id'], or the several columns that make up the key",
        )
    if on_rewrite != "fail":
        raise ArgumentError(
            f"on_rewrite of process {process!r} is {on_rewrite!r} in mode 'merge'",
            expected="on_rewrite in mode 'append' only: the keys of rewritten rows are computed again",
            hint="leave on_rewrite out",
        )
    for name, source in drivers.items():
        if source.key_columns is not None and len(source.key_columns) != len(keys):
            raise ArgumentError(
                f"source {name!r} of process {process!r} has key_columns {list(source.key_columns)!r}, and the process the "
                f"keys {list(keys)!r}",
                expected="one column of the source for each of the process's keys, in the same order",
            )
        if horizon is not None and source.event_time is None:
            raise ArgumentError(
                f"process {process!r} has a key_horizon, and its source {name!r} no event_time",
                expected="IcebergSource(table, event_time=<column>): the horizon is a distance in event time",
            )
