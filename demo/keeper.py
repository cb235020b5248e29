"""Ends processes whose owner is gone: run as a program by ``demo.processes``.

Reads session ids, a line each, until its input ends. The owner keeps the other end of that pipe open for as long as
it lives; the kernel closes it even when the owner is killed, so Airflow's processes cannot outlive a test run or a
demonstration.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import psutil


def end_sessions(sessions: set[int]) -> None:
    """Kill all living processes of these operating system sessions, also those that are started meanwhile."""
    killed: set[int] = set()
    while found := _members(sessions) - killed:
        for pid in found:
            with suppress(OSError):
                # SIGKILL also ends a process that a test has stopped with SIGSTOP.
                os.kill(pid, signal.SIGKILL)
        killed |= found


def _members(sessions: set[int]) -> set[int]:
    found = set()
    for pid in psutil.pids():
        with suppress(OSError):
            if os.getsid(pid) in sessions:
                found.add(pid)
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_sessions({int(line) for line in sys.stdin})
