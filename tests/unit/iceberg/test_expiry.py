"""Expiry takes what is old and needed by nobody, with the files that only that had, and says who keeps the rest."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import attrs
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.statistics import StatisticsFile
from pyiceberg.table.update import SetStatisticsUpdate

from airflow_incremental.core.errors import IncrementalError, TableError
from airflow_incremental.core.maintenance import MaintenancePolicy
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.tables import IcebergSource
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.garbage import plain_path
from airflow_incremental.iceberg.maintenance import Maintained, maintain
from airflow_incremental.iceberg.sweep import referenced
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.maintaining import KEEN, NOW, maintained
from tests.support.tables import append, at, expire, make_table, overwrite_files, roll_back, rows_at, sql_catalog
from tests.support.world import SOURCE, TARGET, World, hour

EXPIRE = attrs.evolve(KEEN, parts=("refs", "expire"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(home=tmp_path, mode="overwrite").set_up()
    for n in range(3):
        found.land(n, n + 0.5)
        steps.run(found.process())
    return found


def on_disk(table: Table) -> set[str]:
    root = Path(plain_path(table.location()))
    return {str(p) for p in root.rglob("*") if p.is_file() and not p.name.endswith(".metadata.json")}


def nothing_lost_or_left(table: Table) -> None:
    """Assert that exactly the files that are referred to are there, and that every kept snapshot can be read."""
    table = table.catalog.load_table(table.name())
    assert on_disk(table) == {p for p in referenced(table) if not p.endswith(".metadata.json")}
    for snapshot in table.metadata.snapshots:
        table.scan(snapshot_id=snapshot.snapshot_id).to_arrow()


def kept(table: Table) -> list[int]:
    return [s.snapshot_id for s in table.refresh().metadata.snapshots]


def test_only_the_head_stays_where_nobody_needs_more(world: World) -> None:
    before = kept(world.target)
    done = maintained(world.catalog, TARGET, EXPIRE)
    assert kept(world.target) == before[-1:]
    assert done.counts["snapshots_expired"] == len(before) - 1
    assert done.counts["manifest_lists_deleted"] == len(before) - 1
    assert done.expiry.held == ()
    nothing_lost_or_left(world.target)
    world.check()
    assert steps.run(world.process()).outcome == "nothing_to_do", "the watermark is where it was"


def test_replaced_files_go_with_the_last_snapshot_that_needs_them(world: World) -> None:
    world.land(0.25)
    steps.run(world.process())
    replaced = {task.file.file_path for task in world.target.scan().plan_files()}
    world.land(0.75)
    steps.run(world.process())
    replaced -= {task.file.file_path for task in world.target.scan().plan_files()}
    assert len(replaced) == 1
    # The head removed it: a consumer that reads what the head did may want to look at it.
    first = maintained(world.catalog, TARGET, EXPIRE)
    assert replaced.isdisjoint(first.expiry.files.data)
    world.land(5)
    steps.run(world.process())
    second = maintained(world.catalog, TARGET, EXPIRE)
    assert set(second.expiry.files.data) == replaced
    nothing_lost_or_left(world.target)
    world.check()


def test_removed_files_go_although_the_manifest_that_says_so_stays(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    append(table, (1, at(0)), (2, at(1)))
    gone = next(task.file.file_path for task in table.scan().plan_files())
    overwrite_files(table, removed=[gone], rows=[(3, at(5))])
    assert maintained(catalog, "raw.events", EXPIRE).expiry.files.data == (), "the head removed it"
    append(table, (4, at(6)))
    # The manifest that lists it as removed also lists a file that stays.
    assert maintained(catalog, "raw.events", EXPIRE).expiry.files.data == (gone,)
    nothing_lost_or_left(table)


def test_an_open_session_keeps_what_it_was_planned_on(world: World) -> None:
    world.land(1.5, 7)
    session = plan(world.process("slow"))
    assert isinstance(session, Session)
    world.target.append(foreign(world, 400))
    world.target.append(foreign(world, 401))
    held = maintained(world.catalog, TARGET, EXPIRE).expiry.held
    assert any(session.plan.session in h.by for h in held)
    assert session.plan.main in kept(world.target)
    sealed = steps.load(session)
    maintained(world.catalog, TARGET, EXPIRE)
    steps.publish(session, steps.audit(session, sealed))
    own = {row for row in world.target_rows() if "zz" not in row}
    assert own == set(world.oracle(world.source_rows()))
    assert len(world.target_rows()) == len(own) + 2


def foreign(world: World, at_hour: int) -> Any:
    import pyarrow as pa

    row = {"hour_ts": hour(at_hour), "region": "zz", "n": 0, "total": 0}
    return pa.Table.from_pylist([row], schema=world.target_schema)


def test_a_pinned_consumer_keeps_all_that_came_since(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    pinned = attrs.evolve(world.spec, sources={"events": IcebergSource(SOURCE, event_time="ts", pin=True)})
    world.land(0)
    steps.run(attrs.evolve(world.process(), spec=pinned))
    consumed = world.source.metadata.current_snapshot_id
    for n in range(3):
        world.land(n)
    held = maintained(world.catalog, SOURCE, EXPIRE).expiry.held
    assert [(h.by, h.snapshot_id, h.snapshots) for h in held] == [
        (f"the pin {naming.pin_tag('proc', 'events')!r}", consumed, 3)
    ]
    assert steps.run(attrs.evolve(world.process(), spec=pinned)).published is not None
    world.check()
    maintained(world.catalog, SOURCE, EXPIRE)
    assert len(kept(world.source)) == 1, "the pin went along"


def test_consumers_that_do_not_pin_are_kept_if_they_are_known(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(0)
    steps.run(world.process())
    consumed = world.source.metadata.current_snapshot_id
    world.land(1)
    session = plan(world.process("open"))
    assert isinstance(session, Session)
    world.land(2)
    world.land(3)
    done = maintained(world.catalog, SOURCE, EXPIRE, consumers=["mart.*"])
    assert {h.snapshot_id for h in done.expiry.held} >= {consumed}
    assert any(session.plan.session in h.by for h in done.expiry.held)
    steps.publish(session, steps.audit(session, steps.load(session)))
    steps.run(world.process())
    world.check()
    maintained(world.catalog, SOURCE, EXPIRE, consumers=[TARGET])
    assert len(kept(world.source)) == 1


def test_an_unknown_consumer_finds_out(tmp_path: Path) -> None:
    """Nothing is silently skipped: its position is lost, which a policy decides about."""
    world = World(home=tmp_path).set_up()
    world.land(0)
    steps.run(world.process())
    world.land(1)
    world.land(2)
    maintained(world.catalog, SOURCE, EXPIRE)
    with pytest.raises(IncrementalError, match="has been expired"):
        steps.run(world.process())


def test_a_quiet_process_of_the_same_target_keeps_its_watermark_until_it_is_retired(tmp_path: Path) -> None:
    busy = World(home=tmp_path, mode="append", name="busy").set_up()
    quiet = World(home=tmp_path, mode="append", name="quiet", policies={"initial": {"adopt": "current"}})
    busy.land(0)
    steps.run(busy.process())
    steps.run(quiet.process())
    since = busy.target.metadata.current_snapshot_id
    for n in range(3):
        busy.land(n)
        steps.run(busy.process())
    held = maintained(busy.catalog, TARGET, EXPIRE).expiry.held
    assert [(h.by, h.snapshot_id) for h in held] == [("the watermark of process 'quiet'", since)]
    table = busy.target
    table.manage_snapshots().remove_tag(naming.watermark_tag("quiet")).commit()
    with table.transaction() as transaction:
        transaction.remove_properties(naming.state_property("quiet"))
    maintained(busy.catalog, TARGET, EXPIRE)
    assert len(kept(busy.target)) == 1


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return sql_catalog(tmp_path)


def test_somebodys_tag_keeps_its_snapshot_and_a_branch_all_since_its_fork(catalog: Catalog) -> None:
    table = make_table(catalog)
    ids = [append(table, (n, at(n))).snapshot_id for n in range(6)]
    table.manage_snapshots().create_tag(ids[1], "month-end").commit()
    maintained(catalog, "raw.events", EXPIRE)
    assert kept(table) == [ids[1], ids[5]]
    assert [i for i, _ in rows_at(table, ids[1])] == [0, 1]
    table.manage_snapshots().create_branch(ids[5], "dev").commit()
    append(table, (90, at(1)), branch="dev")
    append(table, (91, at(1)), branch="dev")
    for n in range(6, 9):
        append(table, (n, at(n)))
    done = maintained(catalog, "raw.events", EXPIRE)
    assert len(kept(table)) == 1 + 1 + 2 + 3
    assert [(h.by, h.snapshots) for h in done.expiry.held] == [("the branch 'dev'", 3)]
    nothing_lost_or_left(table)
    table.manage_snapshots().remove_branch("dev").commit()
    maintained(catalog, "raw.events", EXPIRE)
    assert len(kept(table)) == 2
    nothing_lost_or_left(table)


def test_what_was_rolled_back_goes(catalog: Catalog) -> None:
    table = make_table(catalog)
    ids = [append(table, (n, at(n))).snapshot_id for n in range(3)]
    roll_back(table, ids[0])
    append(table, (9, at(9)))
    done = maintained(catalog, "raw.events", attrs.evolve(EXPIRE, retain_last=10))
    assert set(done.expiry.snapshots) == set(ids[1:])
    assert len(done.expiry.files.data) == 2
    nothing_lost_or_left(table)


@pytest.mark.parametrize(
    ("properties", "policy", "left"),
    [
        ({}, MaintenancePolicy(parts=("expire",)), 6),
        ({"history.expire.max-snapshot-age-ms": "1"}, MaintenancePolicy(parts=("expire",)), 1),
        (
            {"history.expire.max-snapshot-age-ms": "1", "history.expire.min-snapshots-to-keep": "4"},
            MaintenancePolicy(parts=("expire",)),
            4,
        ),
        ({"history.expire.max-snapshot-age-ms": "1"}, MaintenancePolicy(parts=("expire",), retain_last=3), 3),
        ({}, MaintenancePolicy(parts=("expire",), expire_older_than=NOW), 1),
        ({}, MaintenancePolicy(parts=("expire",), expire_older_than=dt.timedelta(days=10**6)), 6),
        ({"gc.enabled": "false"}, EXPIRE, 6),
    ],
)
def test_how_long_history_stays(
    catalog: Catalog, properties: dict[str, str], policy: MaintenancePolicy, left: int
) -> None:
    table = make_table(catalog, properties=properties)
    for n in range(6):
        append(table, (n, at(n)))
    maintained(catalog, "raw.events", policy)
    assert len(kept(table)) == left


def test_a_property_that_is_no_number(catalog: Catalog) -> None:
    append(make_table(catalog, properties={"history.expire.max-snapshot-age-ms": "a week"}), (1, at(1)))
    with pytest.raises(TableError, match=r"history\.expire\.max-snapshot-age-ms.*'a week'"):
        maintained(catalog, "raw.events", MaintenancePolicy(parts=("expire",)))


def test_files_that_lie_elsewhere_or_belong_to_another_table_stay(catalog: Catalog) -> None:
    table, other = make_table(catalog), make_table(catalog, "raw.other")
    append(other, (7, at(7)))
    borrowed = [task.file.file_path for task in other.scan().plan_files()]
    table.add_files(borrowed)
    table.delete("id = 7")
    append(table, (1, at(1)))
    append(table, (2, at(2)))
    done = maintained(catalog, "raw.events", EXPIRE)
    assert list(done.expiry.files.not_ours) == borrowed
    assert "1 files of expired snapshots stay" in done.all_notes[0]
    assert rows_at(other) == [(7, at(7))]


def test_statistics_go_with_their_snapshot(catalog: Catalog) -> None:
    table = make_table(catalog)
    ids = [append(table, (n, at(n))).snapshot_id for n in range(2)]
    paths = []
    for snapshot_id in ids:
        path = Path(plain_path(table.location())) / "metadata" / f"{snapshot_id}.puffin"
        path.write_bytes(b"PFA1")
        paths.append(path)
        statistics = StatisticsFile(
            snapshot_id=snapshot_id,
            statistics_path=str(path),
            file_size_in_bytes=4,
            file_footer_size_in_bytes=4,
            blob_metadata=[],
        )
        catalog.commit_table(table, (), (SetStatisticsUpdate(statistics=statistics),))
    done = maintained(catalog, "raw.events", EXPIRE)
    assert done.counts["statistics_deleted"] == 1
    assert [p.exists() for p in paths] == [False, True]
    assert [s.snapshot_id for s in table.refresh().metadata.statistics] == ids[1:]


def test_a_watermark_that_shows_only_by_what_might_go_is_left_alone(world: World) -> None:
    """Somebody else's expiry took the publish from the lineage: the next run puts the watermark back, then maintenance goes on."""
    world.target.append(foreign(world, 400))
    world.target.append(foreign(world, 401))
    table = world.target
    table.manage_snapshots().remove_tag(naming.watermark_tag("proc")).commit()
    head = table.refresh().metadata.current_snapshot_id
    expire(table, [i for i in kept(table) if i != head])
    done = maintained(world.catalog, TARGET)
    assert done.counts["snapshots_expired"] == done.counts["partitions_compacted"] == 0
    assert any("watermark of process 'proc'" in note for note in done.all_notes)
    assert steps.run(world.process()).outcome == "nothing_to_do"
    assert maintained(world.catalog, TARGET, EXPIRE).counts["snapshots_expired"] == 1


