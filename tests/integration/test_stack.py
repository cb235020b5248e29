"""The Airflow that other integration tests and the demonstration stand on: it runs, can be hurt, and leaves nothing."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from demo.rest import AirflowError
from demo.stack import AirflowStack, StackError

DAGS = Path(__file__).parent / "dags"
PROBE = "stack_probe"


def start_probe(stack: AirflowStack, folder: Path) -> tuple[str, int]:
    """Start a run of the probe and return its id and the process that sleeps in its first try."""
    stack.client.unpause(PROBE)
    run_id = stack.client.trigger(PROBE, {"folder": str(folder)})
    pid = stack.task_pid(PROBE, run_id, "sleeper")
    stack.client.wait_until((folder / "try-1").exists, timeout=30, every=0.05, what="the task's code to run")
    return run_id, pid


def test_killed_task_is_retried_and_the_run_succeeds(airflow_stack: AirflowStack, tmp_path: Path) -> None:
    client = airflow_stack.client
    run_id, pid = start_probe(airflow_stack, tmp_path)
    task, parent = (int(part) for part in (tmp_path / "try-1").read_text().split())
    assert pid == task, "the process that runs the task's code, as it says itself"
    assert psutil.pid_exists(parent), "its supervisor"
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    client.wait_for_task(PROBE, run_id, "sleeper", states={"success"}, try_number=2)
    assert time.monotonic() - killed < 20, "the retry did not wait for a missing heartbeat"
    assert psutil.pid_exists(parent), "its supervisor lives on"
    assert client.wait_for_run(PROBE, run_id) == "success"
    tasks = {t.task_id: t for t in client.tasks(PROBE, run_id)}
    assert (tasks["sleeper"].try_number, tasks["after"].try_number) == (2, 1)
    assert client.xcom(PROBE, run_id, "sleeper") == {"attempt": 2, "conf": {"folder": str(tmp_path)}}
    assert "'signal': -9" in client.log(PROBE, run_id, "sleeper", try_number=1)
    assert "Returned value was" in client.log(PROBE, run_id, "sleeper", try_number=2)
    assert tasks["after"].rendered["op_args"] == [{"attempt": 2, "conf": {"folder": str(tmp_path)}}]


def test_stopped_task_does_nothing_until_it_is_woken(airflow_stack: AirflowStack, tmp_path: Path) -> None:
    run_id, pid = start_probe(airflow_stack, tmp_path)
    assert airflow_stack.signal_task(PROBE, run_id, "sleeper", signal.SIGSTOP) == pid
    (tmp_path / "wake").touch()
    time.sleep(0.2)
    (tmp_path / "alive").unlink()
    time.sleep(6)  # more than one heartbeat of the supervisor, which goes on
    task = airflow_stack.client.task(PROBE, run_id, "sleeper")
    assert (task.state, task.pid, task.try_number) == ("running", pid, 1)
    assert not (tmp_path / "alive").exists()
    os.kill(pid, signal.SIGCONT)
    assert airflow_stack.client.wait_for_run(PROBE, run_id) == "success"
    assert airflow_stack.client.task(PROBE, run_id, "sleeper").try_number == 1


def test_cleared_task_runs_again_in_the_same_run(airflow_stack: AirflowStack, tmp_path: Path) -> None:
    (tmp_path / "wake").touch()
    client = airflow_stack.client
    client.unpause(PROBE)
    run_id = client.trigger(PROBE, {"folder": str(tmp_path)})
    assert client.wait_for_run(PROBE, run_id) == "success"
    client.clear(PROBE, run_id, ["after"])
    assert client.wait_for_run(PROBE, run_id) == "success"
    assert {t.task_id: t.try_number for t in client.tasks(PROBE, run_id)} == {"sleeper": 1, "after": 2}


def test_backfill_runs_every_interval(airflow_stack: AirflowStack) -> None:
    start = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
    client = airflow_stack.client
    client.unpause("stack_hourly")
    backfill = client.backfill("stack_hourly", start, start + dt.timedelta(hours=1))
    runs = client.wait_for_backfill("stack_hourly", backfill)
    assert set(runs.values()) == {"success"}
    found = {client.xcom("stack_hourly", run_id, "interval") for run_id in runs}
    assert found == {"2024-01-01T00:00:00+00:00", "2024-01-01T01:00:00+00:00"}


def test_everything_listens_on_loopback_only(airflow_stack: AirflowStack) -> None:
    pids = {process.pid for process in airflow_stack.processes()}
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in pids]
    assert listening, "the API server"
    assert {getattr(c.laddr, "ip", None) for c in listening} == {"127.0.0.1"}


def test_strangers_are_not_let_in(airflow_stack: AirflowStack) -> None:
    stranger = AirflowStack(home=airflow_stack.config.home, dags=DAGS, port=airflow_stack.config.port)
    with pytest.raises(AirflowError, match=r"logging in .* failed with 401"):
        stranger.client.call("GET", "/dags")


def test_missing_dag_names_the_file_that_cannot_be_imported(airflow_stack: AirflowStack) -> None:
    assert airflow_stack.client.import_errors() == {}
    with pytest.raises(AirflowError, match="waited 1 s in vain for DAG 'no_such_dag' to be read"):
        airflow_stack.client.unpause("no_such_dag", timeout=1)


def test_component_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    options = {"core": {"executor": "NoSuchExecutor"}}
    with pytest.raises(StackError, match=r"(?s)the scheduler ended with exit code \d+.*NoSuchExecutor"):
        AirflowStack(home=tmp_path / "airflow", dags=DAGS, options=options).start()


def test_database_that_cannot_be_reached_is_told_at_once(tmp_path: Path) -> None:
    database = "postgresql+psycopg2://nobody@127.0.0.1:1/airflow"
    with pytest.raises(StackError, match=r"(?s)airflow db migrate ended with 1.*[Cc]onnection refused"):
        AirflowStack(home=tmp_path / "airflow", dags=DAGS, database=database).start()


def test_home_of_another_stack_is_refused(tmp_path: Path) -> None:
    (tmp_path / "airflow.cfg").write_text("[core]\n")
    with pytest.raises(StackError, match="holds an Airflow already"):
        AirflowStack(home=tmp_path, dags=DAGS).start()
