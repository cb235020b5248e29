"""Metrics of sessions, through Airflow's own StatsD or OpenTelemetry.

Each is sent twice, as Airflow does with its own: by the plain name with the tags ``process`` and ``dag_id``, and, for backends
without tags, with the process in the name (``incremental.rows.<process>``).

* ``incremental.watermark_lag_seconds`` (gauge): seconds from the event time up to which the target is complete to now
* ``incremental.rows``, ``incremental.late_rows`` (counters): rows published; source rows that came below what was already complete
* ``incremental.session_seconds`` (timer): from the start of a session's plan to its publish, waits and retries included
* ``incremental.audit_failures`` (counter): sessions that a blocking audit kept from being published
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from airflow_incremental.compat import Stats
from airflow_incremental.core.ranges import UTC, parse_time

PREFIX = "incremental."


def session_published(summary: Mapping[str, Any], *, dag_id: str, seconds: float | None) -> None:
    """Count a publish.

    :param summary: the session's summary, see ``operators.reports``.
    :param seconds: from plan to publish; None when it is not known.
    """
    for metric in ("rows", "late_rows"):
        if summary[metric]:
            _send(Stats.incr, metric, summary, dag_id, summary[metric])
    if seconds is not None:
        _send(Stats.timing, "session_seconds", summary, dag_id, dt.timedelta(seconds=seconds))


def lag(summary: Mapping[str, Any], *, dag_id: str) -> None:
    """Set how far the target is behind; of a process without complete-through nothing is known."""
    if summary["complete_through"] is not None:
        behind = dt.datetime.now(UTC) - parse_time(summary["complete_through"])
        _send(Stats.gauge, "watermark_lag_seconds", summary, dag_id, behind.total_seconds())


def audit_failed(process: str, *, dag_id: str) -> None:
    """Count a session that a blocking audit ended."""
    _send(Stats.incr, "audit_failures", {"process": process}, dag_id, 1)


def _send(how: Callable[..., None], metric: str, summary: Mapping[str, Any], dag_id: str, value: Any) -> None:
    process = summary["process"]
    how(PREFIX + metric, value, tags={"process": process, "dag_id": dag_id})
    how(f"{PREFIX}{metric}.{process}", value)