def test_an_open_session_whose_plan_cannot_be_read_keeps_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(home=tmp_path).set_up()
    world.land(0)
    assert isinstance(plan(world.process("old")), Session)
    world.land(1)

    def refuse(_: str) -> Plan:
        raise IncrementalError("the plan is of version 99")

    monkeypatch.setattr(Plan, "decode", refuse)
    done: Maintained = maintained(world.catalog, SOURCE, EXPIRE, consumers=[TARGET])
    assert done.counts["snapshots_expired"] == 0
    assert "the plan is of version 99" in done.all_notes[0]


def test_a_table_without_a_snapshot(catalog: Catalog) -> None:
    table = make_table(catalog)
    assert set(maintained(catalog, "raw.events").counts.values()) == {0}
    assert table.refresh().metadata.snapshots == []


def test_a_file_that_is_missing_is_said_and_nothing_more_goes(catalog: Catalog) -> None:
    table = make_table(catalog)
    for n in range(3):
        append(table, (n, at(n)))
    table.delete("id = 1")
    current = table.refresh().current_snapshot()
    assert current is not None
    Path(plain_path(current.manifest_list)).unlink()
    before = on_disk(table)
    with pytest.raises(TableError, match=r"a file that raw\.events refers to is missing: .*snap-"):
        maintain(catalog, "raw.events", EXPIRE)
    assert on_disk(table) == before


def test_a_commit_in_between_is_looked_at_anew(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch that is set to an old snapshot while the expiry is on its way keeps it."""
    table = make_table(catalog)
    ids = [append(table, (n, at(n))).snapshot_id for n in range(4)]
    table.manage_snapshots().create_branch(ids[3], "late").commit()
    real, came = type(catalog).commit_table, []

    def commit_table(self: Any, found: Table, requirements: Any, updates: Any) -> Any:
        if not came:
            came.append(1)
            catalog.load_table("raw.events").manage_snapshots().create_branch(ids[1], "late").commit()
        return real(self, found, requirements, updates)

    monkeypatch.setattr(type(catalog), "commit_table", commit_table)
    done = maintain(catalog, "raw.events", EXPIRE)
    assert came
    assert done.expiry.snapshots == (ids[0],)
    assert kept(table) == ids[1:]
    nothing_lost_or_left(table)
