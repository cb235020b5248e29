"""Child processes that are surely one's own: each leads an operating system session and is stopped with it.

Airflow puts every task into a process group of its own, orphans what its workers leave behind, and overwrites the
environment and the command line of its processes with titles. The session survives all that: it is inherited, and
nothing leaves it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from demo import keeper
from demo.keeper import end_sessions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Component:
    """One long-lived child process and its log.

    :param name: what it is called in messages and in the name of its log file.
    :param command: program and arguments.
    :param environment: the whole environment of the child.
    :param log: file that takes its output; appended to.
    """

    def __init__(self, *, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.command = tuple(command)
        self.environment = dict(environment)
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process as the leader of a new session, which also keeps a Ctrl-C in the terminal away from it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def started(self) -> bool:
        """Say whether the process was ever started; it may have ended."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Return the process id; the process may have ended."""
        if self._process is None:
            msg = f"the {self.name} was not started"
            raise RuntimeError(msg)
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return None if self._process is None else self._process.poll()

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the process alone: it knows best how to stop what it started."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, timeout: float) -> bool:
        """Wait until the process has ended, and say whether it has; no zombie is left of it."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        return self._process.poll() is not None

    def tail(self, lines: int = 25) -> str:
        """Return the end of the log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class Keeper:
    """A small process that ends the components' sessions as soon as this process is gone, even if it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def watch(self, component: Component) -> None:
        """Take a started component into care."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, keeper.__file__], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
        if self._process.stdin is None:
            msg = "the keeper has no input"
            raise RuntimeError(msg)
        self._process.stdin.write(f"{component.pid}\n")
        self._process.stdin.flush()

    def dismiss(self) -> None:
        """End the keeper, and with it what is left of the components."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


def belongs_to(pid: int, components: Sequence[Component]) -> bool:
    """Say whether a living process was started by one of the components, or by anything they started."""
    with suppress(OSError, psutil.Error):
        return os.getsid(pid) in {c.pid for c in components if c.started} and (
            psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        )
    return False


def members(components: Sequence[Component]) -> list[psutil.Process]:
    """Return the living processes that belong to the components."""
    found = []
    for pid in psutil.pids():
        if belongs_to(pid, components):
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
    return found


def stop_all(components: Sequence[Component], *, grace: float) -> None:
    """Stop components in the given order, then end whatever is left in their sessions.

    :param grace: seconds the components get to stop by themselves, all together.
    """
    for component in components:
        component.ask_to_stop()
    deadline = time.monotonic() + grace
    for component in components:
        component.wait(max(0.0, deadline - time.monotonic()))
    end_sessions({component.pid for component in components if component.started})
    for component in components:
        component.wait(10)
