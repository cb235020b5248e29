"""The target's state before each step of a ``stateful`` session, kept up to date with what its own steps have written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_incremental.core.ranges import MIN_TIME, EventRanges, Grain, TimeRange
from airflow_incremental.core.reads import ReadPart, SourceRead
from airflow_incremental.core.stateful import STATE, State
from airflow_incremental.engines.latest import state_query
from airflow_incremental.engines.workdir import work_directory
from airflow_incremental.iceberg.reads import read_files, read_ranges

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from airflow_incremental.core.plan import Plan
    from airflow_incremental.sessions.process import Process


@attrs.define(kw_only=True)
class StateKeeper:
    """Gives the state before a step, and takes in what the step wrote.

    ``latest_by`` is computed once, over the target's history before the first step, and then from what it was and the step's own
    rows, in a file with one row per key: what a step costs does not grow with the history.
    """

    process: Process
    plan: Plan
    target: Table
    state: State
    folder: Path
    #: The step, or the unit of the target where it is computed at once.
    unit: Grain
    #: The state before the step that comes next.
    read: SourceRead = attrs.field(init=False)
    _number: int = attrs.field(default=0, init=False)

    def begin(self, start: dt.datetime) -> None:
        """Compute the state before ``start`` from the target as it was when the session was planned."""
        self._fold(
            read_ranges(
                self.target,
                STATE,
                self.plan.main,
                event_time=self.process.spec.target.event_time,
                # What the session replaces is no state: a reload begins with nothing.
                keep=self._before(start).subtract(self.plan.replaced),
                # As the steps write it, whatever was added to the table since the plan.
                schema=self.target.schema(),
            )
        )

    def after(self, files: Sequence[DataFile], through: dt.datetime) -> None:
        """Take in the rows of the steps that were computed since, the last of which ends at ``through``."""
        written = read_files(self.target, STATE, files, event_time=self.process.spec.target.event_time)
        parts = [attrs.evolve(part, keep=self._before(through)) for part in written.parts]
        if self.state.kind == "latest_by":
            parts = [*self.read.parts, *parts]
        self._fold(attrs.evolve(written, parts=tuple(parts)))

    def _before(self, moment: dt.datetime) -> EventRanges:
        since = self.unit.before(moment) if self.state.kind == "previous_step" else MIN_TIME
        return EventRanges((TimeRange(since, moment),))

    def _fold(self, rows: SourceRead) -> None:
        """Make the state of rows, and keep it in a file."""
        process = self.process
        path = self.folder / f"{self._number}.parquet"
        self._number += 1
        query = state_query(self.state, rows.schema, process.spec.target.event_time or "", self.plan.scope)
        with (
            process.engine.run(
                query, [rows], self.plan, target_schema=rows.schema, work_dir=process.work_dir
            ) as batches,
            pq.ParquetWriter(path, rows.schema) as writer,
        ):
            count = 0
            for batch in batches:
                writer.write_batch(batch)
                count += batch.num_rows
        part = ReadPart(paths=None, batches=lambda: _rows_of(path, rows.schema))
        self.read = attrs.evolve(rows, parts=(part,), rows=count, bytes=path.stat().st_size, files=1)


@contextmanager
def keep_state(process: Process, plan: Plan, target: Table, *, start: dt.datetime) -> Iterator[StateKeeper | None]:
    """Compute the state before ``start`` and keep it while the context is open; None if the process asks for none."""
    spec = process.spec
    if spec.state is None or plan.grain is None:
        yield None
        return
    with work_directory(process.work_dir, "state") as folder:
        unit = plan.grain if spec.step is None else Grain(spec.step)
        keeper = StateKeeper(process=process, plan=plan, target=target, state=spec.state, folder=folder, unit=unit)
        keeper.begin(start)
        yield keeper


def _rows_of(path: Path, schema: pa.Schema) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(schema, (b.cast(schema) for b in pq.ParquetFile(path).iter_batches()))
