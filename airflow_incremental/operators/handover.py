"""What the tasks of a group tell each other, by XCom. A stage believes what an earlier one said only of the same session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_incremental.compat import AirflowSkipException
from airflow_incremental.core.errors import ArgumentError

#: Key of what the plan of a group says whose load is mapped: its return value is what that is mapped over.
STATE = "state"


def key_of(stage_task_ids: Mapping[str, str], stage: str) -> str:
    """Return the XCom key under which a stage says how it went.

    :param stage_task_ids: stage -> task id, of its group.
    """
    return STATE if stage == "plan" and "chunk" in stage_task_ids else "return_value"


def state_of(ti: Any, stage_task_ids: Mapping[str, str], stage: str) -> dict[str, Any]:
    """Return what an earlier stage of this run said.

    :param ti: the running task.
    :param stage_task_ids: stage -> task id, of its group.
    :raises AirflowSkipException: it was skipped, so there is nothing for this stage either.
    :raises ArgumentError: it said nothing, for example because somebody marked it as successful.
    """
    task_id = stage_task_ids[stage]
    # In a mapped group the stages of one instance belong together; a mapped load is in none.
    map_index = -1 if ti.map_index is None or "chunk" in stage_task_ids else ti.map_index
    state = ti.xcom_pull(task_ids=task_id, map_indexes=map_index, key=key_of(stage_task_ids, stage))
    if isinstance(state, Mapping):
        return dict(state)
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id]).get(ti.run_id, {})
    if states.get(task_id if map_index < 0 else f"{task_id}_{map_index}") == "skipped":
        msg = f"the task {task_id!r} was skipped: nothing is published, and the next run plans the same changes"
        raise AirflowSkipException(msg)
    raise ArgumentError(
        f"the task {task_id!r} of this run has said nothing",
        expected="its result in XCom",
        hint=f"clear {stage_task_ids['plan']!r} and what is downstream; a stage cannot be marked successful",
    )


def check_same(stage_task_ids: Mapping[str, str], stage: str, state: Mapping[str, Any], session_id: str) -> None:
    """Raise ArgumentError unless what a stage said is of this session."""
    if state["session"] != session_id:
        found = f"the result of the {stage} is of session {state['session']}, not of {session_id}"
        raise missing(stage_task_ids, stage, found)


def skip_if_ended(state: Mapping[str, Any]) -> None:
    """Skip a stage that Airflow started although an earlier one ended the load, as it does when this stage alone is cleared."""
    if "finished" in state:
        raise AirflowSkipException(state["finished"]["reason"])


def missing(stage_task_ids: Mapping[str, str], stage: str, found: str) -> ArgumentError:
    """Return the error that an earlier stage did not do its work for this session."""
    return ArgumentError(
        found,
        expected=f"that the task {stage_task_ids[stage]!r} ran for this very session",
        hint=f"clear the task {stage_task_ids['plan']!r} with everything downstream",
    )
