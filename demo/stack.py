"""A whole Airflow in child processes: scheduler, DAG processor, API server and triggerer, on loopback only."""

from __future__ import annotations

import datetime as dt
import os
import secrets
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx

from demo.client import AirflowClient
from demo.config import USER, StackConfig, free_port
from demo.keeper import end_sessions
from demo.processes import Component, Keeper, belongs_to, members, stop_all
from demo.rest import AirflowError

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import psutil

# The order in which they are stopped: the scheduler first, so that no new task starts, and the API server last,
# because a task that is ending still has to report to it. Logs are read from the home folder, so nobody has to serve
# them.
_COMPONENTS = {
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag_processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "api_server": ("api-server",),
}


_AIRFLOW = (sys.executable, "-m", "airflow")


class StackError(Exception):
    """A component of the stack did not start or has ended; the message holds the end of its log."""


class AirflowStack:
    """A real Airflow that lives as long as the ``with`` block (or until :meth:`stop`).

    ::

        with AirflowStack(home=folder / "airflow", dags=Path("dags"), environment=lakehouse.connection()) as stack:
            stack.client.unpause("flight_fact")
            run_id = stack.client.trigger("flight_fact")
            assert stack.client.wait_for_run("flight_fact", run_id) == "success"

    Tasks run under the LocalExecutor: the scheduler's worker forks a supervisor's child per try, and that child runs
    the task. :meth:`task_pid` finds it, so that a test can stop or kill the task itself while its supervisor lives on
    and reports.

    :param home: empty or missing folder that becomes ``AIRFLOW_HOME``.
    :param dags: folder of DAG files.
    :param environment: added to the environment of all components, and so of all tasks: connections as
        ``AIRFLOW_CONN_*``.
    :param database: URL of Airflow's own database; default is SQLite in the home.
    :param options: more of ``airflow.cfg``: section -> option -> value.
    :param port: of the UI and the REST API; default is a free one.
    """

    def __init__(
        self,
        *,
        home: Path,
        dags: Path,
        environment: Mapping[str, str] | None = None,
        database: str | None = None,
        options: Mapping[str, Mapping[str, str]] | None = None,
        port: int | None = None,
    ) -> None:
        self.config = StackConfig(
            home=home.resolve(),
            dags=dags.resolve(),
            port=free_port() if port is None else port,
            password=secrets.token_urlsafe(12),
            database=database,
            options=options or {},
        )
        self.client = self._new_client()
        self._configured = False
        self._keeper = Keeper()
        self._environment = self._make_environment(environment or {})
        self._components = {
            name: Component(
                name=name.replace("_", " "),
                command=(*_AIRFLOW, *arguments),
                environment=self._environment,
                log=self.config.logs / f"{name}.log",
            )
            for name, arguments in _COMPONENTS.items()
        }

    def __enter__(self) -> AirflowStack:  # noqa: PYI034 - typing.Self is not in Python 3.10
        """Start the stack; what had started when a start fails is stopped."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the stack."""
        self.stop()

    def start(self, timeout: float = 240) -> None:
        """Create the database, start the components, and return when all of them are healthy.

        :param timeout: seconds for the components to become healthy; the database is migrated before.
        :raises StackError: one of them failed or was not healthy in time.
        """
        if not self._configured:
            if (self.config.home / "airflow.cfg").exists():
                msg = f"{self.config.home} holds an Airflow already; give the stack a folder that is empty or missing"
                raise StackError(msg)
            self.config.write()
            self._configured = True
        try:
            self.airflow("db", "migrate")
            self.client = self._new_client()
            for component in self._components.values():
                component.start()
                self._keeper.watch(component)
            self._wait_until_healthy(timeout)
        except BaseException:
            self.stop(grace=0)
            raise

    def stop(self, grace: float = 20) -> None:
        """Stop all that this object started, and nothing else. May be called twice; the stack may be started again.

        :param grace: seconds after which what is still there is killed.
        """
        self.client.close()
        stop_all(list(self._components.values()), grace=grace)
        self._keeper.dismiss()

    def kill(self, name: str) -> None:
        """Kill a component with all it started, as a machine that is switched off does."""
        component = self._components[name]
        end_sessions({component.pid})
        component.wait(10)
        self.client.wait_until(
            lambda: not members([component]), timeout=10, every=0.05, what=f"all of the {component.name} to be gone"
        )

    def restart(self, name: str, timeout: float = 120) -> None:
        """Start a component again that was killed, and wait until all have been heard and are healthy."""
        self._components[name].start()
        self._keeper.watch(self._components[name])
        self._wait_until_healthy(timeout)

    def processes(self) -> list[psutil.Process]:
        """Return all living processes of the stack: the components, their workers, supervisors and tasks."""
        return members(list(self._components.values()))

    def owns(self, pid: int) -> bool:
        """Say whether a process is alive and one of the stack's."""
        return belongs_to(pid, list(self._components.values()))

    def tail(self, name: str, lines: int = 25) -> str:
        """Return the end of a component's log: ``scheduler``, ``dag_processor``, ``triggerer`` or ``api_server``."""
        return self._components[name].tail(lines)

    def airflow(self, *arguments: str, timeout: float = 120) -> str:
        """Run an ``airflow`` command in the stack's environment and return what it printed.

        :raises StackError: it failed; the message holds its output.
        """
        done = subprocess.run(
            [*_AIRFLOW, *arguments],
            env=self._environment,
            cwd=self.config.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            output = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            msg = f"airflow {' '.join(arguments)} ended with {done.returncode}:\n{output}"
            raise StackError(msg)
        return done.stdout

    def task_pid(self, dag_id: str, run_id: str, task_id: str, *, timeout: float = 60) -> int:
        """Wait until a task runs and return the id of the process that runs its code, not of the supervisor.

        Airflow's REST API gives this id: a supervisor reports the child that it forked for the try. It is checked
        here to be alive and one of ours before anybody sends it a signal.

        :raises AirflowError: the task did not run in time.
        """

        def look() -> int | None:
            task = self.client.task(dag_id, run_id, task_id)
            if task.state != "running" or task.pid is None:
                return None
            # A task that has just ended is still 'running' for a moment, and its id could be taken by another process.
            return task.pid if self.owns(task.pid) else None

        pid: int = self.client.wait_until(
            look, timeout=timeout, every=0.05, what=f"task {task_id} of {dag_id} {run_id} to run"
        )
        return pid

    def signal_task(
        self, dag_id: str, run_id: str, task_id: str, number: signal.Signals, *, timeout: float = 60
    ) -> int:
        """Wait until a task runs, send its process a signal, and return the process id.

        After SIGKILL the supervisor sees the exit code, says so in the task's log, and reports the try as failed or
        up for retry within a second; the next try starts after the task's own ``retry_delay``. After SIGSTOP the
        supervisor keeps sending heartbeats, so for Airflow the task runs on.
        """
        pid = self.task_pid(dag_id, run_id, task_id, timeout=timeout)
        os.kill(pid, number)
        return pid

    def _make_environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        # An Airflow that is configured around us must not reach in, and neither must a proxy between the components.
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "_AIRFLOW_"))}
        return {
            **outside,
            "AIRFLOW_HOME": str(self.config.home),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "PYTHONUNBUFFERED": "1",
            **extra,
        }

    def _new_client(self) -> AirflowClient:
        return AirflowClient(url=self.config.url, user=USER, password=self.config.password)

    def _wait_until_healthy(self, timeout: float) -> None:
        # One that was killed a moment ago passes for healthy for a while.
        since = dt.datetime.now(dt.timezone.utc)
        deadline = time.monotonic() + timeout
        waiting = list(self._components)
        while time.monotonic() < deadline:
            for component in self._components.values():
                if component.exit_code is not None:
                    msg = f"the {component.name} ended with exit code {component.exit_code}. {_end_of(component)}"
                    raise StackError(msg)
            # The API server does not listen at once, and does not answer at once when it does.
            with suppress(httpx.TransportError, AirflowError):
                health = self.client.health(since)
                waiting = [name for name in self._components if name != "api_server" and health.get(name) != "healthy"]
            if not waiting:
                break
            time.sleep(0.5)
        else:
            ends = "\n".join(_end_of(self._components[name]) for name in waiting)
            msg = f"not healthy after {timeout:.0f} s: {', '.join(waiting)}. {ends}"
            raise StackError(msg)
        # The API that tasks talk to is built when it gets its first request, which takes seconds (on a busy machine
        # half a minute). The first task would wait for it and could give up.
        httpx.get(f"{self.config.url}/execution/health", timeout=timeout, trust_env=False).raise_for_status()


def _end_of(component: Component) -> str:
    return f"The end of {component.log}:\n{component.tail()}"
