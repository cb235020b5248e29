"""One task of a load in a process of its own, as an Airflow worker runs it, but without database and API server.

``python -m benchmarks.task STAGE FILE`` makes the DAG, as every task process does, and runs one stage: ``all`` (the
operator), or ``plan`` or ``publish`` of the group. ``none`` makes the DAG and runs nothing; ``import`` only imports
Airflow's SDK. What the stages of one run say to each other goes through the file. Prints the outcome, and the
milliseconds spent in the stage.
"""

from __future__ import annotations

import argparse
import collections
import json
import time
import types
from pathlib import Path
from typing import Any


class _TaskInstance:
    """What a stage asks of its task instance."""

    dag_id, run_id, map_index, try_number = "bench", "bench-run", -1, 1

    def __init__(self, task_id: str, store: Path) -> None:
        self.task_id = task_id
        self.store = store
        self.state = json.loads(store.read_text()) if store.exists() else {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value for the tasks after this one."""
        self.state[f"{self.task_id}/{key}"] = value
        self.store.write_text(json.dumps(self.state))

    def xcom_pull(self, task_ids: str, key: str = "return_value", map_indexes: Any = None) -> Any:
        """Return what a task before this one kept."""
        del map_indexes
        return self.state.get(f"{task_ids}/{key}")

    def get_dr_count(self, **_: Any) -> int:
        """Return how many runs are alive: none but this."""
        return 0

    def get_task_states(self, **_: Any) -> dict[str, dict[str, str]]:
        """Return states of tasks of other runs: none is known."""
        return {}


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["import", "none", "all", "plan", "publish"])
    parser.add_argument("store", type=Path)
    arguments = parser.parse_args()
    import airflow.sdk

    if arguments.stage == "import":
        return
    from airflow_incremental import IcebergSource, IcebergTarget, IncrementalLoad, IncrementalLoadOperator

    load: dict[str, Any] = {
        "process": "proc",
        "sources": {"events": IcebergSource("raw.events", event_time="ts")},
        "target": IcebergTarget("mart.result", event_time="ts"),
        "mode": "append",
        "transform": "SELECT id, ts, region, v FROM events",
    }
    with airflow.sdk.DAG("bench", schedule=None):
        if arguments.stage in ("all", "none"):
            task = IncrementalLoadOperator(task_id="load", **load)
        else:
            task = getattr(IncrementalLoad("load", **load), arguments.stage)
    if arguments.stage == "none":
        return
    ti = _TaskInstance(task.task_id, arguments.store)
    context: Any = {
        "ti": ti,
        "dag_run": types.SimpleNamespace(clear_number=0),
        "outlet_events": collections.defaultdict(types.SimpleNamespace),
    }
    from airflow.sdk.exceptions import DownstreamTasksSkipped

    started = time.perf_counter()
    try:
        outcome = task.execute(context)
    except DownstreamTasksSkipped:
        outcome = ti.xcom_pull(ti.task_id)
    took = time.perf_counter() - started
    print(json.dumps({"outcome": outcome.get("finished", outcome)["outcome"], "ms": took * 1000}))


if __name__ == "__main__":
    main()
