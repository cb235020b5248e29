"""A DAG with nothing of this package in it: shows that the stack itself runs, retries, schedules and records."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, get_current_context, task

with DAG(
    "stack_probe",
    schedule=None,
    params={"folder": "/nonexistent"},
    default_args={"retries": 2, "retry_delay": dt.timedelta(seconds=1)},
):

    @task
    def sleeper() -> dict[str, Any]:
        """Say who runs, then, in the first try, sleep until somebody wakes or kills the process."""
        context = get_current_context()
        folder, attempt = Path(context["params"]["folder"]), context["ti"].try_number
        (folder / f"try-{attempt}").write_text(f"{os.getpid()} {os.getppid()}")
        deadline = time.monotonic() + 120
        while attempt == 1 and not (folder / "wake").exists() and time.monotonic() < deadline:
            (folder / "alive").touch()
            time.sleep(0.05)
        return {"attempt": attempt, "conf": dict(context["dag_run"].conf or {})}

    @task
    def after(found: dict[str, Any]) -> int:
        """Use what the sleeper pushed."""
        return int(found["attempt"])

    after(sleeper())  # type: ignore[arg-type]  # Airflow puts the value in place of the reference

with DAG("stack_hourly", schedule="@hourly", start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc), catchup=False):

    @task
    def interval() -> str:
        """Return the start of the run's data interval."""
        start = get_current_context()["data_interval_start"]
        assert start is not None
        return start.isoformat()

    interval()
