"""Timing in turn: every contender once per round, in an order that rotates, so that a busy machine is busy for all of them.

Times of single rounds mean little on a shared machine. What is compared is a ratio within each round, of which the median is taken,
and CPU time (user and system, all threads), which does not count waiting for others.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

#: Root of the repository, where children find this package and the one that is measured.
ROOT = Path(__file__).resolve().parent.parent
_LAUNCHER = Path(__file__).with_name("launch.py")


@attrs.frozen(kw_only=True)
class Timings:
    """Seconds one contender took, by round."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def wall_ms(self) -> float:
        """Median wall time in milliseconds."""
        return statistics.median(self.wall) * 1000

    @property
    def cpu_ms(self) -> float:
        """Median CPU time in milliseconds."""
        return statistics.median(self.cpu) * 1000

    def to_json(self) -> dict[str, Any]:
        """Return medians and the single rounds, in milliseconds."""
        return {
            "median_wall_ms": round(self.wall_ms, 3),
            "median_cpu_ms": round(self.cpu_ms, 3),
            "wall_ms": [round(s * 1000, 3) for s in self.wall],
            "cpu_ms": [round(s * 1000, 3) for s in self.cpu],
        }


@attrs.frozen
class Contender:
    """Work that is timed, and what makes it ready, which is not.

    :param work: takes what ``prepare`` returned.
    :param clean_up: takes the same, after the clock has stopped.
    """

    work: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None
    clean_up: Callable[[Any], object] = lambda _: None

    def once(self) -> tuple[float, float]:
        """Do the work once and return its wall and CPU seconds."""
        ready = self.prepare()
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        self.work(ready)
        took = time.perf_counter() - wall, time.process_time() - cpu
        self.clean_up(ready)
        return took


def in_turn(contenders: Mapping[str, Contender], *, rounds: int, warm_up: bool = True) -> dict[str, Timings]:
    """Time contenders round by round.

    :param warm_up: run each once before, uncounted: imports, compiled code and the page cache are there for all.
    """
    names = list(contenders)
    if warm_up:
        for name in names:
            contenders[name].once()
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            samples[name].append(contenders[name].once())
    return {
        name: Timings(wall=tuple(wall for wall, _ in taken), cpu=tuple(cpu for _, cpu in taken))
        for name, taken in samples.items()
    }


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median over the rounds of how many times as long one took as the other."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


@attrs.frozen(kw_only=True)
class Child:
    """What a process of its own used, and what it printed."""

    wall: float
    cpu: float
    #: Most memory it held, in MiB.
    peak_mib: float
    output: str


def child(*arguments: str, program: str = sys.executable, environment: Mapping[str, str] | None = None) -> Child:
    """Run Python in a process of its own and return what the operating system says it used.

    :param program: path of another program to run.
    :raises RuntimeError: it failed.
    """
    variables = {**os.environ, **(environment or {}), "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory(prefix="child-") as place:
        output, errors, result = (Path(place) / name for name in ("output", "errors", "result"))
        started = time.perf_counter()
        with output.open("w") as stdout, errors.open("w") as stderr:
            subprocess.run(  # noqa: S603  (this interpreter, with arguments made here)
                [sys.executable, "-S", str(_LAUNCHER), str(result), program, *arguments],
                cwd=ROOT,
                env=variables,
                stdout=stdout,
                stderr=stderr,
                check=True,
            )
        wall = time.perf_counter() - started
        used = json.loads(result.read_text())
        if used["status"]:
            raise RuntimeError(
                f"{' '.join(arguments)[:200]} ended with status {used['status']}:\n{errors.read_text()[-4000:]}"
            )
        return Child(wall=wall, cpu=used["cpu"], peak_mib=used["peak"] / 2**20, output=output.read_text())


def timings_of(children: Sequence[Child]) -> Timings:
    """Return the rounds of a contender that is a process."""
    return Timings(wall=tuple(c.wall for c in children), cpu=tuple(c.cpu for c in children))


def children_in_turn(
    contenders: Mapping[str, Callable[[], Sequence[Child]]], *, rounds: int, warm_up: bool = True
) -> dict[str, list[Child]]:
    """Run contenders that are processes round by round; return for each what all its processes of a round used.

    :param warm_up: run each once before, uncounted, for the page cache and compiled modules.
    """
    names = list(contenders)
    found: dict[str, list[Child]] = {name: [] for name in names}
    for number in range(-1 if warm_up else 0, rounds):
        turn = max(number, 0) % len(names)
        for name in (*names[turn:], *names[:turn]):
            used = contenders[name]()
            if number >= 0:
                found[name].append(
                    Child(
                        wall=sum(c.wall for c in used),
                        cpu=sum(c.cpu for c in used),
                        peak_mib=max(c.peak_mib for c in used),
                        output="".join(c.output for c in used),
                    )
                )
    return found
