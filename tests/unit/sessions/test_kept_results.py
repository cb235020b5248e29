"""Results of audits in a table: each once, whatever became of the session; its metadata stays small; trends over it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table import Table
from pyiceberg.types import IntegerType

from airflow_incremental.audits import Audit, Between, NotNull, NullFraction, RowCount, SqlCheck, Trend
from airflow_incremental.core.errors import ArgumentError, AuditFailed, CommitUnknown, TableError
from airflow_incremental.iceberg import audit_table, commits
from airflow_incremental.iceberg.audit_table import COLUMNS, append_results, results_of
from airflow_incremental.iceberg.seal import find_sealed
from airflow_incremental.iceberg.sweep import leftovers, sweep
from airflow_incremental.sessions import auditing, results, steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.world import SOURCE, TARGET, World

NAME = f"{TARGET}__audits"
NOW = dt.timedelta(0)
AUDITS: list[Audit] = [RowCount(min=1), NotNull("region", severity="warn"), NullFraction("id", 0, over="table")]


def world_of(home: Path) -> World:
    world = World(home=home, mode="append").set_up()
    world.land(0.1, 0.2, 1.5)
    return world


def kept(world: World, name: str = NAME) -> list[dict[str, Any]]:
    table = world.catalog.load_table(name)
    return sorted(table.scan().to_arrow().to_pylist(), key=lambda r: (r["audited_at"], r["audit"]))


def sealed_session(world: World, audits: list[Audit] = AUDITS) -> Session:
    session = plan(world.process("r1", audits=audits))
    assert isinstance(session, Session)
    steps.load(session)
    return session


def audited(session: Session) -> Any:
    sealed = find_sealed(session.process.catalog.load_table(TARGET), session.plan)
    assert sealed is not None
    return auditing.audit(session, sealed)


def test_a_row_per_result_says_what_was_found(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    finished = steps.run(world.process("r1", audits=AUDITS))
    assert finished.published is not None
    rows = kept(world)
    assert [(r["audit"], r["kind"], r["extent"], r["path"], r["severity"]) for r in rows] == [
        ("not_null(region)", "not_null", "rows", "duckdb", "warn"),
        ("null_fraction(id) over table", "null_fraction", "table", "statistics", "block"),
        ("row_count", "row_count", "rows", "duckdb", "block"),
    ]
    for row in rows:
        assert (row["passed"], row["offending"], row["verdict"], row["session_rows"]) == (True, 0, "passed", 3)
        assert (row["process"], row["target"], row["session"]) == ("proc", TARGET, finished.published.session)
        assert row["snapshot_id"] == finished.published.snapshot_id
        assert (row["dag_id"], row["run_id"], row["task_id"]) == ("dag", "r1", "load")
    assert [json.loads(r["observed"]) if r["observed"] else None for r in rows] == [None, 0.0, 3]
    assert len({r["audit_run"] for r in rows}) == 1
    schema = world.catalog.load_table(NAME).schema()
    assert [(f.name, f.required, bool(f.doc)) for f in schema.fields] == [
        (f.name, f.required, True) for f in COLUMNS.fields
    ]


def test_failures_are_kept_before_the_session_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(tmp_path)
    monkeypatch.setattr(auditing, "end_session", lambda *_a, **_k: kept(world))
    with pytest.raises(AuditFailed):
        steps.run(world.process("r1", audits=[RowCount(min=9), NotNull("id")]))
    assert [(r["audit"], r["passed"], r["offending"], r["verdict"]) for r in kept(world)] == [
        ("not_null(id)", True, 0, "failed"),
        ("row_count", False, 6, "failed"),
    ]


def test_without_audits_nothing_is_kept(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    steps.run(world.process())
    world.land(0.3)
    steps.run(world.process(audits=AUDITS, audit_table=False))
    assert not world.catalog.table_exists(NAME)
    world.land(0.4)
    steps.run(world.process(audits=AUDITS, audit_table="checks.all"))
    assert len(kept(world, "checks.all")) == 3
    assert not world.catalog.table_exists(NAME)


def test_the_audits_of_a_step_that_runs_again_are_kept_once(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    session = sealed_session(world)
    audited(session)
    audited(session)
    assert len(kept(world)) == 3
    # Other audits of the same snapshot are another run of them.
    again = plan(world.process("r1", audits=[RowCount(min=2)]))
    assert isinstance(again, Session)
    audited(again)
    assert len(kept(world)) == 4
    assert len({r["audit_run"] for r in kept(world)}) == 2


def test_what_was_kept_is_found_after_its_snapshot_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(tmp_path)
    session = sealed_session(world)
    audited(session)
    monkeypatch.setattr(audit_table, "KEEP_SNAPSHOTS", 2)
    (first, *_) = kept(world)
    for n in range(3):
        append_results(
            world.catalog, NAME, [{**first, "audit_run": f"{n}", "session": f"s{n}"}], since=first["audited_at"]
        )
    assert len(world.catalog.load_table(NAME).metadata.snapshots) == 2
    audited(session)
    assert len(kept(world)) == 6


def test_results_that_cannot_be_kept_keep_the_session_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(tmp_path)
    session = sealed_session(world)
    with monkeypatch.context() as patched:
        patched.setattr(commits, "ATTEMPTS", 2)

        def down(*_a: Any, **_k: Any) -> None:
            msg = "the catalog is down"
            raise OSError(msg)

        patched.setattr(Table, "_do_commit", down)
        with pytest.raises((CommitUnknown, OSError)) as error:
            audited(session)
        assert not isinstance(error.value, AuditFailed)
    audited(session)
    assert len(kept(world)) == 3
    steps.publish(session, audited(session))
    world.check()


def test_audits_that_ran_again_are_kept_for_the_snapshot_they_ran_on(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    session = sealed_session(world)
    report = audited(session)
    table = world.target
    table.append(pa.Table.from_pylist([{"id": 1, "region": "eu"}], schema=table.schema().as_arrow()))
    finished = steps.publish(session, report)
    assert finished.published is not None
    assert [(r["audit"], r["snapshot_id"] == finished.published.snapshot_id) for r in kept(world)] == [
        ("not_null(region)", False),
        ("null_fraction(id) over table", False),
        ("row_count", False),
        ("null_fraction(id) over table", True),
    ]


def test_a_table_for_something_else_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.catalog.create_table("mart.other", schema=COLUMNS)
    with pytest.raises(TableError, match=r"no table made for them.*audit_table="):
        steps.run(world.process(audits=AUDITS, audit_table="mart.other"))
    assert world.target_rows() == {}
    for taken in (SOURCE, TARGET, f"{TARGET}__quarantine"):
        with pytest.raises(ArgumentError, match="which the load reads or writes"):
            world.process(audits=AUDITS, audit_table=taken)


def test_a_table_with_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    steps.run(world.process(audits=AUDITS))
    table = world.catalog.load_table(NAME)
    with table.update_schema() as update:
        update.delete_column("offending")
    with table.update_schema() as update:
        update.add_column("offending", IntegerType())
    world.land(0.3)
    with pytest.raises(TableError, match="its columns offending are of other types"):
        steps.run(world.process(audits=AUDITS))


def test_columns_of_other_versions(tmp_path: Path) -> None:
    """A column that an older version did not make is added; one that a newer made is left null."""
    world = world_of(tmp_path)
    steps.run(world.process(audits=AUDITS))
    table = world.catalog.load_table(NAME)
    with table.update_schema() as update:
        update.delete_column("verdict")
        update.add_column("mood", IntegerType())
    world.land(0.3)
    steps.run(world.process(audits=AUDITS))
    assert [(r["verdict"], r["mood"]) for r in kept(world)] == [(None, None)] * 3 + [("passed", None)] * 3


def test_metadata_stays_small_and_every_row_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_table, "KEEP_SNAPSHOTS", 4)
    monkeypatch.setattr(audit_table, "MANY_MANIFESTS", 3)
    monkeypatch.setattr(audit_table, "SMALL_MANIFEST", 6)
    world = world_of(tmp_path)
    steps.run(world.process(audits=AUDITS))
    (first, *_) = kept(world)
    runs = [f"{n:02}" for n in range(20)]
    for n in runs:
        append_results(world.catalog, NAME, [{**first, "audit_run": n, "session": n}], since=first["audited_at"])
    table = world.catalog.load_table(NAME)
    head = table.current_snapshot()
    assert head is not None
    assert len(table.metadata.snapshots) == 4
    assert len(head.manifests(table.io)) <= 3 + 20 // 6
    assert sorted(r["session"] for r in kept(world))[:20] == runs
    assert head.summary is not None
    assert head.summary["total-records"] == "23"
    assert sorted(r["session"] for r in results_of(table, ["03", "17"])) == ["03", "17"]
    # What the dropped snapshots had is gone, and nothing that is needed.
    assert leftovers(table, older_than=NOW) == []
    for snapshot in table.metadata.snapshots:
        assert table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows > 0


def test_a_tag_of_somebodys_keeps_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_table, "KEEP_SNAPSHOTS", 2)
    monkeypatch.setattr(audit_table, "MANY_MANIFESTS", 2)
    world = world_of(tmp_path)
    steps.run(world.process(audits=AUDITS))
    (first, *_) = kept(world)
    table = world.catalog.load_table(NAME)
    head = table.current_snapshot()
    assert head is not None
    table.manage_snapshots().create_tag(head.snapshot_id, "audited_2024").commit()
    for n in range(5):
        append_results(
            world.catalog, NAME, [{**first, "audit_run": f"{n}", "session": f"{n}"}], since=first["audited_at"]
        )
    table = world.catalog.load_table(NAME)
    assert len(table.metadata.snapshots) == 3
    assert table.scan().use_ref("audited_2024").to_arrow().num_rows == 3


def test_sweeping_the_target_leaves_results_alone(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    steps.run(world.process(audits=AUDITS))
    sweep(world.target, older_than=NOW)
    sweep(world.catalog.load_table(NAME), older_than=NOW)
    assert len(kept(world)) == 3
    assert len(world.catalog.load_table(NAME).scan().to_arrow()) == 3


def test_a_trend_follows_sessions_that_were_published(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="append").set_up()
    check = SqlCheck("odd", "SELECT * FROM rows WHERE v10 % 20 <> 0", severity="warn")
    audits: list[Audit] = [
        RowCount(min=1),
        Trend("row_count", value="observed", max_change=0.5, min_history=2, name="trend of rows"),
        check,
        Trend("odd", max_deviations=100, severity="warn"),
    ]
    for n in range(3):
        world.land(*[n + i / 10 for i in range(4)])
        steps.run(world.process(audits=audits))
    world.land(*[3 + i / 100 for i in range(40)])
    with pytest.raises(
        AuditFailed, match=r"trend of rows: value 40, expected a change of at most 0.5 of 4, the median"
    ):
        steps.run(world.process(audits=audits))
    # What failed is kept and does not count: 44 rows are as far from 4 as 40 were.
    world.land(3.9, 3.8, 3.7, 3.6)
    with pytest.raises(AuditFailed, match=r"value 44, .* of 4, the median of the last 3 published"):
        steps.run(world.process(audits=audits))
    assert len([r for r in kept(world) if r["audit"] == "trend of rows"]) == 5
    # A publish that is rolled back counts no more.
    table = world.target
    snapshots = [s for s in table.metadata.snapshots if s.summary and s.summary.get("incremental.record") == "sealed"]
    table.manage_snapshots().rollback_to_snapshot(snapshots[0].snapshot_id).commit()
    finished = steps.run(world.process(audits=audits))
    assert finished.verdict in ("passed", "warned")
    last = [r for r in kept(world) if r["audit"] == "trend of rows"][-1]
    assert "not compared: of 2 published sessions to compare with there are 1" in last["message"]


def test_a_trend_needs_results_that_are_kept(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    audits: list[Audit] = [RowCount(min=1), Trend("row_count", value="observed", max_change=1)]
    with pytest.raises(ArgumentError, match="audit_table is False"):
        steps.run(world.process(audits=audits, audit_table=False))
    with pytest.raises(ArgumentError, match="follows 'row_count', which no other audit"):
        steps.run(world.process(audits=audits[1:]))


def test_json_that_every_reader_knows() -> None:
    text = results._text({"a": [float("nan"), 1.5], "b": (float("-inf"), dt.date(2024, 1, 1))})
    assert text is not None
    assert json.loads(text, parse_constant=pytest.fail) == {"a": ["nan", 1.5], "b": ["-inf", "2024-01-01"]}


def test_rows_put_aside_are_counted_in_the_result_that_is_published(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    check = Between("v10", max=world.source_rows()[0][3] * 10, severity="quarantine")
    finished = steps.run(world.process(audits=[check]))
    assert finished.published is not None
    (row,) = kept(world)
    assert (row["passed"], row["offending"], row["quarantined"], row["session_rows"]) == (False, 2, 2, 1)
    assert (row["snapshot_id"], row["verdict"]) == (finished.published.snapshot_id, "warned")
