"""One contender in a process of its own, which lives through all ticks and says what each cost.

A process per contender and tick would be starting most of the time: imports take longer than a small tick. Peaks of memory are each
tick's own all the same, where the system can forget an old one (Linux); elsewhere they are the highest so far.
"""

from __future__ import annotations

import datetime as dt
import logging
import multiprocessing
import os
import resource
import sys
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import attrs
from pyiceberg.table import Table

from benchmarks.histories import new_catalog
from benchmarks.late.hops import HOPS, Hop
from benchmarks.late.metering import MeteredEngine
from benchmarks.late.others import Merge, Window
from benchmarks.late.ours import Ours
from benchmarks.late.place import Place

# Processes that have imported everything and used none of it: a fork of one that runs threads would be no safe place.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


class Contender(Protocol):
    """Keeps the tables of the chain up to date."""

    def load(self, hop: Hop, day: dt.date) -> None:
        """Bring a hop up to date with its source, on a day."""


def contender(name: str, place: Place) -> Contender:
    """Return a contender by its name: ``ours``, ``merge``, ``full`` or ``lookback N``."""
    if name == "ours":
        return Ours(place=place)
    if name == "merge":
        return Merge(place=place)
    return Window(place=place, back=None if name == "full" else int(name.removeprefix("lookback ")))


@attrs.frozen(kw_only=True)
class Spent:
    """What one hop of one tick cost, and the files of its table afterwards."""

    hop: str
    rows_read: int
    bytes_read: int
    files_read: int
    rows_written: int
    partitions_rewritten: int
    engine_s: float
    wall_s: float
    cpu_s: float
    files: tuple[str, ...] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Tick:
    """What one tick cost a contender."""

    hops: tuple[Spent, ...]
    peak_mib: float


@attrs.define(kw_only=True)
class Worker:
    """A contender and its warehouse."""

    name: str
    home: Path
    memory_limit: str | None
    place: Place = attrs.field(init=False)
    contender: Contender = attrs.field(init=False)
    _live: dict[str, dict[str, tuple[object, int]]] = attrs.field(factory=dict, init=False)
    _replaced: set[str] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the tables."""
        self.place = Place(catalog=new_catalog(self.home), engine=MeteredEngine(memory_limit=self.memory_limit))
        for hop in HOPS.values():
            self.place.make_table(hop)
        self.contender = contender(self.name, self.place)

    def tick(self, events: str, day: dt.date) -> Tick:
        """Bring all hops up to date.

        :param events: where the metadata of the table of events is.
        """
        self.place.see_events(events)
        forget_peak()
        spent = [self._load(hop, day) for hop in HOPS.values()]
        peak = peak_mib()
        # Maintenance, which nobody is billed for here: a history of full refreshes would not fit on a disk.
        for path in self._replaced:
            Path(path.removeprefix("file://")).unlink()
        self._replaced.clear()
        return Tick(hops=tuple(spent), peak_mib=peak)

    def _load(self, hop: Hop, day: dt.date) -> Spent:
        self.place.engine.meter.take()
        cpu, wall = time.process_time(), time.perf_counter()
        self.contender.load(hop, day)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        read = self.place.engine.meter.take()
        before, after = self._live.get(hop.name, {}), live_files(self.place.catalog.load_table(hop.table))
        self._live[hop.name] = after
        came, went = after.keys() - before.keys(), before.keys() - after.keys()
        self._replaced |= went
        return Spent(
            hop=hop.name,
            rows_read=read.rows,
            bytes_read=read.bytes,
            files_read=read.files,
            rows_written=sum(after[path][1] for path in came),
            partitions_rewritten=len({after[p][0] for p in came} | {before[p][0] for p in went}),
            engine_s=read.seconds,
            wall_s=wall,
            cpu_s=cpu,
            files=tuple(after),
        )


def live_files(table: Table) -> dict[str, tuple[object, int]]:
    """Return the data files of a table: path -> partition and rows."""
    return {
        task.file.file_path: (task.file.partition[0] if len(task.file.partition) else None, task.file.record_count)
        for task in table.scan().plan_files()
    }


def forget_peak() -> None:
    """Let the peak of memory begin anew, where the system can."""
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5", encoding="ascii")


def peak_mib() -> float:
    """Return the most memory this process has held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [text for text in status.read_text(encoding="ascii").splitlines() if text.startswith("VmHWM:")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


class Remote:
    """A worker in a process of its own."""

    def __init__(self, name: str, home: Path, memory_limit: str | None) -> None:
        self.name = name
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, name, home, memory_limit), daemon=True)
        self._process.start()
        theirs.close()

    def tick(self, events: str, day: dt.date) -> Tick:
        """Bring all hops up to date.

        :raises RuntimeError: the contender failed.
        """
        self._pipe.send((events, day))
        found = self._pipe.recv()
        if isinstance(found, Tick):
            return found
        raise RuntimeError(f"the contender {self.name!r} failed on {day}:\n{found}")

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, name: str, home: Path, memory_limit: str | None) -> None:
    # As in the door: what sessions and pyiceberg say to people on call.
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    # DuckDB takes a process without a main file for a prompt, and draws progress bars.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    worker = Worker(name=name, home=home, memory_limit=memory_limit)
    while True:
        try:
            events, day = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(worker.tick(events, day))
        except Exception:
            pipe.send(traceback.format_exc())
            raise
