"""Whatever happens to a source, what change detection says of it agrees with a full scan before and after."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.core.changes import ChangeSet, FileChange
from airflow_incremental.core.errors import UnknownRange, WatermarkLost
from airflow_incremental.core.plan import SourcePlan
from airflow_incremental.core.ranges import EventRanges, Grain, utc
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.event_times import TimesReader, count_before
from airflow_incremental.iceberg.lineage import head_of, position_of
from airflow_incremental.iceberg.reads import AddedFiles, read_ranges
from tests.support.source_history import TICKS, Rows, SourceHistory
from tests.support.tables import make_table, sql_catalog, utc_at

Mode = Literal["append", "overwrite"]


@pytest.fixture(scope="module")
def new_table(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Table]:
    """Make tables in one catalog, each under a name of its own."""
    catalog: Catalog = sql_catalog(tmp_path_factory.mktemp("source"))
    numbers = itertools.count()
    return lambda **options: make_table(catalog, f"raw.t{next(numbers)}", **options)


@given(ticks=TICKS, version=st.sampled_from([1, 2]), unit=st.sampled_from(["day", "hour", None]))
def test_changes_agree_with_a_full_scan(
    new_table: Callable[..., Table], ticks: Sequence[Sequence[Any]], version: int, unit: str | None
) -> None:
    table = new_table(version=version, partition_by=[] if unit is None else [(unit, "ts")])
    history = SourceHistory(table=table)
    base, before = position_of(table, None), Rows()
    for tick in ticks:
        for action in tick:
            action.do(history)
        check_overwrite(history, base, before)
        check_append(history, base, before)
        check_added_only(history, base, before)
        base, before = position_of(table, head_of(table, "main")), history.rows()
    check_first_run(history)


def check_first_run(history: SourceHistory) -> None:
    changes = detect(history.table, None, history.head(), event_time="ts", mode="append")
    assert read_rows(added(history, changes)) == history.rows()


def check_overwrite(history: SourceHistory, base: SourcePosition, before: Rows) -> None:
    """What changed covers every row that came, went or moved, and nothing else within a file."""
    after = history.rows()
    changes = try_detect(history, base, "overwrite")
    if changes is None:
        return
    ranges = changes.changed
    for _, time in ((before - after) + (after - before)).elements():
        assert ranges.contains(None if time is None else utc_at_time(time))
    for change in (*changes.added, *changes.removed):
        check_exact(history.table, change)
    recomputed = read_ranges(history.table, "events", history.head(), event_time="ts", keep=ranges)
    assert outside(before, ranges) + inside(read_rows(recomputed), ranges) == after
    check_late(history.table, changes)


def check_append(history: SourceHistory, base: SourcePosition, before: Rows) -> None:
    """Added rows are the new ones; where old ones changed, the rewritten ranges tell the rest."""
    after = history.rows()
    changes = try_detect(history, base, "append")
    if changes is None:
        return
    assert not (changes.removed and not changes.rewrites)
    if not changes.rewrites:
        assert read_rows(added(history, changes)) == after - before
        assert not before - after
        return
    rest, _, _ = changes.without_rewrites()
    ranges = changes.rewrite_ranges().align(Grain.HOUR)
    new = read_rows(added(history, rest))
    recomputed = read_rows(read_ranges(history.table, "events", history.head(), event_time="ts", keep=ranges))
    assert outside(before, ranges) + outside(new, ranges) + inside(recomputed, ranges) == after
    window = history.since(base.snapshot_id)
    assert window is not None
    brought = {i for s in window for i in history.brought.get(s, ())}
    ids = Counter(i for i, _ in new.elements())
    assert max(ids.values(), default=1) == 1
    assert {i for i, _ in after if i in brought} <= ids.keys() <= brought


def check_added_only(history: SourceHistory, base: SourcePosition, before: Rows) -> None:
    """Where the position's snapshot is gone, newer files hold all new rows; in append they hold no other."""
    if base.snapshot_id in {s.snapshot_id for s in history.table.metadata.snapshots} or base.snapshot_id is None:
        return
    after = history.rows()
    for mode in ("append", "overwrite"):
        try:
            changes = detect(
                history.table,
                base,
                history.head(),
                event_time="ts",
                mode=mode,
                on_lost_watermark="added_only",
            )
        except (WatermarkLost, UnknownRange):
            continue
        if mode == "overwrite":
            assert all(changes.changed.contains(None if t is None else utc_at_time(t)) for _, t in after - before)
        elif not changes.rewrites and history.since(base.snapshot_id) is not None:
            assert read_rows(added(history, changes)) == after - before


def try_detect(history: SourceHistory, base: SourcePosition, mode: Mode) -> ChangeSet | None:
    """Detect, or return None where nobody can tell any more; a history that is all there must give an answer."""
    kept = {s.snapshot_id for s in history.table.metadata.snapshots}
    window = history.since(base.snapshot_id)
    intact = window is not None and all(s in kept for s in (*window, base.snapshot_id) if s is not None)
    try:
        return detect(history.table, base, history.head(), event_time="ts", mode=mode, grain=Grain.HOUR)
    except WatermarkLost:
        assert not intact
    except UnknownRange:
        # Only a file without bounds that nobody has any more.
        assert not intact
    return None


def check_exact(table: Table, change: FileChange) -> None:
    """A file's ranges touch exactly the hours its rows have, unless they can only be taken from what is left of it."""
    try:
        times = TimesReader.of(table, EventColumn.of(table, "ts")).times(change.handle).to_pylist()
    except FileNotFoundError:
        return
    assert change.ranges is not None
    real = {t.replace(minute=0, second=0, microsecond=0) for t in times if t is not None}
    told = {u.start.replace(tzinfo=None) for r in change.ranges.ranges for u in r.units(Grain.HOUR)}
    assert told == real
    assert change.nulls == times.count(None)


def check_late(table: Table, changes: ChangeSet) -> None:
    for change in changes.added:
        times = TimesReader.of(table, EventColumn.of(table, "ts")).times(change.handle).to_pylist()
        expected = sum(1 for t in times if t is not None and utc_at_time(t) < utc_at(20))
        assert count_before(table, change, utc_at(20), "ts") == expected


def added(history: SourceHistory, changes: ChangeSet) -> SourceRead:
    pinned = position_of(history.table, head_of(history.table, "main"))
    plan = SourcePlan(name="events", table="raw.t", base=None, pinned=pinned, derivation=changes.derivation)
    return AddedFiles.of(history.table, plan, changes, event_time="ts").read()


def read_rows(read: SourceRead) -> Rows:
    found: Rows = Counter()
    for part in read.parts:
        rows = part.batches().read_all()
        found.update(zip(rows.column("id").to_pylist(), rows.column("ts").to_pylist(), strict=True))
    return found


def inside(rows: Rows, ranges: EventRanges) -> Rows:
    return Counter({r: n for r, n in rows.items() if ranges.contains(None if r[1] is None else utc_at_time(r[1]))})


def outside(rows: Rows, ranges: EventRanges) -> Rows:
    return rows - inside(rows, ranges)


def utc_at_time(time: dt.datetime) -> dt.datetime:
    return utc(time.replace(tzinfo=dt.timezone.utc))
