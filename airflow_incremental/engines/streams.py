"""Rows on their way out of a transform: pulled batch by batch, fitted to the target, with errors people understand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.engines.output import Fitter
from airflow_incremental.engines.transform import failed, translate
from airflow_incremental.engines.worker import Worker

#: Rows of one batch that comes out of DuckDB: a multiple of its vectors, small enough for wide rows.
BATCH_ROWS = 16 * 2048


def arrow_rows(
    worker: Worker, reader: pa.RecordBatchReader, target: pa.Schema | None, failures: list[IncrementalError]
) -> pa.RecordBatchReader:
    """Return the rows a function of the author's handed out in Arrow.

    :param failures: gets what goes wrong while rows are pulled; DuckDB, if it is the one who pulls, keeps only a text.
    """

    def pulled() -> Iterator[pa.RecordBatch]:
        batches = iter(reader)
        while True:
            worker.check()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                raise failed(error, "raised while the rows of the transform were read") from error
            yield batch

    def kept(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except IncrementalError as error:
            failures.append(error)
            raise

    rows = fitted(reader.schema, pulled(), target)
    return pa.RecordBatchReader.from_batches(rows.schema, kept(rows))


def relation_rows(
    worker: Worker,
    relation: duckdb.DuckDBPyRelation,
    target: pa.Schema | None,
    *,
    reads: Sequence[SourceRead],
    failures: Sequence[IncrementalError] = (),
) -> pa.RecordBatchReader:
    """Return the rows of a relation, which is run as they are pulled.

    :param reads: what the transform can read, for errors.
    :param failures: what went wrong in rows that the relation itself pulls from Arrow.
    """

    def guarded(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except StopIteration:
            return None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if not failures:
                raise translate(error, reads) from error
        raise failures[0]  # with its own cause, the author's error

    def batches() -> Iterator[pa.RecordBatch]:
        while (batch := worker.call(guarded, reader.read_next_batch)) is not None:
            yield batch

    make = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader  # the name before DuckDB 1.5
    reader = worker.call(guarded, lambda: make(BATCH_ROWS))
    return fitted(reader.schema, batches(), target)


def fitted(schema: pa.Schema, batches: Iterable[pa.RecordBatch], target: pa.Schema | None) -> pa.RecordBatchReader:
    """Return a reader of the batches, in the target's schema if there is one."""
    if target is None:
        return pa.RecordBatchReader.from_batches(schema, batches)
    fitter = Fitter.between(schema, target)
    return pa.RecordBatchReader.from_batches(target, (fitter.fit(b) for b in batches))
