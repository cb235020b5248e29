"""What a session reads from one source, as plain values that an engine can bind to a name.

The Iceberg side fills these in; an engine needs to know nothing about tables, snapshots or delete files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from airflow_incremental.core.ranges import EventRanges

if TYPE_CHECKING:
    import pyarrow as pa

#: Relation with the plan's ranges that every transform can read besides its sources.
PLAN_RANGES = "plan_ranges"
#: Begins the names of relations that are no transform's business.
INTERNAL_PREFIX = "incremental_"


def changes_name(source: str) -> str:
    """Return the name of the relation with the changed rows of a driver."""
    return f"{source}_changes"


def ranges_name(source: str) -> str:
    """Return the name of the relation with the event times in which a driver changed."""
    return f"{source}_ranges"


def bounds_name(source: str) -> str:
    """Return the name of the relation with the least and greatest values among the changed rows of a driver."""
    return f"{source}_bounds"


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

    def joined(self, other: SourceRead) -> SourceRead:
        """Return the rows of this read and of another one of the same source."""
        return attrs.evolve(
            self,
            parts=(*self.parts, *other.parts),
            rows=self.rows + other.rows,
            bytes=self.bytes + other.bytes,
            files=self.files + other.files,
        )

    def within(self, ranges: EventRanges) -> SourceRead:
        """Return the rows of this read whose event time is in the ranges."""
        if ranges.is_everything:
            return self
        parts = (
            attrs.evolve(part, keep=ranges if part.keep is None else part.keep.intersect(ranges)) for part in self.parts
        )
        return attrs.evolve(self, parts=tuple(parts))


@attrs.frozen(kw_only=True)
class PlacedFile:
    """One data file without row-level deletes, whose rows are told apart by their position in it.

    :param path: of a local Parquet file an engine may open itself; None for one that comes as a stream.
    :param batches: opens a new stream of its rows, in file order.
    """

    path: str | None
    batches: Callable[[], pa.RecordBatchReader] = attrs.field(eq=False, repr=False)


@attrs.frozen(kw_only=True)
class ChangedRows:
    """The rows of a driver that came and those that went; what is on both sides (in rewritten files) did not change."""

    added: SourceRead
    removed: SourceRead

    def within(self, ranges: EventRanges) -> ChangedRows:
        """Return those whose event time is in the ranges."""
        return ChangedRows(added=self.added.within(ranges), removed=self.removed.within(ranges))


@attrs.frozen(kw_only=True)
class Changes:
    """What a transform may ask of a driver besides its rows, under names made of its own.

    :param name: of the source.
    :param find: finds the changed rows; called when the transform asks for them.
    :param ranges: event times in which the driver changed.
    :param bounds: column -> its least and greatest value among the changed rows, as numbers or ISO text; None if there are none.
    """

    name: str
    find: Callable[[], ChangedRows] = attrs.field(eq=False, repr=False)
    ranges: EventRanges = EventRanges()
    bounds: Mapping[str, list[Any] | None] = attrs.field(factory=dict)

    def within(self, ranges: EventRanges) -> Changes:
        """Return what may be asked of a part of the event times; bounds stay those of all changed rows."""
        return attrs.evolve(self, find=lambda: self.find().within(ranges), ranges=self.ranges.intersect(ranges))
