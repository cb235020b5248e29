"""What a session writes: by its transform, once or step by step, here or on Spark, or what the author's own tasks wrote."""

from __future__ import annotations

import datetime as dt
import logging
import time
import uuid
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.core.ranges import Grain, format_time
from airflow_incremental.core.spark_job import SparkRunner
from airflow_incremental.core.stateful import cut
from airflow_incremental.iceberg.progress import Progress, find_progress, save_progress
from airflow_incremental.iceberg.scratch import collect
from airflow_incremental.iceberg.seal import Output
from airflow_incremental.iceberg.writer import RowCheck, partition_order, write
from airflow_incremental.sessions.reading import source_changes, source_reads
from airflow_incremental.sessions.spark import produce_with_spark
from airflow_incremental.sessions.state import keep_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from airflow_incremental.core.plan import Plan
    from airflow_incremental.core.reads import Changes, SourceRead
    from airflow_incremental.engines.transform import Transform
    from airflow_incremental.iceberg.keys import KeySet
    from airflow_incremental.sessions.process import Process, Session

log = logging.getLogger(__name__)


def produce(session: Session, target: Table, fingerprint: str, keys: KeySet | None = None) -> Output:
    """Produce the session's data files, which nothing refers to yet.

    :param fingerprint: of the transform, taken before it runs.
    :param keys: the keys that are computed, for a plan that replaces rows by key.
    """
    process, plan = session.process, session.plan
    if process.transform is None:
        return collect(target, process.spec, plan)
    if isinstance(process.transform, SparkRunner):
        return produce_with_spark(session, process.transform, target, fingerprint, keys)
    producer = _Producer(
        session=session,
        target=target,
        transform=process.transform,
        fingerprint=fingerprint,
        keys=keys,
        changes=source_changes(process, plan),
    )
    write_id, files = producer.in_steps() if plan.mode == "stateful" else producer.at_once()
    return Output(
        files=files,
        write_id=write_id,
        fingerprint=fingerprint,
        schema_id=target.metadata.current_schema_id,
        spec_id=target.metadata.default_spec_id,
    )


@attrs.frozen(kw_only=True)
class _Producer:
    session: Session
    target: Table
    transform: Transform
    fingerprint: str
    keys: KeySet | None
    changes: Sequence[Changes]

    @property
    def process(self) -> Process:
        return self.session.process

    @property
    def plan(self) -> Plan:
        return self.session.plan

    def at_once(self) -> tuple[uuid.UUID, tuple[DataFile, ...]]:
        """Run the transform over all that is planned."""
        write_id = uuid.uuid4()
        return write_id, self._run(self.plan, source_reads(self.process, self.plan, keys=self.keys), write_id)

    def in_steps(self) -> tuple[uuid.UUID, tuple[DataFile, ...]]:
        """Run the transform over the steps of the planned range, in order, each seeing the state the last one left.

        Finished steps are kept now and then, and an earlier try's are not computed again.
        """
        step = None if self.process.spec.step is None else Grain(self.process.spec.step)
        parts = [part for whole in self.plan.read.ranges for part in cut(whole, step)]
        if not parts:
            return uuid.uuid4(), ()
        done = find_progress(self.target, self.plan, self.fingerprint) if len(parts) > 1 else None
        # A try's own files never have the names of another one's.
        own_id, files = uuid.uuid4(), [] if done is None else list(done.files)
        saved = time.monotonic()
        engine, work_dir = self.process.engine, self.process.work_dir
        with (
            engine.kept_open(work_dir),
            keep_state(self.process, self.plan, self.target, start=parts[0].start) as state,
        ):
            if done is not None:
                log.info("an earlier try finished the steps before %s; going on there", format_time(done.through))
                if state is not None:
                    state.after(files, done.through)
            for number, part in enumerate(parts):
                if done is not None and part.end <= done.through:
                    continue
                reads = source_reads(self.process, self.plan, part)
                if state is not None:
                    reads.append(state.read)
                made = self._run(self.plan.only(part), reads, uuid.uuid5(own_id, str(number)))
                files.extend(made)
                if part is parts[-1]:
                    break
                log.info("step %s of %s is done: %s", f"{number + 1:,}", f"{len(parts):,}", part)
                if state is not None:
                    state.after(made, part.end)
                if time.monotonic() - saved >= self.process.keep_steps_every:
                    self._save(part.end, tuple(files), own_id)
                    saved = time.monotonic()
        return own_id, tuple(files)

    def _save(self, through: dt.datetime, files: tuple[DataFile, ...], write_id: uuid.UUID) -> None:
        progress = Progress(through=through, files=files, write_id=write_id, fingerprint=self.fingerprint)
        save_progress(self.process.catalog, self.session.begin, progress)

    def _run(self, plan: Plan, reads: Sequence[SourceRead], write_id: uuid.UUID) -> tuple[DataFile, ...]:
        for read in reads:
            log.info(
                "%s: %s rows in %s files (%s bytes)", read.name, f"{read.rows:,}", f"{read.files:,}", f"{read.bytes:,}"
            )
        event_time = self.process.spec.target.event_time
        check = RowCheck(
            event_time=event_time,
            ranges=plan.read if not (plan.reads_added_rows or plan.keys or plan.read.is_everything) else None,
            scope=plan.scope,
            key_columns=self.process.spec.keys,
            keys=self.keys,
        )
        started = time.monotonic()
        with self.process.engine.run(
            self.transform,
            reads,
            plan,
            target_schema=self.target.schema().as_arrow(),
            changes=self.changes,
            order_by=tuple(dict.fromkeys((*partition_order(self.target), *((event_time,) if event_time else ())))),
            work_dir=self.process.work_dir,
        ) as batches:
            written = write(self.target, batches, write_id=write_id, check=check)
        log.info(
            "wrote %s rows in %s files in %.1f s",
            f"{written.rows:,}",
            f"{len(written.files):,}",
            time.monotonic() - started,
        )
        return written.files
