"""The part of Airflow's REST API that a demonstration and a test need: DAGs, runs, tasks, backfills, asset events."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs

from demo.rest import AirflowError, RestClient

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

#: States in which a run or a task stays until somebody clears it.
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


@attrs.frozen(kw_only=True)
class TaskRun:
    """A task instance as the REST API shows it.

    :param pid: process that runs the task's code (not the supervisor that watches it), on the host of the worker. It is
        that of the last try, and stays when the try is over.
    :param try_number: number of the current or last try; 0 before the first.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str | None
    try_number: int
    pid: int | None
    start: dt.datetime | None
    end: dt.datetime | None
    rendered: Mapping[str, Any]

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> TaskRun:
        """Read one item of a response."""
        return cls(
            dag_id=value["dag_id"],
            run_id=value["dag_run_id"],
            task_id=value["task_id"],
            map_index=value["map_index"],
            state=value["state"],
            try_number=value["try_number"],
            pid=value["pid"],
            start=_time(value["start_date"]),
            end=_time(value["end_date"]),
            rendered=value["rendered_fields"],
        )


class AirflowClient(RestClient):
    """The requests, by what they are about."""

    def health(self, since: dt.datetime | None = None) -> Mapping[str, str | None]:
        """Return the state of each component: ``healthy``, ``unhealthy``, or None for one that was never seen.

        :param since: one that has not been heard since then is ``silent``.
        """
        found = {}
        for name, part in self.call("GET", "/monitor/health").items():
            if part:
                heard = _time(part.get(f"latest_{name}_heartbeat"))
                silent = since is not None and heard is not None and heard < since
                found[name] = "silent" if silent else part.get("status")
        return found

    # DAGs

    def import_errors(self) -> Mapping[str, str]:
        """Return DAG file -> traceback, for the files that cannot be imported."""
        found = self.call("GET", "/importErrors")["import_errors"]
        return {item["filename"]: item["stack_trace"] for item in found}

    def wait_for_dag(self, dag_id: str, timeout: float = 60) -> None:
        """Wait until the DAG processor has read a DAG.

        :raises AirflowError: it was not there in time, or some file cannot be imported; the message holds the
            traceback.
        """

        def look() -> bool:
            if self.exists(f"/dags/{quote(dag_id)}"):
                return True
            if errors := self.import_errors():
                msg = "\n".join(f"{name} cannot be imported:\n{trace}" for name, trace in errors.items())
                raise AirflowError(msg)
            return False

        self.wait_until(look, timeout=timeout, what=f"DAG {dag_id!r} to be read")

    def unpause(self, dag_id: str, *, timeout: float = 60) -> None:
        """Let the scheduler run a DAG, after waiting until it is known."""
        self.wait_for_dag(dag_id, timeout)
        self.call("PATCH", f"/dags/{quote(dag_id)}", json={"is_paused": False})

    # Runs

    def trigger(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, *, logical_date: dt.datetime | None = None
    ) -> str:
        """Start a run by hand and return its id.

        :param logical_date: aware time; a run without one has no data interval.
        """
        body = {"logical_date": None if logical_date is None else logical_date.isoformat(), "conf": dict(conf or {})}
        run_id: str = self.call("POST", f"/dags/{quote(dag_id)}/dagRuns", json=body)["dag_run_id"]
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run: ``queued``, ``running``, ``success`` or ``failed``."""
        state: str = self.call("GET", _run(dag_id, run_id))["state"]
        return state

    def latest_run(self, dag_id: str) -> str | None:
        """Return the id of the run that was made last, or None if there is none."""
        params = {"order_by": "-id", "limit": 1}
        runs = self.call("GET", f"/dags/{quote(dag_id)}/dagRuns", params=params)["dag_runs"]
        return runs[0]["dag_run_id"] if runs else None

    def wait_for_new_run(self, dag_id: str, previous: str | None, timeout: float = 120) -> str:
        """Wait until a DAG that Airflow starts by itself has a newer run, and return its id.

        Which run an asset event has started is a question Airflow 3.1 answers with an error while the run is queued.

        :param previous: what ``latest_run`` said before.
        :raises AirflowError: there was none in time.
        """

        def look() -> str | None:
            found = self.latest_run(dag_id)
            return found if found != previous else None

        found: str = self.wait_until(look, timeout=timeout, what=f"a new run of {dag_id}")
        return found

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = 120) -> str:
        """Wait until a run has ended and return its state, ``success`` or ``failed``.

        :param timeout: seconds.
        :raises AirflowError: it had not ended in time; the message shows the states of its tasks.
        """

        def look() -> str | None:
            state = self.run_state(dag_id, run_id)
            return state if state in ENDED else None

        try:
            found: str = self.wait_until(look, timeout=timeout, what=f"run {run_id} of {dag_id} to end")
        except AirflowError as error:
            states = ", ".join(f"{t.task_id}={t.state}" for t in self.tasks(dag_id, run_id))
            msg = f"{error}; its tasks: {states}"
            raise AirflowError(msg) from None
        return found

    def clear(
        self, dag_id: str, run_id: str, task_ids: Iterable[str] | None = None, *, downstream: bool = True
    ) -> None:
        """Clear tasks of a run, whatever their state, so that the scheduler runs them again; all tasks by default."""
        body: dict[str, Any] = {"dag_run_id": run_id, "dry_run": False, "only_failed": False, "reset_dag_runs": True}
        if task_ids is not None:
            body |= {"task_ids": list(task_ids), "include_downstream": downstream}
        self.call("POST", f"/dags/{quote(dag_id)}/clearTaskInstances", json=body)

    # Tasks

    def tasks(self, dag_id: str, run_id: str) -> Sequence[TaskRun]:
        """Return the task instances of a run."""
        return [TaskRun.read(v) for v in self.call("GET", f"{_run(dag_id, run_id)}/taskInstances")["task_instances"]]

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> TaskRun:
        """Return one task instance."""
        path = _task(dag_id, run_id, task_id)
        return TaskRun.read(self.call("GET", path if map_index < 0 else f"{path}/{map_index}"))

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        *,
        states: Collection[str],
        try_number: int = 1,
        timeout: float = 60,
    ) -> TaskRun:
        """Wait until a task is in one of the states, in the given try or a later one."""

        def look() -> TaskRun | None:
            task = self.task(dag_id, run_id, task_id)
            return task if task.state in states and task.try_number >= try_number else None

        what = f"task {task_id} of {dag_id} {run_id} to be {' or '.join(states)} in try {try_number}"
        found: TaskRun = self.wait_until(look, timeout=timeout, what=what)
        return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Return the value a task pushed."""
        path = f"{_task(dag_id, run_id, task_id)}/xcomEntries/{quote(key)}"
        return self.call("GET", path, params={"map_index": map_index, "deserialize": False, "stringify": False})[
            "value"
        ]

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try as text, a line per event (level, message, other fields) and the trace of errors."""
        path = f"{_task(dag_id, run_id, task_id)}/logs/{try_number}"
        content = self.call("GET", path, params={"full_content": True, "map_index": map_index})["content"]
        return "\n".join(_log_line(item) for item in content)

    # Backfills

    def backfill(self, dag_id: str, start: dt.datetime, end: dt.datetime, **options: Any) -> int:
        """Start a backfill over the logical dates in ``[start, end]`` (Airflow includes both ends) and return its id.

        :param options: further fields of the request: ``reprocess_behavior``, ``max_active_runs``, ``run_backwards``,
            ``dag_run_conf``.
        """
        body = {"dag_id": dag_id, "from_date": start.isoformat(), "to_date": end.isoformat(), **options}
        backfill_id: int = self.call("POST", "/backfills", json=body)["id"]
        return backfill_id

    def wait_for_backfill(self, dag_id: str, backfill_id: int, timeout: float = 180) -> Mapping[str, str]:
        """Wait until a backfill is complete and return run id -> state of its runs."""
        self.wait_until(
            lambda: self.call("GET", f"/backfills/{backfill_id}")["completed_at"],
            timeout=timeout,
            what=f"backfill {backfill_id} of {dag_id} to complete",
        )
        params = {"run_type": "backfill", "limit": 100}
        runs = self.call("GET", f"/dags/{quote(dag_id)}/dagRuns", params=params)["dag_runs"]
        return {run["dag_run_id"]: run["state"] for run in runs}

    # Assets

    def asset_events(self, dag_id: str, run_id: str) -> Sequence[Mapping[str, Any]]:
        """Return the asset events that the tasks of a run emitted."""
        params = {"source_dag_id": dag_id, "source_run_id": run_id}
        events: Sequence[Mapping[str, Any]] = self.call("GET", "/assets/events", params=params)["asset_events"]
        return events


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}"


def _time(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text.replace("Z", "+00:00"))


# What every line of one task's log repeats.
_COMMON = frozenset(
    {"event", "level", "timestamp", "logger", "loc", "filename", "lineno"}
    | {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"}
)


def _log_line(item: Any) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    rest = {k: v for k, v in item.items() if k not in _COMMON and k != "error_detail"}
    line = f"{item.get('level', '')} {item['event']}" + (f" {rest}" if rest else "")
    return "\n".join([line, *(text for error in item.get("error_detail") or () for text in _error_lines(error))])


def _error_lines(error: Mapping[str, Any]) -> list[str]:
    places = [f"    {f['filename']}:{f['lineno']} in {f['name']}" for f in error["frames"]]
    return [*places, f"{error['exc_type']}: {error['exc_value']}"]
