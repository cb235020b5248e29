"""Plans in chunks: by one worker, by several, again after failures; always what one computation over everything gives."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import duckdb
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.types import StringType

from airflow_incremental.core.chunks import Chunking
from airflow_incremental.core.errors import SessionSuperseded, TargetChanged, WatermarkLost
from airflow_incremental.core.ranges import MAX_TIME, EventRanges, TimeRange
from airflow_incremental.core.requests import RestateRequest
from airflow_incremental.core.tables import IcebergTarget
from airflow_incremental.engines.duckdb import DuckDBEngine
from airflow_incremental.iceberg import commits, manifests, naming
from airflow_incremental.iceberg.avro import Kind
from airflow_incremental.iceberg.progress import done_parts
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.preview import preview
from airflow_incremental.sessions.process import Session
from tests.support.counting import Counting, attempt
from tests.support.modes import world_of
from tests.support.world import OVERWRITE_SQL, World, hour, rows_table

CHUNKED = pytest.mark.parametrize("mode", ["append in chunks", "overwrite in chunks"])


#: Corrected later.
WRONG = OVERWRITE_SQL.replace("sum(v)", "sum(v + 1)")


def filled(tmp_path: Path, mode: str, **options: Any) -> World:
    world = world_of(tmp_path, mode, **options).set_up()
    for n in range(6):
        world.land(n + 0.1, n + 0.2, n + 0.9)
    world.land(0.5, 3.5, region="us")
    return world


def opened(world: World, run_id: str = "run", **changes: Any) -> Session:
    session = plan(world.process(run_id, **changes))
    assert isinstance(session, Session)
    return session


@CHUNKED
def test_a_first_load_in_chunks(tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "airflow_incremental")
    world = filled(tmp_path, mode)
    told: list[tuple[int, int]] = []
    engine = Counting()
    process = world.process(
        "first", engine=engine, keep_parts_every=0.0, on_progress=lambda done, parts: told.append((done, parts))
    )
    assert preview(process).parts == 3
    finished = steps.run(process)
    world.check()
    assert finished.plan is not None
    assert len(finished.plan.chunks) == 3
    assert len(engine.seen) == 3
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert "chunk 1 of 3 is done: 2024-01-01T00:00:00Z/" in caplog.text, (
        "what there is of it, not from the first year on"
    )
    # A next one of an hour is done at once.
    world.land(6.5)
    finished = steps.run(world.process())
    assert finished.plan is not None
    assert finished.plan.cuts == ()
    world.check()


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_function_that_tells_the_columns_of_a_new_target_sees_one_chunk(tmp_path: Path, mode: str) -> None:
    """As much as any other time: all at once may be more than there is memory."""
    world = filled(tmp_path, f"{mode} in chunks")
    sql = world.process("any").transform
    seen: list[int] = []

    def transform(relations: Any, _plan: Any) -> Any:
        """Note how many rows there are."""
        ((rows,),) = relations["events"].aggregate("count(*)").limit(1).fetchall()
        seen.append(rows)
        return relations["events"].query("events", sql)

    by = "ts" if mode == "append" else "hour_ts"
    target = IcebergTarget("mart.made", event_time=by, create=True, partition_by=(f"hour({by})",))
    finished = steps.run(world.process(spec=attrs.evolve(world.spec, target=target), transform=transform))
    assert finished.plan is not None
    assert len(finished.plan.chunks) == 3
    assert len(seen) == 4
    assert seen[0] == seen[1]
    assert sum(seen[1:]) == len(world.source_rows())
    made = world.catalog.load_table("mart.made").scan().to_arrow().select(world.target_schema.names)
    assert Counter(tuple(row.values()) for row in made.to_pylist()) == world.oracle(world.source_rows())


@pytest.mark.parametrize("mode", ["append", "overwrite"])
@pytest.mark.parametrize("wide", [False, True])
def test_files_that_lie_anywhere_in_time_are_not_read_for_very_many_chunks(
    tmp_path: Path, mode: str, *, wide: bool
) -> None:
    """As those of a source that is laid out by something else than time; a hundred chunks would each read all of it."""
    world = world_of(tmp_path, mode, binding={"chunking": Chunking(1, 12)}).set_up()
    for n in range(12):
        world.land(*(n / 20 + m if wide else n + m / 20 for m in range(12)))
    chunks = len(attempt(world))
    assert chunks == 4 if wide else chunks > 8
    world.check()


@CHUNKED
def test_what_reads_little_is_not_cut(tmp_path: Path, mode: str) -> None:
    world = filled(tmp_path, mode.split(maxsplit=1)[0])
    finished = steps.run(world.process())
    assert finished.plan is not None
    assert finished.plan.cuts == ()


@CHUNKED
def test_a_restatement_in_chunks(tmp_path: Path, mode: str) -> None:
    world = filled(tmp_path, mode)
    steps.run(world.process())
    request = RestateRequest(range=TimeRange(hour(1), hour(5)), cause="form")
    sql = world.process("any").transform
    column, time = ("v10", 1) if world.mode == "append" else ("total", 0)
    sql = f"SELECT * REPLACE ({column} + 1 AS {column}) FROM ({sql})"
    finished = steps.run(world.process(transform=sql, restate=request))
    assert finished.plan is not None
    assert len(finished.plan.chunks) == 3
    assert world.target_rows() == Counter(
        (*row[:-1], row[-1] + (hour(1) <= row[time] < hour(5))) for row in world.oracle(world.source_rows()).elements()
    )


@CHUNKED
def test_a_reload_in_chunks(tmp_path: Path, mode: str) -> None:
    world = filled(tmp_path, mode, policies={"on_lost_watermark": "reload", "on_null_event_time": "own_range"})
    # Also rows without event time, and at the very ends of what a time can be.
    ends = [None, dt.datetime(1, 1, 1, tzinfo=dt.timezone.utc), MAX_TIME]
    world.source.append(rows_table([(100 + n, at, "eu", n) for n, at in enumerate(ends)]))
    steps.run(world.process())
    world.check()
    rows = world.source.scan().to_arrow()
    world.catalog.drop_table("raw.events")
    world.catalog.create_table("raw.events", schema=rows.schema).append(rows)
    finished = steps.run(world.process())
    assert finished.plan is not None
    assert (finished.plan.kind, len(finished.plan.chunks)) == ("reload", 3)
    world.check()


@CHUNKED
def test_a_retry_computes_what_is_not_done(tmp_path: Path, mode: str) -> None:
    world = filled(tmp_path, mode)
    done = attempt(world, 2)
    rest = attempt(world)
    assert (len(done), len(rest)) == (2, 1)
    assert not set(done).intersection(rest)
    world.check()


@pytest.mark.parametrize("mode", ["append", "append in chunks", "overwrite", "overwrite in chunks"])
def test_a_function_may_catch_what_the_database_says(tmp_path: Path, mode: str) -> None:
    """In a transaction the first error would be its end."""
    world = filled(tmp_path, mode)
    sql = world.process("any").transform

    def transform(relations: Any, _plan: Any) -> Any:
        """Try what fails for some row, and do without."""
        with pytest.raises(duckdb.ConversionException):
            relations["events"].query("events", "SELECT max(('x' || id)::INTEGER) FROM events").limit(1).fetchall()
        return relations["events"].query("events", sql)

    attempt(world, transform=transform)
    world.check()


def test_a_corrected_transform_computes_all_again(tmp_path: Path) -> None:
    world = filled(tmp_path, "overwrite in chunks")
    attempt(world, 2, transform=WRONG)
    assert len(attempt(world)) == 3
    world.check()


def test_who_seals_is_told_of_chunks_by_another_transform(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that differs from task to task makes chunks side by side all in vain, and nothing else would say so."""
    world = filled(tmp_path, "overwrite in chunks")
    wrong = opened(world, transform=WRONG)
    steps.load_chunk(wrong, 0)
    steps.load_chunk(wrong, 1)
    steps.load_chunk(opened(world), 2)
    assert len(attempt(world)) == 2
    (told,) = (record.getMessage() for record in caplog.records if "another transform" in record.getMessage())
    assert told.startswith("2 of 3 chunks were computed by another transform")
    world.check()


