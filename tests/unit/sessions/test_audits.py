"""Audits that look beyond the rows a session wrote, and what of them is done again when main moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.audits import NotNull, RowCount, SqlCheck, Unique
from airflow_incremental.core.audit import AuditIncomplete
from airflow_incremental.core.errors import AuditFailed, TableError
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.seal import Sealed, find_sealed
from airflow_incremental.sessions import auditing, steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Process, Session
from tests.support.tables import Operation, commit_snapshot, equality_delete_file, live_files
from tests.support.world import TARGET, World, hour, rows_table
from tests.unit.audits.test_failing import everything_said


def open_session(process: Process) -> Session:
    session = plan(process)
    assert isinstance(session, Session)
    return session


def counted(over: Any) -> SqlCheck:
    return SqlCheck(f"rows of {over}", "SELECT * FROM rows", severity="warn", over=over)


def seen(process: Process) -> dict[str, int]:
    session = open_session(process)
    report = steps.audit(session, steps.load(session))
    steps.publish(session, report)
    return {r.over: r.offending for r in report.results}


SCOPES = [counted("rows"), counted("partitions"), counted("table")]


def test_an_append_sees_its_rows_the_hours_it_touched_and_the_table(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1, 1.5, 2, 3)
    assert seen(world.process(audits=SCOPES)) == {"rows": 4, "partitions": 4, "table": 4}
    world.land(2, 5)
    assert seen(world.process(audits=SCOPES)) == {"rows": 2, "partitions": 3, "table": 6}


def test_an_overwrite_sees_a_partition_it_emptied_and_what_it_replaced_no_more(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite", target_fields=(("day", "hour_ts"),)).set_up()
    world.land(1, 2, 26)
    assert seen(world.process(audits=SCOPES)) == {"rows": 3, "partitions": 3, "table": 3}
    world.land(1)
    world.source.delete(f"ts >= '{hour(26).isoformat()}'")
    # The first day is computed again, the unit of this target; the other one has no row left.
    assert seen(world.process(audits=SCOPES)) == {"rows": 2, "partitions": 2, "table": 2}


def test_an_unpartitioned_table_is_one_partition_and_its_row_deletes_are_seen(tmp_path: Path) -> None:
    world = World(home=tmp_path, target_fields=()).set_up()
    world.land(1, 2)
    seen(world.process())
    world.target.delete("id = 1")
    world.land(3)
    assert seen(world.process(audits=SCOPES)) == {"rows": 1, "partitions": 2, "table": 2}


def test_a_key_of_the_table_is_refused_twice(tmp_path: Path) -> None:
    """A row that is in the table already passes a check of the session's rows and fails one of the table."""
    world = World(home=tmp_path).set_up()
    world.land(1)
    steps.run(world.process())
    world.next_id = 0
    world.land(2)  # the same id
    with pytest.raises(AuditFailed, match=r"unique\(id\) over table: 2 of 2 rows share their key"):
        steps.run(world.process(audits=[Unique("id"), Unique("id", over="table")]))
    assert world.target_rows().total() == 1


def test_when_main_moved_what_looks_beyond_the_rows_is_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1, 2)
    ran: list[list[str]] = []

    def run_audits(audits: Any, *args: Any, **kwargs: Any) -> Any:
        ran.append([a.name for a in audits])
        return original(audits, *args, **kwargs)

    original = auditing.run_audits
    monkeypatch.setattr(auditing, "run_audits", run_audits)
    session = open_session(world.process(audits=[NotNull("id"), Unique("id", over="table")]))
    report = steps.audit(session, steps.load(session))
    world.target.append(rows_table([(99, hour(8), "eu", 1)]).rename_columns(["id", "ts", "region", "v10"]))

    finished = steps.publish(session, report)

    assert ran == [["not_null(id)", "unique(id) over table"], ["unique(id) over table"]]
    assert (finished.outcome, finished.verdict) == ("published", "passed")
    assert world.target_rows().total() == 3


def test_what_fails_only_on_the_main_that_moved_keeps_the_session_from_being_published(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1, 2)
    session = open_session(world.process(audits=[RowCount(min=1), Unique("id", over="table")]))
    report = steps.audit(session, steps.load(session))
    assert report.verdict == "passed"
    world.target.append(rows_table([(1, hour(8), "eu", 1)]).rename_columns(["id", "ts", "region", "v10"]))
    with pytest.raises(AuditFailed, match="unique"):
        steps.publish(session, report)
    assert world.target_rows().total() == 1
    refs = world.target.metadata.refs
    assert [r for r in refs if r != "main"] == [naming.failed_ref(session.plan.session)]
    world.catalog.load_table(TARGET).delete("id = 1")
    assert steps.run(world.process(audits=[Unique("id", over="table")])).did_publish
    world.check()


def test_a_report_that_lacks_an_audit_of_the_load_or_failed_is_not_believed(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1)
    session = open_session(world.process(audits=[RowCount(1)]))
    first = steps.audit(session, steps.load(session))
    more = world.process(audits=[RowCount(1), NotNull("id", name="present"), RowCount(2, name="enough")])
    edited = attrs.evolve(session, process=more)
    for unbelievable in (first, attrs.evolve(first, results=())):
        assert not auditing.answers(edited, found_sealed(edited), unbelievable)
    stricter = attrs.evolve(session, process=world.process(audits=[RowCount(99)]))
    assert not auditing.answers(stricter, found_sealed(session), first), "edited under the same name"
    half = attrs.evolve(first, results=())
    assert not auditing.answers(session, found_sealed(session), half)
    asked = attrs.evolve(first, results=[attrs.evolve(r, passed=False) for r in first.results])
    assert not auditing.answers(session, found_sealed(session), asked)
    assert auditing.answers(session, found_sealed(session), first)
    with pytest.raises(AuditFailed, match="enough: 1 rows, expected at least 2"):
        steps.publish(edited, first)
    assert world.target_rows().total() == 0


def found_sealed(session: Session) -> Sealed:
    found = find_sealed(session.process.catalog.load_table(TARGET), session.plan)
    assert found is not None
    return found


@pytest.mark.parametrize("over", ["rows", "table", "partitions"])
def test_files_that_are_gone_are_named_without_values_of_rows(tmp_path: Path, over: Any) -> None:
    world = World(home=tmp_path, target_fields=(("identity", "region"),)).set_up()
    world.land(1, region="SECRET")
    session = open_session(world.process(audits=[NotNull("id", over=over)]))
    sealed = steps.load(session)
    for file in sealed.output.files:
        world.target.io.delete(file.file_path)
    with pytest.raises(
        AuditIncomplete, match=r"data file inc-.*\.parquet of table .* is gone.*abandon the session"
    ) as caught:
        steps.audit(session, sealed)
    assert "SECRET" not in everything_said(caught.value)


def test_equality_deletes_are_told_without_values_of_rows(tmp_path: Path) -> None:
    world = World(home=tmp_path, target_fields=(("identity", "region"),)).set_up()
    world.land(1, region="SECRET")
    steps.run(world.process())
    deletes = equality_delete_file(world.target, like=live_files(world.target)[0], equality_ids=[1])
    commit_snapshot(world.target, Operation.DELETE, deletes=[deletes])
    world.land(2)
    session = open_session(world.process(audits=[NotNull("id", over="table")]))
    with pytest.raises(TableError, match=r"equality deletes in .* hide rows of inc-") as caught:
        steps.audit(session, steps.load(session))
    assert "SECRET" not in everything_said(caught.value)
