"""What a contender's transforms read, and how long they are in DuckDB: counted from outside, the same way for all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.core.plan import Plan
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.engines.duckdb import DuckDBEngine
from airflow_incremental.engines.transform import Transform


@attrs.define
class Meter:
    """Counts since it was last read."""

    rows: int = 0
    bytes: int = 0
    files: int = 0
    #: In DuckDB, from opening it to its last row.
    seconds: float = 0.0

    def take(self) -> Meter:
        """Return the counts and begin anew."""
        taken = attrs.evolve(self)
        self.rows = self.bytes = self.files = 0
        self.seconds = 0.0
        return taken

    def count(self, reads: Iterable[SourceRead]) -> None:
        """Count what is opened for some reads: whole files, before any filter."""
        for read in reads:
            self.rows += read.rows
            self.bytes += read.bytes
            self.files += read.files

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Count the time in the context."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started


@attrs.frozen(kw_only=True)
class MeteredEngine(DuckDBEngine):
    """The package's engine with a meter on it."""

    meter: Meter = attrs.field(factory=Meter, eq=False)

    @contextmanager
    def run(
        self, transform: Transform, reads: Sequence[SourceRead], plan: Plan, **options: Any
    ) -> Iterator[pa.RecordBatchReader]:
        """Run a transform; the time in which its consumer writes is not counted."""
        self.meter.count(reads)
        with ExitStack() as stack:
            with self.meter.clock():
                # Named, not super(): attrs makes the class anew, for its slots, and does not see into a decorated function.
                rows = stack.enter_context(DuckDBEngine.run(self, transform, reads, plan, **options))
            yield pa.RecordBatchReader.from_batches(rows.schema, self._clocked(rows))

    def _clocked(self, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while True:
            with self.meter.clock():
                batch = next(rows, None)
            if batch is None:
                return
            yield batch
