"""What a session writes: by its transform, at once or part by part, here or on Spark, or what the author's own tasks wrote."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.core.plan import shorten
from airflow_incremental.core.ranges import EventRanges, Grain
from airflow_incremental.core.spark_job import SparkRunner
from airflow_incremental.core.stateful import steps_of
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.progress import (
    ALL_PARTS,
    Done,
    chunk_record,
    done_parts,
    find_done,
    keep_chunk,
    keep_done,
)
from airflow_incremental.iceberg.scratch import collect
from airflow_incremental.iceberg.seal import Output
from airflow_incremental.iceberg.writer import RowCheck, partition_order, write
from airflow_incremental.sessions.reading import PlanReader
from airflow_incremental.sessions.spark import produce_with_spark
from airflow_incremental.sessions.state import keep_state

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from airflow_incremental.core.plan import Plan
    from airflow_incremental.core.reads import Changes, SourceRead
    from airflow_incremental.engines.transform import Transform
    from airflow_incremental.iceberg.keys import KeySet
    from airflow_incremental.sessions.process import Process, Session

log = logging.getLogger(__name__)


def produce(session: Session, target: Table, fingerprint: str, keys: KeySet | None = None) -> Output:
    """Produce the session's data files, which nothing refers to yet. Parts that were done before are not computed again.

    :param fingerprint: of the transform, taken before it runs.
    :param keys: the keys that are computed, for a plan that replaces rows by key.
    """
    process, plan = session.process, session.plan
    if process.transform is None:
        return collect(target, process.spec, plan)
    if isinstance(process.transform, SparkRunner):
        return produce_with_spark(session, process.transform, target, fingerprint, keys)
    done = _Producer.of(session, process.transform, target, fingerprint, keys).all_parts()
    return Output(
        files=tuple(file for item in done for file in item.files),
        # A try's own files never have the names of another one's.
        write_id=uuid.uuid4(),
        fingerprint=fingerprint,
        schema_id=target.metadata.current_schema_id,
        spec_id=target.metadata.default_spec_id,
    )


def produce_chunk(session: Session, transform: Transform, chunk: int) -> tuple[int, int]:
    """Compute and keep one chunk of a session, beside workers of the others, and return how many are done now, of how many.

    :raises SessionSuperseded: the session is over.
    """
    process, plan = session.process, session.plan
    fingerprint = process.fingerprint
    target = load_table(process.catalog, plan.target, role="target")
    seen = chunk_record(target, plan, chunk)
    done = done_parts(target, plan, fingerprint)
    if chunk in done:
        log.info("chunk %s was done by an earlier try", f"{chunk + 1:,}")
    else:
        producer = _Producer.of(session, transform, target, fingerprint, None, only=chunk)
        target = keep_chunk(process.catalog, plan, producer.one_part(chunk), seen=seen)
        done = done_parts(target, plan, fingerprint)
    return len(done), len(plan.chunks)


@attrs.frozen(kw_only=True)
class _Producer:
    session: Session
    target: Table
    transform: Transform
    #: What the producer of a session's whole work has done so far: nothing.
    nothing: Done
    #: In order; a plan that is neither cut nor computed in steps has one.
    parts: tuple[EventRanges, ...]
    reader: PlanReader
    #: Begins the names of this try's files.
    own_id: uuid.UUID = attrs.field(factory=uuid.uuid4)

    @classmethod
    def of(
        cls,
        session: Session,
        transform: Transform,
        target: Table,
        fingerprint: str,
        keys: KeySet | None,
        *,
        only: int | None = None,
    ) -> _Producer:
        process, plan = session.process, session.plan
        parts = parts_of(process, plan)
        # Who does one part does not look at the files of the others.
        within = None if only is None else parts[only]
        return cls(
            session=session,
            target=target,
            transform=transform,
            nothing=Done(
                fingerprint=fingerprint,
                schema_id=target.metadata.current_schema_id,
                spec_id=target.metadata.default_spec_id,
            ),
            parts=parts,
            reader=PlanReader(process=process, plan=plan, keys=keys, within=within),
        )

    @property
    def process(self) -> Process:
        return self.session.process

    @property
    def plan(self) -> Plan:
        return self.session.plan

    @property
    def part(self) -> str:
        """What people call a part."""
        return "step" if self.plan.mode == "stateful" else "chunk"

    def one_part(self, number: int) -> Done:
        """Run the transform over one part that needs no state."""
        return self.nothing.plus(number, self._run(number, self.reader.reads(self.parts[number])))

    def all_parts(self) -> list[Done]:
        """Run the transform over the parts that are not done, in order, each seeing the state the last one left.

        Finished ones are kept now and then.
        """
        parts, process = self.parts, self.process
        if not parts:
            return []
        # Also of a single one, which a worker of its own may have computed.
        found = find_done(self.target, self.plan, self.nothing.fingerprint)
        finished = {number for item in found.values() for number in item.parts}
        self._warn_of_others(finished)
        # What this worker goes on with; others had a chunk each.
        own = found.pop(ALL_PARTS, self.nothing)
        kept = time.monotonic()
        with (
            # Steps may be small and many. A chunk takes longer than to open a database, and has its own, as beside other workers.
            process.engine.kept_open(process.work_dir) if self.plan.mode == "stateful" else nullcontext(),
            keep_state(process, self.plan, self.target, start=parts[0].ranges[0].start) as state,
        ):
            if finished:
                log.info("earlier tries finished %s of %s %ss", f"{len(finished):,}", f"{len(parts):,}", self.part)
            if state is not None and finished:
                state.after(own.files, parts[len(finished) - 1].ranges[-1].end)
            for number in (n for n in range(len(parts)) if n not in finished):
                reads = self.reader.reads(parts[number])
                made = self._run(number, reads if state is None else [*reads, state.read])
                own = own.plus(number, made)
                finished.add(number)
                if len(finished) == len(parts):
                    break
                text = shorten(self.plan.only(parts[number]).affected)
                log.info("%s %s of %s is done: %s", self.part, f"{number + 1:,}", f"{len(parts):,}", text)
                if state is not None:
                    state.after(made, parts[number].ranges[-1].end)
                if time.monotonic() - kept >= process.keep_parts_every:
                    keep_done(process.catalog, self.session.begin, own)
                    process.on_progress(len(finished), len(parts))
                    kept = time.monotonic()
        if len(parts) > 1:
            process.on_progress(len(parts), len(parts))
        return [own, *found.values()]

    def _warn_of_others(self, finished: set[int]) -> None:
        """Say what is computed again; where the transform differs in every task, that is all that was computed side by side."""
        others = done_parts(self.target, self.plan, None) - finished
        if others:
            log.warning(
                "%s of %s %ss were computed by another transform than the one here, and are computed again. If it was not "
                "corrected in the meantime, it differs from task to task: SQL that is rendered from the task or its try, or a "
                "callable that holds something new in every process, such as a lock or a connection",
                f"{len(others):,}",
                f"{len(self.parts):,}",
                self.part,
            )

    def _run(self, number: int, reads: Sequence[SourceRead]) -> tuple[DataFile, ...]:
        for read in reads:
            log.info(
                "%s: %s rows in %s files (%s bytes)", read.name, f"{read.rows:,}", f"{read.files:,}", f"{read.bytes:,}"
            )
        plan = self.plan.only(self.parts[number])
        event_time = self.process.spec.target.event_time
        check = RowCheck(
            event_time=event_time,
            ranges=plan.read if self._checks_ranges(plan) else None,
            scope=plan.scope,
            key_columns=self.process.spec.keys,
            keys=self.reader.keys,
        )
        started = time.monotonic()
        with self.process.engine.run(
            self.transform,
            reads,
            plan,
            target_schema=self.target.schema().as_arrow(),
            changes=self._changes(number),
            order_by=tuple(dict.fromkeys((*partition_order(self.target), *((event_time,) if event_time else ())))),
            work_dir=self.process.work_dir,
        ) as batches:
            written = write(self.target, batches, write_id=uuid.uuid5(self.own_id, str(number)), check=check)
        log.info(
            "wrote %s rows in %s files in %.1f s",
            f"{written.rows:,}",
            f"{len(written.files):,}",
            time.monotonic() - started,
        )
        return written.files

    def _checks_ranges(self, plan: Plan) -> bool:
        """Say whether rows have to lie in the ranges: added rows land where they belong, as do those of keys."""
        if plan.reads_added_rows or plan.keys or plan.read.is_everything:
            return False
        # A reload that is cut reads by the source's event time.
        return self.process.spec.keeps_event_time or not self.plan.read.is_everything

    def _changes(self, number: int) -> list[Changes]:
        """Return what the transform may ask of the drivers; a step may need what changed before it."""
        return self.reader.changes(None if self.plan.mode == "stateful" else self.parts[number])


def parts_of(process: Process, plan: Plan) -> tuple[EventRanges, ...]:
    """Return the parts of a plan that are computed one by one, in order: steps, or chunks of event time."""
    if plan.mode != "stateful":
        return plan.chunks
    step = None if process.spec.step is None else Grain(process.spec.step)
    return tuple(EventRanges((part,)) for part in steps_of(plan.read, step))
