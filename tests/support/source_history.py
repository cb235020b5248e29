"""Random histories of one source table, and what a full scan says of them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from typing import Any

import attrs
import pyarrow.parquet as pq
from hypothesis import strategies as st
from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from tests.support.tables import (
    append,
    append_without_bounds,
    at,
    commit_snapshot,
    compact,
    delete_rows_by_position,
    expire,
    live_entries,
    live_files,
    overwrite_files,
    repartition,
    roll_back,
    rows_at,
)

Rows = Counter[tuple[int, dt.datetime | None]]


@attrs.define
class SourceHistory:
    """A table, and what the test knows about it that the table may forget."""

    table: Table
    next_id: int = 0
    #: Snapshot -> its parent when it was committed, which expiry takes from the table.
    parents: dict[int, int | None] = attrs.field(factory=dict)
    #: Snapshot -> ids of rows it brought without touching others.
    brought: dict[int, set[int]] = attrs.field(factory=dict)
    #: Snapshot -> its rows, as far as somebody asked.
    scanned: dict[int, Rows] = attrs.field(factory=dict)

    def head(self) -> int | None:
        """Return the head of ``main``."""
        found = self.table.current_snapshot()
        return None if found is None else found.snapshot_id

    def note(self, brought: Iterable[int] = ()) -> None:
        """Take note of new snapshots; the last one brought these rows."""
        self.table.refresh()
        for snapshot in self.table.metadata.snapshots:
            self.parents.setdefault(snapshot.snapshot_id, snapshot.parent_snapshot_id)
        head = self.head()
        ids = set(brought)
        if head is not None and ids:
            self.brought[head] = ids

    def new_rows(self, hours: Iterable[float | None]) -> list[tuple[int, dt.datetime | None]]:
        """Return rows with fresh ids at these hours."""
        rows = []
        for hour in hours:
            self.next_id += 1
            rows.append((self.next_id, None if hour is None else at(hour)))
        return rows

    def rows(self) -> Rows:
        """Return the rows of the head by a full scan."""
        head = self.head()
        if head is not None and head not in self.scanned:
            self.scanned[head] = Counter(rows_at(self.table, head))
        return Counter() if head is None else self.scanned[head]

    def since(self, base: int | None) -> list[int] | None:
        """Return the snapshots after one up to the head, or None if the head does not descend from it."""
        found: list[int] = []
        current = self.head()
        while current is not None:
            if current == base:
                return found
            found.append(current)
            current = self.parents[current]
        return found if base is None else None


@attrs.frozen
class Append:
    """New rows, late or not; None is a null event time."""

    hours: tuple[float | None, ...]
    bounds: bool = True
    operation: str = "append"

    def do(self, history: SourceHistory) -> None:
        rows = history.new_rows(self.hours)
        if self.operation == "overwrite":
            overwrite_files(history.table.refresh(), removed=[], rows=rows)
        else:
            (append if self.bounds else append_without_bounds)(history.table, *rows)
        history.note(i for i, _ in rows)


@attrs.frozen
class Compact:
    """One ``replace`` snapshot over all files, or over every second one."""

    whole: bool

    def do(self, history: SourceHistory) -> None:
        if history.head() is None:
            return
        files = [f.file_path for f in live_files(history.table)]
        if files:
            compact(history.table, None if self.whole else files[::2])
            history.note()


@attrs.frozen
class Delete:
    """A row goes: its file is rewritten without it, or dropped if it was alone."""

    nth: int

    def do(self, history: SourceHistory) -> None:
        rows = _by_id(history.rows())
        if rows:
            history.table.delete(f"id = {rows[self.nth % len(rows)][0]}")
            history.note()


@attrs.frozen
class Rewrite:
    """Some files are replaced by their rows, one of which moves in time, in a single overwrite."""

    nth: int
    count: int
    hour: float

    def do(self, history: SourceHistory) -> None:
        if history.head() is None or self.deletes_apply(history):
            return
        files = live_files(history.table)
        chosen = [files[(self.nth + i) % len(files)] for i in range(min(self.count, len(files)))]
        if not chosen:
            return
        paths = [f.file_path for f in chosen]
        rows = [r for p in paths for r in _stored(history.table, p)]
        moved = [(i, at(self.hour) if n == 0 else t) for n, (i, t) in enumerate(rows)]
        overwrite_files(history.table, removed=paths, rows=moved)
        history.note()

    @staticmethod
    def deletes_apply(history: SourceHistory) -> bool:
        return any(e.data_file.content != DataFileContent.DATA for _, e in live_entries(history.table))


@attrs.frozen
class DeleteByPosition:
    """A row goes through a file of position deletes (format version 2)."""

    nth: int
    bounds: bool

    def do(self, history: SourceHistory) -> None:
        rows = _by_id(history.rows())
        if rows and history.table.metadata.format_version == 2:
            delete_rows_by_position(history.table, [rows[self.nth % len(rows)][0]], bounds=self.bounds)
            history.note()


@attrs.frozen
class Drop:
    """A whole data file goes."""

    nth: int

    def do(self, history: SourceHistory) -> None:
        if history.head() is None:
            return
        files = live_files(history.table)
        if files:
            commit_snapshot(history.table, Operation.DELETE, removed=[files[self.nth % len(files)].file_path])
            history.note()


@attrs.frozen
class Expire:
    """Snapshots behind the head are expired; their files may go with them, as other engines do it."""

    which: tuple[int, ...]
    sweep: bool

    def do(self, history: SourceHistory) -> None:
        head = history.head()
        old = [s.snapshot_id for s in history.table.metadata.snapshots if s.snapshot_id != head]
        gone = {old[n % len(old)] for n in self.which} if old else set()
        if not gone:
            return
        before = self.files(history.table) if self.sweep else set()
        expire(history.table, gone)
        for path in before - self.files(history.table) if self.sweep else ():
            history.table.io.delete(path)

    @staticmethod
    def files(table: Table) -> set[str]:
        return {e.data_file.file_path for s in table.metadata.snapshots for _, e in live_entries(table, s)}


@attrs.frozen
class RollBack:
    """``main`` goes back to an ancestor of its head."""

    steps: int

    def do(self, history: SourceHistory) -> None:
        kept = {s.snapshot_id: s for s in history.table.refresh().metadata.snapshots}
        current = history.head()
        for _ in range(self.steps):
            parent = kept[current].parent_snapshot_id if current is not None else None
            if parent is None or parent not in kept:
                return
            current = parent
        if current is not None and current != history.head():
            roll_back(history.table, current)


@attrs.frozen
class Repartition:
    """The partition spec changes; files written so far keep theirs."""

    unit: str | None

    def do(self, history: SourceHistory) -> None:
        table = history.table.refresh()
        # Under format version 1 a removed field stays as void, and pyiceberg writes no two fields on one column.
        if table.metadata.format_version == 2 or self.unit is None or not table.spec().fields:
            repartition(table, [] if self.unit is None else [(self.unit, "ts")])


def _by_id(rows: Rows) -> list[tuple[int, dt.datetime | None]]:
    return sorted(rows, key=lambda r: r[0])


def _stored(table: Table, path: str) -> list[tuple[int, Any]]:
    with table.io.new_input(path).open() as stream:
        rows = pq.read_table(stream)
    return list(zip(rows.column(0).to_pylist(), rows.column(1).to_pylist(), strict=True))


HOURS = st.one_of(st.integers(0, 50).map(float), st.sampled_from([0.25, 1.75, 23.99]), st.none())
ACTIONS = st.one_of(
    st.builds(Append, st.lists(HOURS, min_size=1, max_size=4).map(tuple), st.booleans()),
    st.builds(Append, st.lists(HOURS, min_size=1, max_size=3).map(tuple), operation=st.just("overwrite")),
    st.builds(Append, st.lists(HOURS, min_size=1, max_size=4).map(tuple)),
    st.builds(Compact, st.booleans()),
    st.builds(Delete, st.integers(0, 30)),
    st.builds(Rewrite, st.integers(0, 9), st.integers(1, 3), st.integers(0, 50).map(float)),
    st.builds(DeleteByPosition, st.integers(0, 30), st.booleans()),
    st.builds(Drop, st.integers(0, 9)),
    st.builds(Expire, st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple), st.booleans()),
    st.builds(RollBack, st.integers(1, 3)),
    st.builds(Repartition, st.sampled_from(["day", "hour", None])),
)
#: What happens between two looks at the source.
TICKS = st.lists(st.lists(ACTIONS, min_size=1, max_size=4), min_size=1, max_size=4)
