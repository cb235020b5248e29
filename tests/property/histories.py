"""Random histories: what can happen to a source and a target between two runs of a process, as Hypothesis draws it."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st
from pyiceberg.expressions import EqualTo
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import AssertRefSnapshotId, SetSnapshotRefUpdate
from pyiceberg.types import StringType

from tests.support.tables import compact, delete_rows_by_position, expire
from tests.support.world import World, hour, rows_table

#: Event hours of ordinary rows; foreign rows on the target lie far beyond.
HOURS = st.integers(0, 11)
FOREIGN_HOUR = 500


@attrs.frozen
class Land:
    """One append to the source."""

    hours: tuple[int, ...]
    region: str = "eu"

    def do(self, world: World) -> None:
        world.land(*(h + 0.25 for h in self.hours), region=self.region)


@attrs.frozen
class Compact:
    """The source is compacted: one replace snapshot."""

    def do(self, world: World) -> None:
        table = world.source
        if table.current_snapshot() is not None:
            compact(table)


@attrs.frozen
class Expire:
    """Old snapshots of the source between its ends are expired, but never the head."""

    keep: int

    def do(self, world: World) -> None:
        table = world.source
        head = table.metadata.current_snapshot_id
        old = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id != head][: -self.keep or None]
        if old:
            expire(table, old)


@attrs.frozen
class Delete:
    """Rows of the source are deleted by id."""

    nth: int

    def do(self, world: World) -> None:
        rows = world.source_rows()
        if rows:
            world.source.delete(EqualTo("id", rows[self.nth % len(rows)][0]))


@attrs.frozen
class Hide:
    """A row of the source is deleted by position (merge on read, which format version 1 does not have)."""

    nth: int

    def do(self, world: World) -> None:
        rows = world.source_rows()
        if rows:
            delete_rows_by_position(world.source, [rows[self.nth % len(rows)][0]])


@attrs.frozen
class Update:
    """A row of the source moves to another hour: one overwrite."""

    nth: int
    hour: int

    def do(self, world: World) -> None:
        rows = world.source_rows()
        if rows:
            i, _, region, v = rows[self.nth % len(rows)]
            world.source.overwrite(rows_table([(i, hour(self.hour + 0.75), region, v + 1)]), EqualTo("id", i))


@attrs.frozen
class AddColumn:
    """The source gets a column."""

    def do(self, world: World) -> None:
        table = world.source
        name = f"extra{len(table.schema().fields)}"
        with table.update_schema() as update:
            update.add_column(name, StringType())


@attrs.frozen
class RollBack:
    """The target's main goes back some snapshots."""

    steps: int

    def do(self, world: World) -> None:
        table = world.target
        index = {s.snapshot_id: s for s in table.metadata.snapshots}
        head = table.metadata.current_snapshot_id
        if head is None:
            return
        to = head
        for _ in range(self.steps):
            parent = index[to].parent_snapshot_id
            if parent is None or parent not in index:
                break
            to = parent
        if to != head:
            world.catalog.commit_table(
                table,
                (AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head),),
                (SetSnapshotRefUpdate(ref_name=MAIN_BRANCH, type="branch", snapshot_id=to),),
            )


@attrs.frozen
class ForeignCommit:
    """Somebody else appends a row to the target, at an hour no source row has."""

    def do(self, world: World) -> None:
        table = world.target
        values = {
            "id": -1,
            "ts": hour(FOREIGN_HOUR),
            "hour_ts": hour(FOREIGN_HOUR),
            "region": "zz",
            "v10": 0,
            "n": 0,
            "total": 0,
        }
        names = world.target_schema.names
        import pyarrow as pa

        table.append(pa.table({n: [values[n]] for n in names}, schema=world.target_schema))


@attrs.frozen
class CompactTarget:
    """The target is compacted by another engine."""

    def do(self, world: World) -> None:
        table = world.target
        if table.current_snapshot() is not None:
            compact(table)


@attrs.frozen
class Repartition:
    """The target's partitioning changes between day and hour of the event time."""

    unit: str

    def do(self, world: World) -> None:
        table = world.target
        column = world.event_time
        name = f"{column}_{self.unit}"
        fields = [f.name for f in table.spec().fields]
        if name in fields:
            return
        with table.update_spec() as update:
            for old in fields:
                update.remove_field(old)
            update.add_field(column, self.unit, name)


@attrs.frozen
class Run:
    """One scheduled run of the process."""


land = st.builds(Land, st.lists(HOURS, min_size=1, max_size=4).map(tuple), st.sampled_from(["eu", "us"]))
common = st.one_of(
    land, land, land, st.just(Compact()), st.just(AddColumn()), st.just(ForeignCommit()), st.just(CompactTarget())
)
rewrites = st.one_of(st.builds(Delete, st.integers(0, 50)), st.builds(Update, st.integers(0, 50), HOURS))
hides = st.builds(Hide, st.integers(0, 50))
rollbacks = st.builds(RollBack, st.integers(1, 3))
repartition = st.builds(Repartition, st.sampled_from(["day", "hour"]))


def histories(*extra: st.SearchStrategy[object], max_size: int = 14) -> st.SearchStrategy[list[object]]:
    """Return lists of actions that end with a run; about every third action is one."""
    action = st.one_of(common, st.just(Run()), *extra)
    return st.lists(action, min_size=2, max_size=max_size).map(lambda actions: [*actions, Run()])
