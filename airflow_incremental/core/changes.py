"""What changed in a source between two of its snapshots, as plain values.

A change set is derived from metadata by the Iceberg side; what follows from it (rows, ranges, what is late, what a
rewritten snapshot leaves out) is computed here, without looking at a table again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from airflow_incremental.core.errors import UnknownRange
from airflow_incremental.core.ranges import MICROSECOND, EventRanges

ChangeKind = Literal["added", "removed", "deletes"]
ChangeDerivation = Literal["first_run", "unchanged", "lineage", "diff", "sequence"]


@attrs.frozen(kw_only=True)
class FileChange:
    """A file that came or went: a data file that was added or removed, or a file of row-level deletes (``deletes``)."""

    path: str
    kind: ChangeKind
    #: Snapshot that added or removed it.
    snapshot_id: int
    #: Data sequence number of the file; decides which row-level deletes apply to it. 0 in tables of format version 1.
    sequence_number: int
    spec_id: int
    #: Rows in the file, before row-level deletes; for ``deletes`` the number of delete records.
    rows: int
    #: Event times of the rows that came or went, not aligned and without the null flag; None is unknown. For
    #: ``deletes`` the event times of the rows they can touch.
    ranges: EventRanges | None = None
    #: Rows without an event time; None is unknown.
    nulls: int | None = None
    #: The file as the table library knows it, for reading it.
    handle: Any = attrs.field(default=None, eq=False, repr=False)

    @property
    def touched(self) -> EventRanges | None:
        """Event times that may have changed, null included unless it is known that no row lacks one; None is unknown."""
        if self.ranges is None:
            return None
        return self.ranges if self.nulls == 0 else attrs.evolve(self.ranges, nulls=True)


@attrs.frozen(kw_only=True)
class Rewrite:
    """What one snapshot did that changed or removed rows which were there before the window, or which such a snapshot wrote."""

    added: tuple[FileChange, ...] = ()
    removed: tuple[FileChange, ...] = ()
    deletes: tuple[FileChange, ...] = ()
    #: Files it removed, given as added, whose rows nobody has consumed yet: still to be appended if the rewrite is
    #: left out.
    unread: tuple[FileChange, ...] = ()

    @property
    def files(self) -> tuple[FileChange, ...]:
        """Both sides: all files it added and removed."""
        return (*self.added, *self.removed, *self.deletes)


@attrs.frozen(kw_only=True)
class ChangeSet:
    """The difference between two snapshots of one source."""

    #: How it was found: ``lineage`` follows every snapshot between the two; ``diff`` compares the two file sets;
    #: ``sequence`` takes the files newer than a position that is gone (it misses rows that were removed meanwhile).
    derivation: ChangeDerivation
    #: Snapshots it stands for, newest first.
    snapshots: tuple[int, ...] = ()
    #: Snapshot id -> operation.
    operations: Mapping[int, str] = attrs.field(factory=dict)
    #: Files whose rows are new: appended, also those compacted away within the window; what came and went within it is
    #: left out.
    added: tuple[FileChange, ...] = ()
    #: Files that were there before and are gone, compaction excepted.
    removed: tuple[FileChange, ...] = ()
    #: Row-level delete files that came (or went) and touch rows that were there before.
    deletes: tuple[FileChange, ...] = ()
    #: Snapshots that changed or removed rows which were there before -> what they did; empty for ``first_run`` and
    #: ``diff``.
    rewrites: Mapping[int, Rewrite] = attrs.field(factory=dict)
    #: Row-level delete files that may hide rows of ``added``; needed to read them, whether or not they are changes
    #: themselves.
    masks: tuple[FileChange, ...] = ()
    #: What finding it cost: manifest lists, manifests, manifest entries, and data files whose event-time column was
    #: read.
    lists_read: int = 0
    manifests_read: int = 0
    entries_read: int = 0
    columns_read: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.deletes)

    @property
    def files(self) -> tuple[FileChange, ...]:
        """All files that came or went."""
        return (*self.added, *self.removed, *self.deletes)

    @property
    def rows_added(self) -> int:
        """Rows in the added files."""
        return sum(c.rows for c in self.added)

    @property
    def rows_removed(self) -> int:
        """Rows in the removed files, and delete records, which remove at least as many."""
        return sum(c.rows for c in self.removed) + sum(c.rows for c in self.deletes)

    @property
    def unknown(self) -> tuple[FileChange, ...]:
        """Files that do not tell which event times they hold; ``changed`` says nothing about them."""
        return tuple(c for c in self.files if c.ranges is None)

    @property
    def changed(self) -> EventRanges:
        """Event times of all files that came or went, as far as known; the null flag is set unless no row lacks an event time."""
        return EventRanges.union_of(t for c in self.files if (t := c.touched) is not None)

    @property
    def max_event_time(self) -> dt.datetime | None:
        """Latest event time of the added files (inclusive), or None if none is known."""
        ends = [c.ranges.ranges[-1].end for c in self.added if c.ranges]
        return max(ends) - MICROSECOND if ends else None

    def late(self, moment: dt.datetime | None) -> EventRanges:
        """Return the part of ``changed`` before ``moment``, which was already complete; nothing if nothing was."""
        return self.changed.below(moment)

    @property
    def digest(self) -> str:
        """Short fingerprint of which files came and went: 16 hex digits over what they are and their sorted paths."""
        return hashlib.sha256("\n".join(sorted(f"{c.kind} {c.path}" for c in self.files)).encode()).hexdigest()[:16]

    def without_rewrites(self) -> tuple[ChangeSet, int, int]:
        """Return the change set as if the rewriting snapshots had not been, and the rows left out: added and removed.

        Rows those snapshots removed before anybody consumed them are still new, so their files come back as added.
        """
        if not self.rewrites:
            return self, 0, 0
        rewrites = self.rewrites.values()
        left_out = {(c.path, c.snapshot_id) for r in rewrites for c in r.added}
        unread = tuple(c for r in rewrites for c in r.unread)
        back = {c.path for c in unread}
        rest = attrs.evolve(
            self,
            added=(*(c for c in self.added if (c.path, c.snapshot_id) not in left_out), *unread),
            removed=(),
            deletes=(),
            rewrites={},
        )
        rows_added = sum(c.rows for r in rewrites for c in r.added)
        rows_removed = sum(c.rows for r in rewrites for c in (*r.removed, *r.deletes) if c.path not in back)
        return rest, rows_added, rows_removed

    def rewrite_ranges(self) -> EventRanges:
        """Return the event times both sides of the rewriting snapshots can touch.

        :raises UnknownRange: a file does not tell.
        """
        return EventRanges.union_of(known(c) for r in self.rewrites.values() for c in r.files)


def known(change: FileChange) -> EventRanges:
    """Return the event times a file can touch.

    :raises UnknownRange: it does not tell.
    """
    touched = change.touched
    if touched is None:
        raise unknown_range(change.path)
    return touched


def unknown_range(path: str, *, why: str = "it has no bounds for the event-time column") -> UnknownRange:
    """Return the error for a changed file that does not tell which event times it holds."""
    return UnknownRange(
        f"it is not known which event times file {path} holds: {why}",
        expected="column bounds in the manifest, a partition field on the event time, or a readable event-time column",
        hint="set on_missing_bounds='read', or collect metrics for the column (write.metadata.metrics.column.<name>=full) "
        "and rewrite the file",
    )
