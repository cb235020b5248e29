"""Branches of sessions that are over go, those of open ones and of people stay; orphans of others are listed."""

from __future__ import annotations

import uuid
from pathlib import Path

import attrs
import pyarrow as pa
import pytest
from pyiceberg.table import Table
from pyiceberg.table.update import SetSnapshotRefUpdate

from airflow_incremental.audits import NotNull
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.garbage import plain_path
from airflow_incremental.iceberg.locks import KEEP_FAILED
from airflow_incremental.iceberg.writer import write
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.maintaining import KEEN, maintained
from tests.support.world import SOURCE, TARGET, World, create, hour

REFS = attrs.evolve(KEEN, parts=("refs",))
OLD = "20240101T000000-0123abcd"


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(home=tmp_path).set_up()
    found.land(0, 1)
    steps.run(found.process())
    return found


def point(table: Table, name: str, **options: int) -> None:
    """Make a branch at the head."""
    head = table.metadata.current_snapshot_id
    update = SetSnapshotRefUpdate(ref_name=name, type="branch", snapshot_id=head, **options)
    table.catalog.commit_table(table, (), (update,))


def test_branches_of_sessions_that_are_over(world: World) -> None:
    world.land(2)
    session = plan(world.process("open", transform=None))
    assert isinstance(session, Session)
    own = naming.scratch_ref("proc", session.plan.session)
    world.target.append(world.target_schema.empty_table(), branch=own)
    left = [
        naming.data_ref("proc", OLD),
        naming.scratch_ref("proc", OLD, 3, 1),
        naming.audit_ref("proc", OLD, 2),
        naming.data_ref("gone_process", OLD),
    ]
    people = ["dev", "inc_dev", f"feature_{OLD}", f"inc_quarantine_proc_{OLD}_part"]
    for name in (*left, *people):
        point(world.target, name)
    done = maintained(world.catalog, TARGET, REFS)
    assert set(done.expiry.refs) == set(left)
    assert done.expiry.refs[left[0]] == f"session {OLD} of process 'proc' is over"
    refs = set(world.target.metadata.refs)
    assert refs == {"main", naming.watermark_tag("proc"), naming.lock_ref("proc"), own, *people}
    assert steps.abandon(world.catalog, TARGET, "proc", reason="done") is not None


def test_a_process_that_is_called_like_a_branch_of_a_session(tmp_path: Path) -> None:
    """Its lock has the name of the data branch of another process's session: what it points at says what it is."""
    world = World(home=tmp_path, name=f"proc_{OLD}").set_up()
    world.land(0)
    session = plan(world.process("open"))
    assert isinstance(session, Session)
    assert naming.session_of_ref(naming.lock_ref(world.name)) == ("proc", OLD)
    assert maintained(world.catalog, TARGET, REFS).expiry.refs == {}
    steps.publish(session, steps.audit(session, steps.load(session)))
    world.check()


def test_failed_sessions_beyond_the_last_few(world: World) -> None:
    failing = {"transform": "SELECT id, ts, region, NULL::BIGINT AS v10 FROM events", "audits": (NotNull("v10"),)}
    world.land(2)
    for _ in range(KEEP_FAILED):
        with pytest.raises(AuditFailed):
            steps.run(world.process(**failing))
    kept = {r for r in world.target.metadata.refs if r.startswith(naming.FAILED_PREFIX)}
    assert len(kept) == KEEP_FAILED
    assert maintained(world.catalog, TARGET).expiry.refs == {}, "and each can be read without its history"
    older = naming.failed_ref(OLD)
    table = world.target
    update = SetSnapshotRefUpdate(ref_name=older, type="branch", snapshot_id=table.metadata.refs[min(kept)].snapshot_id)
    table.catalog.commit_table(table, (), (update,))
    assert set(maintained(world.catalog, TARGET, REFS).expiry.refs) == {older}
    for name in kept:
        assert world.target.scan(snapshot_id=world.target.metadata.refs[name].snapshot_id).to_arrow().num_rows == 3