def test_a_session_that_is_taken_over_leaves_nothing(tmp_path: Path) -> None:
    world = filled(tmp_path, "overwrite in chunks")
    attempt(world, 2)
    session = opened(world)
    steps.load_chunk(session, 2)
    assert len(done_parts(world.target, session.plan, None)) == 3
    world.land(2.5)
    steps.run(world.process("other"))
    world.check()


@CHUNKED
def test_workers_share_the_chunks_in_any_order(tmp_path: Path, mode: str) -> None:
    world = filled(tmp_path, mode)
    engine = Counting()
    session = opened(world, engine=engine)
    assert [steps.load_chunk(session, chunk) for chunk in (2, 0, 1)] == [(1, 3), (2, 3), (3, 3)]
    assert steps.load_chunk(session, 0) == (3, 3)
    assert len(engine.seen) == 3
    assert attempt(world) == []
    world.check()


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_the_one_chunk_of_a_plan_that_is_not_cut_is_computed_once(tmp_path: Path, mode: str) -> None:
    """As is most that a load in mapped tasks does: an hour, or a day."""
    world = filled(tmp_path, mode)
    engine = Counting()
    assert steps.load_chunk(opened(world, engine=engine), 0) == (1, 1)
    assert len(engine.seen) == 1
    assert attempt(world) == []
    world.check()


