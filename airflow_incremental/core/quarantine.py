"""Rows put aside: where they go, and what a session says of them.

Plain values; the tables and commits are in ``iceberg.quarantine``, the order of events in ``sessions.quarantine``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import check_table, is_template
from airflow_incremental.core.spec import ProcessSpec

#: What a quarantine table has besides the columns of its target.
PROCESS_COLUMN = "quarantine_process"
SESSION_COLUMN = "quarantine_session"
TIME_COLUMN = "quarantined_at"
REASONS_COLUMN = "quarantine_reasons"
MARKERS = (PROCESS_COLUMN, SESSION_COLUMN, TIME_COLUMN, REASONS_COLUMN)
_SUFFIX = "__quarantine"


@attrs.frozen(kw_only=True)
class Quarantined:
    """What one session put aside; kept in the summary of its sealed snapshot, and so with the publish.

    :param table: identifier of the quarantine table.
    :param snapshot_id: the snapshot of that table that holds the rows until they are released.
    :param rows: how many rows; one that offends several audits counts once.
    :param counts: name of the audit -> rows that offended, rows it had looked at.
    :param of: write id of the output the rows were taken from.
    """

    table: str
    snapshot_id: int
    rows: int
    counts: Mapping[str, tuple[int, int]] = attrs.field(factory=dict)
    of: str = ""

    def dumps(self) -> str:
        """Return compact, stable JSON."""
        return json.dumps(attrs.asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> Quarantined:
        """Read what ``dumps`` wrote; unknown keys of a newer version are left out."""
        plain = json.loads(text)
        plain["counts"] = {name: (int(found[0]), int(found[1])) for name, found in plain["counts"].items()}
        return cls(**{f.name: plain[f.name] for f in attrs.fields(cls) if f.name in plain})


def default_table(target: str) -> str:
    """Return the identifier of a target's quarantine table, in the same namespace."""
    return target + _SUFFIX


def check_quarantine(spec: ProcessSpec | None, table: Any, puts_aside: Sequence[str]) -> None:
    """Refuse what cannot put rows aside.

    :param spec: what the process declares; None while that is not known.
    :param table: the quarantine table that is asked for, or None for the default one.
    :param puts_aside: names of the audits that put rows aside.
    :raises ArgumentError: the table is no identifier or one the process reads or writes, or the mode carries rows on.
    """
    if table is not None:
        check_table(table, what="quarantine_table")
    if spec is None:
        return
    used = {spec.target.table, *(source.table for source in spec.sources.values())}
    if not is_template(table) and table in used:
        raise ArgumentError(
            f"quarantine_table of process {spec.process!r} is {table!r}, a table it reads or writes",
            expected="a table of its own",
            hint=f"leave it out for {default_table(spec.target.table)!r}",
        )
    if puts_aside and spec.state is not None and not is_template(spec.state):
        raise ArgumentError(
            f"process {spec.process!r} has state={str(spec.state)!r}, and its audit {puts_aside[0]!r} has severity='quarantine'",
            expected="severity 'block', 'warn' or 'ask': each step has read the rows of the one before it as state by the time the "
            "audits run, so rows put aside would have gone into others that are published",
            hint="filter such rows in the transform, or choose another severity",
        )
