"""What planning years by the hour costs beyond reading metadata: from the changes of files to the plan as it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import attrs

from airflow_incremental.core.changes import ChangeSet, FileChange
from airflow_incremental.core.chunks import Chunking
from airflow_incremental.core.facts import TargetFacts
from airflow_incremental.core.parts import SourceFacts
from airflow_incremental.core.plan import Owner, Plan
from airflow_incremental.core.planning import make_plan
from airflow_incremental.core.ranges import EventRanges, Grain, TimeRange
from airflow_incremental.core.spec import Mode
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.sessions.chunking import with_cuts
from airflow_incremental.sessions.process import Process
from benchmarks.histories import new_catalog
from benchmarks.report import Case
from benchmarks.timing import Contender, Timings, in_turn
from benchmarks.worlds import hour, process_of

_MOST_CHUNKS = 100
#: Bytes of a file, about: as small as they come, so that every plan is cut into as many chunks as it may be.
_BYTES = 1_000
_MODES: tuple[Mode, ...] = ("overwrite", "append")
#: Label -> hours from one file to the next.
_STEPS = {"every hour": 1, "every other hour": 2}


@attrs.frozen(kw_only=True)
class _Input:
    """What the metadata says."""

    process: Process
    facts: SourceFacts

    def plan(self) -> Plan:
        """Decide what is read and what is replaced."""
        found = make_plan(
            self.process.spec,
            target=TargetFacts(table_uuid="target", main=1, grain=Grain.HOUR),
            published=None,
            sources={"events": self.facts},
            owner=Owner(deployment="bench"),
            now=hour(1e5),
        )
        assert isinstance(found, Plan)
        return found

    def cut(self, plan: Plan) -> Plan:
        """Cut it into chunks and make it fit; the metadata is not asked again."""
        return with_cuts(self.process, plan, {"events": self.facts})

    def keep(self) -> str:
        """Do all of it, as a session's lock keeps it."""
        return self.cut(self.plan()).encode()


def measure(home: Path, *, hours: int, rounds: int) -> list[Case]:
    """Plan so many files of an hour each, in every way, and return what it took."""
    catalog = new_catalog(home)
    inputs = {
        (mode, label): _Input(
            process=attrs.evolve(process_of(catalog, mode=mode), chunking=Chunking(_BYTES, _MOST_CHUNKS)),
            facts=SourceFacts(
                base=None,
                pinned=SourcePosition(snapshot_id=1, sequence_number=1, committed_at=hour(0), table_uuid="source"),
                changes=ChangeSet(derivation="first_run", added=_files(hours, step)),
            ),
        )
        for mode in _MODES
        for label, step in _STEPS.items()
    }
    found = {key: _time(given, rounds) for key, given in inputs.items()}
    return [_case(*key, inputs[key], timings) for key, timings in found.items()]


def _files(count: int, step: int) -> tuple[FileChange, ...]:
    return tuple(
        FileChange(
            path=f"{n:06}",
            kind="added",
            snapshot_id=1,
            sequence_number=1,
            spec_id=0,
            rows=2,
            nulls=0,
            ranges=EventRanges((TimeRange(hour(n * step + 0.2), hour(n * step + 0.7)),)),
            handle=SimpleNamespace(file_size_in_bytes=_BYTES + n),
        )
        for n in range(count)
    )


def _time(given: _Input, rounds: int) -> dict[str, Timings]:
    steps = {
        "plan": Contender(lambda _: given.plan()),
        "cut": Contender(given.cut, prepare=given.plan),
        "encode": Contender(lambda plan: plan.encode(), prepare=lambda: given.cut(given.plan())),
        "all": Contender(lambda _: given.keep()),
    }
    return in_turn(steps, rounds=rounds)


def _case(mode: str, label: str, given: _Input, timings: Mapping[str, Timings]) -> Case:
    plan = given.cut(given.plan())
    counts = {
        "hours computed": plan.affected.count(Grain.HOUR),
        "ranges replaced": len(plan.replaced.ranges),
        "chunks": len(plan.chunks),
        "bytes kept": len(plan.encode()),
    }
    return Case(labels={"mode": mode, "files": label}, timings=timings, counts=counts)
