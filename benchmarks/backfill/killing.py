"""A restatement in chunks that is killed on the way: one task, then the scheduler with all its tasks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from benchmarks.backfill.place import PATIENCE, Place
from demo.client import TaskRun

DAG_ID, CHUNK_TASK = "in_chunks", "fact.load"


@attrs.frozen(kw_only=True)
class Event:
    """What happened to a run, when, and how far it was.

    :param at: seconds after the run was asked for.
    :param done: chunk tasks that had succeeded.
    """

    what: str
    at: float
    done: int


@attrs.define(kw_only=True)
class Killed:
    """A run that is killed on the way, and its story."""

    place: Place
    chunks: int
    events: list[Event] = attrs.field(factory=list)
    run_id: str = ""
    _began: float = 0.0

    def go(self, conf: Mapping[str, Any]) -> None:
        """Run it to its end."""
        stack = self.place.stack
        self._began = time.monotonic()
        self.run_id = stack.client.trigger(DAG_ID, conf)
        self._await(self.chunks // 8)
        victim = self._kill_one_task()
        self._say(f"chunk {victim.map_index + 1}: its process, {victim.pid}, killed")
        self._await(self.chunks // 2)
        running = sorted(task.map_index + 1 for task in self._running())
        stack.kill("scheduler")
        self._say(f"scheduler and its tasks killed, chunks {', '.join(map(str, running))} at work")
        stack.restart("scheduler", timeout=300)
        self._say("scheduler is back")
        self.place.finish(DAG_ID, self.run_id)
        self._say("published")

    def _await(self, done: int) -> None:
        self._until(lambda: self._done() >= max(done, 1), f"{done} chunks to be done")

    def _kill_one_task(self) -> TaskRun:
        found: list[TaskRun] = []

        def kill() -> bool:
            for task in self._running():
                assert task.pid is not None
                # The process that runs the task's code: its supervisor lives on, and tells Airflow.
                os.kill(task.pid, signal.SIGKILL)
                found.append(task)
                return True
            return False

        self._until(kill, "a chunk to be at work")
        return found[0]

    def _running(self) -> list[TaskRun]:
        return self.place.running(DAG_ID, self.run_id, CHUNK_TASK)

    def _done(self) -> int:
        return self.place.count(DAG_ID, self.run_id, CHUNK_TASK, "success")

    def _until(self, look: Callable[[], bool], what: str) -> None:
        self.place.stack.client.wait_until(look, timeout=PATIENCE, every=0.3, what=what)

    def _say(self, what: str) -> None:
        self.events.append(Event(what=what, at=time.monotonic() - self._began, done=self._done()))