def test_what_workers_leave_is_computed_by_the_load(tmp_path: Path) -> None:
    world = filled(tmp_path, "overwrite in chunks")
    steps.load_chunk(opened(world), 1)
    assert len(attempt(world, 1)) == 1
    # Chunk 0 is done by the load, and not again by its own worker.
    engine = Counting()
    steps.load_chunk(opened(world, engine=engine), 0)
    assert engine.seen == []
    assert len(attempt(world)) == 1
    world.check()


def test_a_chunk_that_two_computed_counts_once(tmp_path: Path) -> None:
    world = filled(tmp_path, "overwrite in chunks")
    session = opened(world)
    with pytest.MonkeyPatch.context() as before:
        # Its worker and the load begin before either is done.
        before.setattr("airflow_incremental.sessions.output.done_parts", lambda *_: set())
        attempt(world, 2)
        steps.load_chunk(session, 1)
    slots = (naming.slot_of_ref(name, "proc", session.plan.session) for name in world.target.metadata.refs)
    assert sorted(slot for slot in slots if slot is not None) == [0, 2]
    assert len(attempt(world)) == 1
    world.check()


def test_tries_of_a_chunk_do_not_replace_one_another(tmp_path: Path) -> None:
    world = filled(tmp_path, "overwrite in chunks")
    old, new = opened(world, transform=WRONG), opened(world)
    with pytest.MonkeyPatch.context() as asleep:
        # The older try looks what is there, and computes; meanwhile the newer one, with another transform, is done.
        steps.load_chunk(new, 1)
        asleep.setattr("airflow_incremental.sessions.output.chunk_record", lambda *_: None)
        with pytest.raises(SessionSuperseded, match=r"another try of chunk 1 .* was faster, with another transform"):
            steps.load_chunk(old, 1)
        # With the same one it is done, whoever did it.
        asleep.setattr("airflow_incremental.sessions.output.done_parts", lambda *_: set())
        steps.load_chunk(new, 1)
    # One that has seen what is there replaces it: the transform was changed once more. The load does not believe it.
    steps.load_chunk(old, 1)
    assert len(attempt(world)) == 3
    world.check()


def test_a_worker_is_patient_while_many_others_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has computed costs more than to wait."""
    world = filled(tmp_path, "overwrite in chunks")
    session = opened(world)
    monkeypatch.setattr(commits, "_back_off", lambda _: None)
    get_through, lost = Table._do_commit, 0

    def loses(self: Table, *args: Any) -> None:
        nonlocal lost
        lost += 1
        if lost <= 2 * commits.ATTEMPTS:
            raise CommitFailedException("another worker was faster")
        get_through(self, *args)

    monkeypatch.setattr(Table, "_do_commit", loses)
    assert steps.load_chunk(session, 0) == (1, 3)


def test_a_worker_of_a_session_that_is_over(tmp_path: Path) -> None:
    world = filled(tmp_path, "overwrite in chunks")
    session = opened(world)
    steps.run(world.process("other"))
    with pytest.raises(SessionSuperseded):
        steps.load_chunk(session, 0)
    world.check()


def test_a_chunk_that_is_kept_while_its_session_ends_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = filled(tmp_path, "overwrite in chunks")
    session = opened(world)
    sealed = steps.load(Session(process=world.process("run"), begin=session.begin))
    report = steps.audit(session, sealed)
    get_through = Table._do_commit

    def after_a_worker(self: Table, *args: Any) -> None:
        """Between the publish's look at the table and its commit, a worker that everybody took for dead keeps its chunk."""
        monkeypatch.setattr(Table, "_do_commit", get_through)
        steps.load_chunk(session, 0)
        get_through(self, *args)

    monkeypatch.setattr(Table, "_do_commit", after_a_worker)
    assert steps.publish(session, report).did_publish
    left = naming.scratch_ref("proc", session.plan.session, 1)
    assert left in world.target.metadata.refs
    world.land(6.5)
    steps.run(world.process())
    world.check()


def test_a_worker_goes_on_when_the_lock_is_renewed(tmp_path: Path) -> None:
    world = filled(tmp_path, "overwrite in chunks")
    session = opened(world)
    opened(world)
    steps.load_chunk(session, 0)
    assert len(attempt(world)) == 2
    world.check()


