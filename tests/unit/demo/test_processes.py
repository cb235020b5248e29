"""Child processes: stopped with all they started, and never outliving the one who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from demo.keeper import end_sessions
from demo.processes import Component, belongs_to, members, stop_all

# A component that is hard to stop: it ignores SIGTERM, and has a child in a process group of its own, as Airflow's
# tasks are.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], preexec_fn=os.setpgrp)
print("ready", flush=True)
time.sleep(600)
"""


def wait_for(look: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait until ``look()`` is true."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.05)


@pytest.fixture
def component(tmp_path: Path) -> Component:
    return Component(
        name="stubborn", command=[sys.executable, "-c", STUBBORN], environment=dict(os.environ), log=tmp_path / "log"
    )


def test_component_is_stopped_with_all_it_started(component: Component) -> None:
    component.start()
    wait_for(lambda: "ready" in component.tail())
    found = members([component])
    assert len(found) == 2
    assert {os.getpgid(process.pid) for process in found} == {process.pid for process in found}, "groups of their own"
    found[1].suspend()
    stop_all([component], grace=0.2)
    assert psutil.wait_procs(found, timeout=10)[1] == []
    assert component.exit_code == -signal.SIGKILL


def test_what_starts_while_the_others_are_killed_is_killed_too(
    component: Component, monkeypatch: pytest.MonkeyPatch
) -> None:
    component.start()
    wait_for(lambda: "ready" in component.tail())
    found = members([component])
    looks = iter([[component.pid]])
    everything = psutil.pids
    monkeypatch.setattr("demo.keeper.psutil.pids", lambda: next(looks, None) or everything())
    end_sessions({component.pid})
    assert psutil.wait_procs(found, timeout=10)[1] == []


def test_others_are_left_alone(component: Component) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        component.start()
        wait_for(lambda: "ready" in component.tail())
        assert not belongs_to(other.pid, [component])
        assert not belongs_to(os.getpid(), [component])
        stop_all([component], grace=0)
        assert other.poll() is None


def test_component_that_was_not_started_is_no_trouble(component: Component) -> None:
    stop_all([component], grace=0)
    assert component.exit_code is None
    assert component.tail() == "(no log)"
    with pytest.raises(RuntimeError, match="the stubborn was not started"):
        _ = component.pid


OWNER = f"""
import os, sys, time
from pathlib import Path
from demo.processes import Component, Keeper
keeper = Keeper()
component = Component(
    name="stubborn", command=[sys.executable, "-c", {STUBBORN!r}], environment=dict(os.environ), log=Path(sys.argv[1])
)
component.start()
keeper.watch(component)
while "ready" not in component.tail():
    time.sleep(0.05)
print(component.pid, flush=True)
time.sleep(600)
"""


def test_nothing_outlives_an_owner_that_is_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True, cwd=root
    ) as owner:
        assert owner.stdout is not None
        leader = int(owner.stdout.readline())
        left = [p for p in psutil.process_iter() if p.pid != owner.pid and _session(p.pid) == leader]
        assert len(left) == 2
        owner.kill()
    assert psutil.wait_procs(left, timeout=15)[1] == []


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
