"""Tasks that wait in Airflow's triggerer, as rows of Airflow's database: a thousand that deferred themselves would take an hour.

``python -m benchmarks.deferred FILE``, in the environment of an Airflow, forgets all tasks and triggers that are there and makes a
mapped task of DAG ``waiting`` that has deferred itself to the triggers of a file: a list of class paths and arguments, as JSON. As
many runs of DAG ``upstream`` are running, a day apart; the arguments ``logical_dates`` are numbers of theirs.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import uuid
from pathlib import Path
from typing import Any

#: Logical date of the first run of ``upstream``.
FIRST = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)


def main() -> None:
    """Make the rows."""
    from airflow.models.dag import DagModel
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunType
    from sqlalchemy import delete, insert

    triggers = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with create_session() as session:
        for model in (TaskInstance, Trigger, DagRun, DagVersion, DagModel, DagBundleModel):
            session.execute(delete(model))
        session.add(DagBundleModel(name="bench"))
        session.flush()
        limits: dict[str, Any] = {"max_active_tasks": 1, "max_active_runs": 1, "max_consecutive_failed_dag_runs": 0}
        limits |= {"has_task_concurrency_limits": False}
        session.add(DagModel(dag_id="waiting", bundle_name="bench", **limits))  # type: ignore[no-untyped-call]
        session.flush()
        version = DagVersion(dag_id="waiting", version_number=1, bundle_name="bench")
        session.add(version)
        session.flush()
        run: dict[str, Any] = {"run_type": DagRunType.SCHEDULED, "run_after": FIRST, "state": DagRunState.RUNNING}
        session.add(DagRun(dag_id="waiting", run_id="run", logical_date=FIRST, **run))
        for n in range(len(triggers)):
            session.add(DagRun(dag_id="upstream", run_id=f"run_{n}", logical_date=FIRST + dt.timedelta(days=n), **run))
        session.flush()
        for n, trigger in enumerate(triggers):
            kwargs = trigger["kwargs"]
            if "logical_dates" in kwargs:
                kwargs["logical_dates"] = [FIRST + dt.timedelta(days=day) for day in kwargs["logical_dates"]]
            row = Trigger(classpath=trigger["classpath"], kwargs=kwargs)
            session.add(row)
            session.flush()
            session.execute(
                insert(TaskInstance.__table__).values(
                    id=uuid.uuid4(),
                    task_id="wait",
                    dag_id="waiting",
                    run_id="run",
                    map_index=n,
                    state=TaskInstanceState.DEFERRED,
                    try_number=1,
                    max_tries=0,
                    pool="default_pool",
                    pool_slots=1,
                    queue="default",
                    priority_weight=1,
                    executor_config={},
                    trigger_id=row.id,
                    next_method="execute_complete",
                    dag_version_id=version.id,
                    updated_at=FIRST,
                )
            )


if __name__ == "__main__":
    main()