def test_chunks_of_another_schema_are_computed_again(tmp_path: Path) -> None:
    world = filled(tmp_path, "overwrite in chunks")

    class Changing(DuckDBEngine):
        """Sees a new column come while it runs."""

        def run(self, *args: Any, **options: Any) -> Any:
            with world.target.update_schema() as update:
                update.add_column("note", StringType())
            return super().run(*args, **options)

    steps.load_chunk(opened(world), 0)
    with pytest.raises(TargetChanged, match=r"changed while chunk 1 of session .* was computed"):
        steps.load_chunk(opened(world, engine=Changing()), 1)
    assert len(attempt(world, transform=f"SELECT *, NULL::VARCHAR AS note FROM ({OVERWRITE_SQL})")) == 3
    world.check()


def test_the_changes_of_a_chunk_are_its_own(tmp_path: Path) -> None:
    """A transform that reads what changed, instead of the rows, sees each changed row in the one chunk it belongs to."""
    world = filled(tmp_path, "overwrite in chunks")
    sql = OVERWRITE_SQL.replace("FROM events", "FROM events_changes")
    assert len(attempt(world, transform=sql)) == 3
    world.check()


def test_ranges_that_are_recomputed_in_append_are_cut_too(tmp_path: Path) -> None:
    world = filled(tmp_path, "append in chunks", policies={"on_rewrite": "overwrite"})
    steps.run(world.process())
    world.land(0.7, 6.2)
    world.source.delete("id == 2")
    world.source.delete("id == 14")
    world.land(4.3)
    assert len(attempt(world)) == 3
    world.check()


@CHUNKED
def test_a_worker_opens_the_manifests_of_its_own_chunk(tmp_path: Path, mode: str) -> None:
    """Else 200 workers would each look at the files of five years."""
    world = filled(tmp_path, mode, source_fields=(("hour", "ts"),))
    session = opened(world)
    opens = 0
    read = manifests.read_records

    def counting(*args: Any) -> list[Any]:
        nonlocal opens
        opens += args[-1] == Kind.ENTRIES
        return read(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifests, "read_records", counting)
        steps.load_chunk(session, 0)
    listed = len(world.source.inspect.manifests())
    assert 0 < opens < listed
    assert len(attempt(world)) == 2
    world.check()


def test_ranges_that_are_recomputed_in_append_count_whole(tmp_path: Path) -> None:
    """Little was rewritten, but all that is beside it is read again."""
    world = filled(tmp_path, "append", policies={"on_rewrite": "overwrite"})
    rows = world.land(*(n + 0.3 for n in range(6)))
    steps.run(world.process())
    total = sum(world.source.inspect.files()["file_size_in_bytes"].to_pylist())
    world.source.delete(f"id == {rows[2][0]}")
    again = opened(world, chunking=Chunking(total // 3, 200)).plan
    assert again.replaced == EventRanges((TimeRange(hour(0), hour(6)),))
    assert len(again.chunks) == 3
    assert len(attempt(world)) == len(again.chunks)
    world.check()


def test_many_chunks_do_not_lose_a_watermark_that_earlier_metadata_tells(tmp_path: Path) -> None:
    """Each chunk that is kept is a version of the table, of which its log names the last hundred; here fewer."""
    world = filled(tmp_path, "overwrite in chunks")
    first = steps.run(world.process())
    rows = world.target.scan().to_arrow()
    # Another engine writes all files anew, and then takes away what led from the publish to these.
    world.target.overwrite(rows)
    world.target.append(rows.slice(0, 0))
    metadata = world.target.metadata
    held = {ref.snapshot_id for ref in metadata.refs.values()}
    expiry = world.target.maintenance.expire_snapshots()
    expiry.by_ids([s.snapshot_id for s in metadata.snapshots if s.snapshot_id not in held]).commit()
    with world.target.transaction() as change:
        change.set_properties({"write.metadata.previous-versions-max": "5"})
    last = published(world.target, "proc")
    assert last is not None
    assert not last.anchored
    request = RestateRequest(range=TimeRange(hour(0), hour(6)), cause="form")
    session = opened(world, restate=request)
    for chunk in range(3):
        steps.load_chunk(session, chunk)
    with pytest.raises(WatermarkLost):
        published(world.target, "proc")
    assert steps.run(world.process("run", restate=request)).did_publish
    assert steps.run(world.process()).outcome == "nothing_to_do"
    assert first.published is not None
    found = published(world.target, "proc")
    assert found is not None
    assert found.watermark == first.published.watermark
    world.check()