def test_refs_past_the_age_their_owners_gave_them(world: World) -> None:
    point(world.target, "short", max_ref_age_ms=1)
    point(world.target, "long", max_ref_age_ms=10**9)
    point(world.target, naming.lock_ref("other"), max_ref_age_ms=1)
    assert set(maintained(world.catalog, TARGET, REFS).expiry.refs) == {"short"}
    assert {"long", naming.lock_ref("other")} <= set(world.target.metadata.refs)


def row(table: Table) -> pa.RecordBatchReader:
    values = {"id": 1, "ts": hour(3), "region": "eu", "v10": 1}
    return pa.Table.from_pylist([values], schema=table.schema().as_arrow()).to_reader()


def stray(table: Table, name: str) -> Path:
    path = Path(plain_path(table.location())) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"rows")
    return path


def test_orphans_of_others_are_listed_and_go_only_if_that_is_asked_for(world: World) -> None:
    target = world.target
    below = create(world.catalog, "mart.below", world.target_schema, ())
    world.catalog.drop_table("mart.below")
    below = world.catalog.create_table("mart.below", schema=target.schema(), location=f"{target.location()}/data/below")
    below.append(row(below).read_all())
    own = write(target, row(target), write_id=uuid.uuid4(), check=None).files[0].file_path
    foreign = [stray(target, f"data/{uuid.uuid4()}.parquet"), stray(target, "metadata/snap-1-0.avro")]
    hidden = [stray(target, "data/.part.parquet.crc"), stray(target, "data/_SUCCESS")]
    other = stray(target, f"data/{naming.file_mark(uuid.uuid4())}-00000.parquet")
    done = maintained(world.catalog, TARGET)
    assert [f.path for f in done.orphans] == [plain_path(own)]
    assert {Path(f.path) for f in done.foreign} == set(foreign)
    assert all(p.exists() for p in foreign)
    done = maintained(world.catalog, TARGET, attrs.evolve(KEEN, delete_foreign_orphans=True))
    assert {Path(f.path) for f in done.orphans} == set(foreign)
    assert not any(p.exists() for p in foreign)
    assert all(p.exists() for p in hidden)
    assert other.exists(), "it bears the mark of another table"
    assert below.refresh().scan().to_arrow().num_rows == 1
    world.check()


def test_files_of_an_open_session_stay_however_old(world: World) -> None:
    world.land(2)
    session = plan(world.process("open"))
    assert isinstance(session, Session)
    written = write(world.target, row(world.target), write_id=uuid.uuid4(), check=None).files[0].file_path
    assert maintained(world.catalog, TARGET).orphans == ()
    steps.abandon(world.catalog, TARGET, "proc", reason="test")
    assert plain_path(written) in [f.path for f in maintained(world.catalog, TARGET).orphans]


def test_files_for_a_quarantine_table_stay_while_a_session_of_its_target_is_open(world: World) -> None:
    aside = create(world.catalog, "mart.aside", world.target_schema, (), **{naming.QUARANTINE_OF: TARGET})
    world.land(2)
    assert isinstance(plan(world.process("open")), Session)
    written = write(aside, row(aside), write_id=uuid.uuid4(), check=None).files[0].file_path
    assert maintained(world.catalog, "mart.aside").orphans == ()
    steps.abandon(world.catalog, TARGET, "proc", reason="test")
    assert [f.path for f in maintained(world.catalog, "mart.aside").orphans] == [plain_path(written)]


def test_a_table_whose_files_others_may_use(world: World) -> None:
    with world.source.transaction() as transaction:
        transaction.set_properties({"gc.enabled": "false"})
    stray(world.source, f"data/{naming.file_mark(world.source.metadata.table_uuid)}-0.parquet")
    done = maintained(world.catalog, SOURCE)
    assert done.orphans == done.foreign == done.expiry.snapshots == ()
    assert len([note for note in done.all_notes if "gc.enabled=false" in note]) == 2
