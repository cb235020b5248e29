"""What a session reads from one source, as plain values that an engine can bind to a name.

The Iceberg side fills these in; an engine needs to know nothing about tables, snapshots or delete files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from airflow_incremental.core.ranges import EventRanges

if TYPE_CHECKING:
    import pyarrow as pa

#: Relation with the plan's ranges that every transform can read besides its sources.
PLAN_RANGES = "plan_ranges"


@attrs.frozen(kw_only=True)
class ReadPart:
    """Some of the rows of a read: files an engine may open itself, or a stream when it may not.

    ``paths`` are local Parquet files without row-level deletes whose columns are found by Iceberg field id; when they are None
    the rows must be taken from ``batches`` (delete files, remote storage, evolved nested columns).
    """

    paths: tuple[str, ...] | None
    #: Opens a new stream of the part's rows in the read's schema, whole; may be called more than once.
    batches: Callable[[], pa.RecordBatchReader] = attrs.field(eq=False, repr=False)
    #: Rows to keep by event time; None keeps all.
    keep: EventRanges | None = None
    #: Rows to leave out by event time (they come with another part); None leaves out none.
    drop: EventRanges | None = None


@attrs.frozen(kw_only=True)
class KeyFilter:
    """Which rows of a read count: those whose key is one of the given ones."""

    #: Columns of the read that hold the key.
    columns: tuple[str, ...]
    #: An Arrow table of distinct keys, its columns in the order of ``columns``.
    keys: pa.Table = attrs.field(eq=False, repr=False)


@attrs.frozen(kw_only=True)
class SourceRead:
    """The rows of one source a transform sees under the name ``name``: the union of the parts, each row exactly once."""

    name: str
    #: Arrow schema of the rows (order and types of the table at the pinned snapshot); ``field_ids`` in the same order.
    schema: Any = attrs.field(eq=False)
    field_ids: tuple[int, ...]
    parts: tuple[ReadPart, ...]
    #: Column the ranges of the parts refer to: a date, a timestamp (read as UTC) or a timestamp with zone.
    event_time: str | None = None
    #: Keys whose rows alone are meant; None means all rows.
    keys: KeyFilter | None = None
    #: Rows and bytes of the files that are opened, before any filter: what the read costs.
    rows: int = 0
    bytes: int = 0
    files: int = 0
