"""What a run asks to be computed again: a backfill its data interval, a person the range that the form of "Trigger DAG" holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_incremental.compat import Param
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.requests import RestateRequest

#: Date, time and zone. Airflow does not check the format "date-time", for want of the library that knows it, and an error in the
#: form is seen sooner than one in the log of a task.
_TIME = r"^\d{4}-\d{2}-\d{2}[T ].+(Z|[+-]\d{2}(:?\d{2})?)$"
FROM, TO, REASON, PREVIEW = "restate_from", "restate_to", "reason", "preview_only"


def restate_params() -> dict[str, Any]:
    """Return the params that put a restatement on the form of "Trigger DAG": ``DAG(..., params=restate_params())``.

    All are empty by default, and the run then loads what changed, as ever. Merge them with your own:
    ``params={**restate_params(), "region": "eu"}``.

    ``restate_from``, ``restate_to``
        Event times to compute again, whatever the watermark: from the first, before the second; ISO 8601 with a zone. Whole units
        of the target's partitioning are taken.
    ``reason``
        Why, for whoever reads the session log later.
    ``preview_only``
        Show what the run would read and write, and do nothing.
    """
    # Type and format make the page show a date picker; the example is for the error, in which Airflow shows all of this.
    time: dict[str, Any] = {
        "type": ["null", "string"],
        "format": "date-time",
        "pattern": _TIME,
        "examples": ["2024-01-31T06:00:00Z"],
    }
    return {
        FROM: Param(
            None,
            title="Restate from",
            description="First event time to compute again (with a zone); empty loads what changed, as ever.",
            **time,
        ),
        TO: Param(None, title="Restate to", description="End of these event times, exclusive.", **time),
        REASON: Param(
            None,
            title="Reason",
            description="Why, for the session log.",
            type=["null", "string"],
            maxLength=400,
        ),
        PREVIEW: Param(
            None,
            title="Preview only",
            description="Show what would be read and written, in the log and on the plan's page, and do nothing.",
            type=["null", "boolean"],
        ),
    }


def request_of(context: Mapping[str, Any]) -> RestateRequest | None:
    """Return what a run asks to be computed again; None if it loads what changed.

    :param context: the task's context.
    :raises ArgumentError: the range is none, or a backfill is given another one by its form.
    """
    run, params = context["dag_run"], context.get("params") or {}
    start, end = params.get(FROM), params.get(TO)
    by, reason = getattr(run, "triggering_user_name", None), params.get(REASON)
    if is_backfill(run):
        if start is not None or end is not None:
            raise ArgumentError(
                f"a backfill run is given {FROM} and {TO}, and it restates its own data interval",
                expected="a backfill without them",
                hint="take them out of the backfill's configuration, or trigger one run with them instead of a backfill",
            )
        return RestateRequest.read(
            run.data_interval_start, run.data_interval_end, cause="backfill", reason=reason, by=by
        )
    if start is None and end is None:
        return None
    return RestateRequest.read(start, end, cause="form", reason=reason, by=by)


def wants_preview(context: Mapping[str, Any]) -> bool:
    """Say whether a run only asks what it would do."""
    return (context.get("params") or {}).get(PREVIEW) is True


def is_backfill(run: Any) -> bool:
    """Say whether Airflow made (or cleared) a run for a backfill."""
    kind = getattr(run, "run_type", None)
    return str(getattr(kind, "value", kind)) == "backfill"
