"""Whatever happens to a source, what Spark is told to read is the rows that the other engines are bound to."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.types import StringType

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.errors import PlanExpired, UnknownRange, WatermarkLost
from airflow_incremental.core.plan import SourcePlan
from airflow_incremental.core.ranges import EventRanges, Grain
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.core.spark_job import SparkRead
from airflow_incremental.core.spec import Mode
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg.changed_rows import read_changed
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import head_of, position_of
from airflow_incremental.iceberg.reads import AddedFiles, read_ranges, schema_at
from airflow_incremental.iceberg.spark_reads import added_reads, changed_reads, snapshot_reads
from tests.support.source_history import ACTIONS, HOURS, Append, SourceHistory
from tests.support.spark_reads import Rows, outside, spark_rows
from tests.support.tables import make_table, rename_column, sql_catalog


@attrs.frozen
class Evolve:
    """A column comes, goes or gets another name; rows that are there keep what they have."""

    what: str

    def do(self, history: SourceHistory) -> None:
        table = history.table.refresh()
        extra = [f.name for f in table.schema().fields[3:]]
        if self.what == "rename":
            rename_column(table, table.schema().find_column_name(3) or "", f"name{len(table.schemas())}")
        elif self.what == "add":
            with table.update_schema() as update:
                update.add_column(f"extra{len(table.schemas())}", StringType())
        elif extra:
            with table.update_schema() as update:
                update.delete_column(extra[0])
        table.refresh()


EVOLVES = st.builds(Evolve, st.sampled_from(["add", "drop", "rename"]))
APPENDS = st.builds(Append, st.lists(HOURS, min_size=1, max_size=3).map(tuple))
TICK = st.lists(st.one_of(ACTIONS, APPENDS, APPENDS, EVOLVES), min_size=2, max_size=6)
#: What happens between two looks at the source, and between a plan and its replay.
TICKS = st.lists(st.tuples(TICK, st.one_of(st.just([]), TICK)), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def new_table(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Table]:
    """Make tables in one catalog, each under a name of its own."""
    catalog: Catalog = sql_catalog(tmp_path_factory.mktemp("source"))
    numbers = itertools.count()
    return lambda **options: make_table(catalog, f"raw.t{next(numbers)}", **options)


@settings(max_examples=settings().max_examples // 3)
@given(ticks=TICKS, version=st.sampled_from([1, 2, 2]), unit=st.sampled_from(["day", "hour", None]))
def test_what_spark_reads(
    new_table: Callable[..., Table], ticks: Sequence[tuple[list[Any], list[Any]]], version: int, unit: str | None
) -> None:
    table = new_table(version=version, partition_by=[] if unit is None else [(unit, "ts")])
    history = SourceHistory(table=table)
    base: SourcePosition | None = None
    for actions, later in ticks:
        for action in actions:
            action.do(history)
        pinned = position_of(history.table, head_of(history.table.refresh(), "main"))
        planned = {mode: changes_of(history.table, base, pinned, mode) for mode in ("append", "overwrite")}
        for action in later:
            action.do(history)
        history.table.refresh()
        for mode, before in planned.items():
            changes = changes_of(history.table, base, pinned, mode)  # type: ignore[arg-type]
            if before is not None and changes is not None and changes.digest == before.digest:
                check(history.table, base, pinned, changes, mode)
        base = pinned


def changes_of(table: Table, base: SourcePosition | None, pinned: SourcePosition, mode: Mode) -> ChangeSet | None:
    """Return the changes up to a position as a session finds them, or None where it would refuse or plan anew."""
    try:
        return detect(table, base, pinned.snapshot_id, event_time="ts", mode=mode, on_lost_watermark="added_only")
    except (WatermarkLost, UnknownRange, PlanExpired):
        return None


def check(table: Table, base: SourcePosition | None, pinned: SourcePosition, changes: ChangeSet, mode: str) -> None:
    source = SourcePlan(name="events", table="raw.t", base=base, pinned=pinned, derivation=changes.derivation)
    try:
        schema = schema_at(table, pinned.snapshot_id)
    except PlanExpired:
        return
    names = [f.name for f in schema.fields]
    event(f"{mode}: {changes.derivation}")
    if mode == "overwrite":
        check_changed(table, source, changes, names)
        check_ranges(table, source, changes, names)
        return
    drops: list[EventRanges | None] = [None]
    if changes.rewrites and all(f.ranges is not None for r in changes.rewrites.values() for f in r.files):
        drops.append(changes.rewrite_ranges().align(Grain.HOUR))
    rest, _, _ = changes.without_rewrites()
    for drop in drops:
        bound = rows_of(AddedFiles.of(table, source, rest, event_time="ts").read(drop=drop))
        bound = bound if drop is None else outside(bound, drop, 1)
        reads = added_reads(table, source, rest, event_time="ts", drop=drop)
        assert spark_rows(table, reads, names, "ts") == bound
        note(reads)


def check_changed(table: Table, source: SourcePlan, changes: ChangeSet, names: list[str]) -> None:
    """What came less what went is the same; how much is on both sides may differ."""
    try:
        bound = read_changed(table, source, changes, event_time="ts")
        added, removed = changed_reads(table, source, changes, event_time="ts")
    except PlanExpired:
        # What was taken away together with the snapshots that tell of it.
        assert changes.derivation == "sequence"
        return
    came, went = spark_rows(table, added, names, "ts"), spark_rows(table, removed, names, "ts")
    before, after = rows_of(bound.removed), rows_of(bound.added)
    assert (came - went, went - came) == (after - before, before - after)
    note(added)


def check_ranges(table: Table, source: SourcePlan, changes: ChangeSet, names: list[str]) -> None:
    keep = changes.changed
    at = source.pinned.snapshot_id
    bound = rows_of(read_ranges(table, "events", at, event_time="ts", keep=keep))
    inside = bound - outside(bound, keep, 1)
    assert spark_rows(table, snapshot_reads(table, source, keep=keep), names, "ts") == inside


def rows_of(read: SourceRead) -> Rows:
    """Return the rows of all files of a read; its ranges are the engine's to apply."""
    found: Rows = Counter()
    for part in read.parts:
        rows = part.batches().read_all()
        found.update(zip(*(c.to_pylist() for c in rows.columns), strict=True))
    return found


def note(reads: list[SparkRead]) -> None:
    for read in reads:
        how = "incremental" if read.start is not None else "snapshot"
        event(f"{how}, {'some files' if read.files else 'not some files' if read.not_files else 'whole'}")
