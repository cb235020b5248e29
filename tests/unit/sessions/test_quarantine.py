"""Rows that offend are put aside with the reason, the rest is published, and the counts add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.types import StringType

from airflow_incremental.audits import AcceptedValues, Between, NotNull, RowCount, Unique
from airflow_incremental.core.audit import AuditIncomplete
from airflow_incremental.core.errors import ArgumentError, AuditFailed, TableError, TargetChanged
from airflow_incremental.iceberg import naming, reads
from airflow_incremental.iceberg.sweep import leftovers, sweep
from airflow_incremental.operators import reports
from airflow_incremental.sessions import auditing, steps
from airflow_incremental.sessions.auditing import audit
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from airflow_incremental.sessions.quarantine import check_staged, quarantine_all, settle_process
from tests.kill.test_kill import NOW
from tests.support.balances import Balances
from tests.support.quarantine import QUARANTINE, check_split, plain, quarantined_rows, staged_refs
from tests.support.totals import Totals
from tests.support.world import World, hour, rows_table
from tests.unit.audits.test_failing import everything_said

LOW = Between("v10", 0, 200, severity="quarantine", name="low")
EU = AcceptedValues("region", ["eu"], severity="quarantine", name="eu")


def offends(row: tuple[Any, ...]) -> list[str]:
    return [*(["low"] if row[3] > 200 else []), *(["eu"] if row[2] != "eu" else [])]


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(home=tmp_path).set_up()
    found.land(*(h / 10 for h in range(30)))
    found.land(0.5, 1.5, region="us")
    return found


def opened(world: World, *audits: Any, **changes: Any) -> Session:
    session = plan(world.process(audits=audits, **changes))
    assert isinstance(session, Session)
    return session


def test_rows_that_offend_are_put_aside_and_the_rest_is_published(world: World) -> None:
    session = opened(world, LOW, EU, NotNull("id"), RowCount(1))
    report = audit(session, steps.load(session))
    assert quarantined_rows(world) == [], "invisible until the publish"
    finished = steps.publish(session, report)
    check_split(world, offends)
    everything = world.oracle(world.source_rows())
    low, eu = (sum(name in offends(row) for row in everything) for name in ("low", "eu"))
    both = sum(bool(offends(row)) for row in everything)
    assert (low, eu, both) == (24, 2, 25), "one row offends both"
    assert [(r.name, r.offending, r.quarantined, r.passed) for r in report.results] == [
        ("low", low, low, False),
        ("eu", eu, eu, False),
        ("not_null(id)", 0, 0, True),
        ("row_count", 0, 0, True),
    ]
    assert (report.verdict, report.quarantined, report.rows) == ("warned", both, 32 - both)
    assert "put aside" in report.results[0].message
    assert f"; {both} rows more were put aside" in report.describe()
    assert type(report).from_json(report.to_json()) == report
    assert finished.published is not None
    summary = finished.published.summary
    assert summary[naming.ROWS] == str(32 - both)
    said = json.loads(summary[naming.QUARANTINE])
    assert (said["table"], said["rows"], said["counts"]) == (QUARANTINE, both, {"low": [low, 32], "eu": [eu, 32]})
    told = reports.summarise(finished, process="proc", target="mart.result")
    assert (told["rows"], told["quarantined_rows"], told["quarantine_table"]) == (32 - both, both, QUARANTINE)
    assert f"put {both} rows aside in {QUARANTINE}" in reports.describe(told)
    row = quarantined_rows(world)[0]
    assert (row["quarantine_process"], row["quarantine_session"]) == ("proc", session.plan.session)
    table = world.catalog.load_table(QUARANTINE)
    assert not any(f.required for f in table.schema().fields)


def test_only_files_that_hold_offending_rows_are_written_again(world: World) -> None:
    session = opened(world, EU)
    sealed = steps.load(session)
    report = audit(session, sealed)
    before = {f.file_path for f in sealed.output.files}
    steps.publish(session, report)
    after = {t.file.file_path for t in world.target.scan().plan_files()}
    assert len(before) == len(after) == 3
    assert len(before & after) == 1, "two of three hours hold a row of another region"
    sweep(world.target, older_than=NOW)
    assert leftovers(world.target, older_than=NOW) == []
    assert leftovers(world.catalog.load_table(QUARANTINE), older_than=NOW) == []
    check_split(world, lambda row: ["eu"] if row[2] != "eu" else [])


@pytest.mark.parametrize("remote", [False, True])
def test_many_rows_in_files_the_engine_opens_itself_or_gets_as_streams(
    tmp_path: Path, remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if remote:
        monkeypatch.setattr(reads, "local_path", lambda _path: None)
    world = World(home=tmp_path).set_up()
    world.source.append(rows_table([(i, hour(0), "eu", i % 997) for i in range(70_000)]))
    steps.run(world.process(audits=(Between("v10", 10, 9_000, severity="quarantine", name="v"), Unique("id"))))
    check_split(world, lambda row: ["v"] if not 10 <= row[3] <= 9_000 else [])


def test_all_rows_of_a_key_that_is_not_unique_go(world: World) -> None:
    steps.run(world.process(audits=(Unique("region", "v10", severity="quarantine", name="u"),)))
    rows = world.oracle(world.source_rows())
    keys = [(row[2], row[3]) for row in rows.elements()]
    check_split(world, lambda row: ["u"] if keys.count((row[2], row[3])) > 1 else [])


def test_all_rows_may_go_and_an_audit_of_what_is_left_may_block(world: World) -> None:
    steps.run(world.process(audits=(Between("v10", max=-1, severity="quarantine", name="none"),)))
    check_split(world, lambda _row: ["none"])
    world.land(4)
    with pytest.raises(AuditFailed, match="0 rows, expected at least 1"):
        steps.run(
            world.process(audits=(Between("v10", max=-1, severity="quarantine", name="none"), RowCount(1, name="n")))
        )
    assert staged_refs(world) == [], "a session that failed leaves no rows"
    assert len(quarantined_rows(world)) == 32
    steps.run(world.process(audits=(Between("v10", max=-1, severity="quarantine", name="none"),)))
    check_split(world, lambda _row: ["none"])


def test_where_another_audit_blocks_nothing_is_put_aside(world: World) -> None:
    with pytest.raises(AuditFailed, match="2 of 2 audits failed"):
        steps.run(world.process(audits=(LOW, RowCount(99))))
    assert quarantined_rows(world) == []
    assert not world.catalog.table_exists(QUARANTINE)


def test_a_retry_of_each_step_remembers_what_was_put_aside(world: World) -> None:
    session = opened(world, LOW, run_id="r")
    first = audit(session, steps.load(session))
    again = plan(world.process("r", audits=(LOW,)))
    assert isinstance(again, Session)
    sealed = steps.load(again)
    assert sealed.snapshot_id == first.snapshot_id
    report = audit(again, sealed)
    assert report.results[0].quarantined == first.results[0].quarantined > 0
    assert (report.rows, report.quarantined) == (first.rows, first.quarantined)
    assert len(staged_refs(world)) == 1
    # main moves: the same rows are sealed again.
    world.target.append(pa.table({"id": [99], "ts": [hour(9)], "region": ["zz"], "v10": [1]}, world.target_schema))
    assert steps.publish(again, report).did_publish
    assert staged_refs(world) == []
    assert len(quarantined_rows(world)) == report.quarantined
    assert steps.run(world.process("r", audits=(LOW,))).outcome == "already_published"
    assert len(quarantined_rows(world)) == report.quarantined


def test_a_session_that_is_taken_over_or_abandoned_leaves_no_rows(world: World) -> None:
    session = opened(world, LOW)
    audit(session, steps.load(session))
    assert len(staged_refs(world)) == 1
    second = opened(world, LOW)
    assert staged_refs(world) == []
    audit(second, steps.load(second))
    assert steps.abandon(world.catalog, "mart.result", "proc", reason="test") is not None
    assert (staged_refs(world), quarantined_rows(world)) == ([], [])
    steps.run(world.process(audits=(LOW,)))
    check_split(world, lambda row: ["low"] if row[3] > 200 else [])


def test_rows_of_a_publish_whose_audits_changed_since_are_released_by_the_next_plan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(steps, "settle_process", lambda *_: None)
        steps.run(world.process(audits=(LOW,), quarantine_table="mart.aside"))
    assert (len(staged_refs(world, "mart.aside")), quarantined_rows(world, "mart.aside")) == (1, [])
    assert steps.run(world.process()).outcome == "nothing_to_do"
    assert staged_refs(world, "mart.aside") == []
    assert quarantined_rows(world, "mart.aside") != []


@pytest.mark.parametrize("mode", ["overwrite", "merge"])
def test_modes_that_replace(tmp_path: Path, mode: str) -> None:
    world = (Totals(home=tmp_path) if mode == "merge" else World(home=tmp_path, mode=mode)).set_up()
    world.land(0.1, 0.2, 1.5, 2.5)
    world.land(0.3, 1.1, region="us")
    world.land(2.2, region="ap")
    few = Between("n", 2, severity="quarantine", name="few")
    steps.run(world.process(audits=(few,)))
    at = world.target_schema.names.index("n")
    check_split(world, lambda row: ["few"] if row[at] < 2 else [])
    world.land(2.3, region="ap")
    steps.run(world.process(audits=(few,)))
    left = {row: n for row, n in world.oracle(world.source_rows()).items() if row[at] >= 2}
    assert world.target_rows() == left


def test_own_writes(world: World) -> None:
    session = opened(world, LOW, transform=None, run_id="own")
    rows = [(i, ts, region, v * 10) for i, ts, region, v in world.source_rows()]
    columns = [list(c) for c in zip(*rows, strict=True)]
    table = pa.table(dict(zip(world.target_schema.names, columns, strict=True)), world.target_schema)
    world.target.append(table, branch=naming.scratch_ref("proc", session.plan.session))
    first = audit(session, steps.load(session))
    assert steps.load(session).snapshot_id == first.snapshot_id, "the branch is as it was"
    steps.publish(session, first)
    check_split(world, lambda row: ["low"] if row[3] > 200 else [])


def test_the_table_follows_the_columns_of_the_target(world: World) -> None:
    steps.run(world.process(audits=(LOW,)))
    with world.target.update_schema() as update:
        update.union_by_name(pa.schema([("box", pa.struct([("a", pa.list_(pa.string()))]))]))
        update.delete_column("region")
    world.land(5, 6, 7, 8)
    sql = "SELECT id, ts, v * 10 AS v10, {'a': ['x', NULL]} AS box FROM events"
    steps.run(world.process(audits=(Between("v10", max=-1, severity="quarantine", name="none"),), transform=sql))
    rows = quarantined_rows(world)
    new = [row for row in rows if row["quarantine_reasons"] == ["none"]]
    assert [(row["region"], row["box"]) for row in new] == [(None, {"a": ["x", None]})] * 4
    assert all(row["region"] is not None and row["box"] is None for row in rows if row not in new)


def test_rejected_rows_all_go_once_the_session_has_ended(world: World) -> None:
    from airflow_incremental.iceberg.locks import end_session
    from airflow_incremental.iceberg.seal import find_sealed

    session = opened(world, LOW)
    report = audit(session, steps.load(session))
    sealed = find_sealed(world.target, session.plan)
    assert sealed is not None
    made = quarantine_all(session, sealed, "rejected by Ada")
    assert quarantine_all(session, sealed, "rejected by Ada") == made
    settle_process(session.process)
    assert quarantined_rows(world) == [], "the session is open"
    end_session(world.catalog, session.begin, keep=False, reason="rejected")
    settle_process(session.process)
    rows = quarantined_rows(world)
    assert sorted(map(plain, rows)) == sorted(world.oracle(world.source_rows()).elements())
    reasons = [row["quarantine_reasons"] for row in rows]
    assert reasons.count(["low"]) == report.quarantined > 0
    assert reasons.count(["rejected by Ada"]) == report.rows
    assert staged_refs(world) == []


def test_a_table_that_is_none_of_this_target_is_refused_before_the_load(world: World) -> None:
    world.catalog.create_table("mart.other", world.target_schema)
    with pytest.raises(TableError, match=r"put aside in mart\.other, which is no quarantine table"):
        plan(world.process(audits=(LOW,), quarantine_table="mart.other"))
    with pytest.raises(ArgumentError, match="a table it reads or writes"):
        world.process(audits=(LOW,), quarantine_table="raw.events")
    with world.target.update_schema() as update:
        update.add_column("Quarantined_At", StringType())
    with pytest.raises(TableError, match="column 'Quarantined_At'"):
        plan(world.process(audits=(LOW,)))


@pytest.mark.parametrize("how", ["dropped", "renamed", "branch"])
def test_rows_put_aside_that_are_gone_by_the_publish_are_not_lost(world: World, how: str) -> None:
    session = opened(world, LOW)
    report = audit(session, steps.load(session))
    if how == "dropped":
        world.catalog.drop_table(QUARANTINE)
    elif how == "renamed":
        world.catalog.rename_table(QUARANTINE, "mart.old")
    else:
        (ref,) = staged_refs(world)
        world.catalog.load_table(QUARANTINE).manage_snapshots().remove_branch(ref).commit()
    with pytest.raises(
        TargetChanged, match=f"the {report.quarantined} rows that session .* not in {QUARANTINE} any more"
    ):
        steps.publish(session, report)
    assert world.target_rows().total() == 0
    steps.run(world.process(audits=(LOW,)))
    check_split(world, lambda row: ["low"] if row[3] > 200 else [])


def test_rows_that_another_try_published_a_moment_ago_are_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(world, LOW)
    report = audit(session, steps.load(session))

    def late(*args: Any) -> None:
        monkeypatch.undo()
        steps.publish(session, report)
        check_staged(*args)

    monkeypatch.setattr(steps, "check_staged", late)
    assert steps.publish(session, report).did_publish
    check_split(world, lambda row: ["low"] if row[3] > 200 else [])


def test_state_cannot_be_carried_past_rows_put_aside(tmp_path: Path) -> None:
    world = Balances(home=tmp_path)
    with pytest.raises(ArgumentError, match=r"has state='.*', and its audit 'low' has severity='quarantine'"):
        world.process(audits=(LOW,))


def test_a_file_that_is_gone_when_its_rows_are_put_aside_is_named_without_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(home=tmp_path, target_fields=(("identity", "region"),)).set_up()
    world.land(*range(30), region="SECRET")
    session = opened(world, LOW)
    sealed = steps.load(session)

    def put_aside(*args: Any) -> Any:
        for file in tmp_path.glob("warehouse/mart/result/data/**/*.parquet"):
            file.unlink()
        return original(*args)

    original = auditing.put_aside
    monkeypatch.setattr(auditing, "put_aside", put_aside)
    with pytest.raises(AuditIncomplete, match="was gone when rows of it were to be put aside") as caught:
        audit(session, sealed)
    assert "SECRET" not in everything_said(caught.value)
