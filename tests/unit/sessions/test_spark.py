"""Loads that run elsewhere: what is taken of an application, what is refused, and what a retry finds.

The applications are a double (see ``tests.support.job_runner``); tests/spark has real ones.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from airflow_incremental.audits import AcceptedValues, NotNull
from airflow_incremental.core.errors import (
    AuditFailed,
    PlanExpired,
    SessionSuperseded,
    TableError,
    TargetChanged,
    TransformError,
)
from airflow_incremental.core.ranges import EventRanges, TimeRange
from airflow_incremental.core.spark_job import DRIVER, DRIVER_REPORT, SparkRunner
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.iceberg import commits
from airflow_incremental.iceberg.attempts import attempts, begin_attempt
from airflow_incremental.iceberg.locks import read_lock
from airflow_incremental.iceberg.replace import replaceable
from airflow_incremental.iceberg.seal import find_sealed
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from airflow_incremental.sessions.spark_document import job_document
from tests.support.balances import Balances
from tests.support.job_runner import LocalRunner, ranges_of
from tests.support.modes import world_of
from tests.support.quarantine import check_split
from tests.support.tables import commit_snapshot, expire
from tests.support.totals import Totals
from tests.support.world import APPEND_SQL, OVERWRITE_SQL, SOURCE, TARGET, World, hour

BEFORE = Callable[[Mapping[str, Any]], None]


def elsewhere(world: World, before: BEFORE = lambda _: None, **options: Any) -> World:
    world.runner = lambda text: LocalRunner(connect=lambda: world.catalog, text=text, before_write=before, **options)
    return world


def opened(world: World, **changes: Any) -> Session:
    session = plan(world.process(**changes))
    assert isinstance(session, Session)
    return session


def runner_of(session: Session) -> LocalRunner:
    found = session.process.transform
    assert isinstance(found, LocalRunner)
    return found


def finish(session: Session) -> None:
    steps.publish(session, steps.audit(session, steps.load(session)))


def test_a_union(tmp_path: Path) -> None:
    """The other modes are among the properties."""
    world = elsewhere(world_of(tmp_path, "append a union")).set_up()
    for hours in ((0, 1), (0.5, 2), (1.25, 4)):
        world.land(*hours)
        world.land(*(h + 0.1 for h in hours), region="us")
        steps.run(world.process())
        world.check()


def test_a_runner_is_one_by_its_shape(tmp_path: Path) -> None:
    runner = LocalRunner(connect=lambda: World(home=tmp_path).catalog, text=APPEND_SQL)
    assert isinstance(runner, SparkRunner)
    assert not isinstance(len, SparkRunner)
    assert World(home=tmp_path).process(transform=runner).fingerprint == runner.fingerprint


def test_a_session_that_is_sealed_is_not_run_again(tmp_path: Path) -> None:
    world = elsewhere(World(home=tmp_path)).set_up()
    world.land(0, 1)
    session = opened(world)
    sealed = steps.load(session)
    assert steps.load(session) == sealed
    assert [j["attempt"] for j in runner_of(session).jobs] == [1]
    corrected = opened(world, run_id="run1", transform=APPEND_SQL.replace("v * 10", "v * 100"))
    assert corrected.plan.session == session.plan.session
    again = steps.load(corrected)
    assert again.output.rows == 2
    assert again.snapshot_id != sealed.snapshot_id
    assert [j["attempt"] for j in runner_of(corrected).jobs] == [2]
    finish(corrected)
    assert world.target_rows() == {(i, t, r, v * 100): 1 for i, t, r, v in world.source_rows()}


def test_a_lost_application_that_wakes_up_after_the_publish(tmp_path: Path) -> None:
    """Its rows are in no table, whatever it does with its branch."""
    world = World(home=tmp_path).set_up()
    asleep: list[Mapping[str, Any]] = []

    def lost(job: Mapping[str, Any]) -> None:
        asleep.append(job)
        message = "the driver is gone"
        raise TransformError(message)

    world.land(0, 1)
    elsewhere(world, lost)
    session = opened(world)
    with pytest.raises(TransformError, match="the driver is gone"):
        steps.load(session)
    elsewhere(world)
    again = opened(world, run_id="run1")
    assert again.plan.session == session.plan.session
    sealed = steps.load(again)
    branch = asleep[0]["target"]["branch"]
    assert branch not in world.target.metadata.refs
    assert [a.number for a in attempts(world.target, again.plan)] == [2]
    # Java makes a branch again that went while it wrote.
    world.target.manage_snapshots().create_branch(again.plan.main, branch).commit()
    row = {"id": 99, "ts": hour(0), "region": "eu", "v10": 1}
    world.target.append(pa.Table.from_pylist([row], schema=world.target_schema), branch=branch)
    steps.publish(again, steps.audit(again, sealed))
    world.check()


def test_an_application_that_ends_without_a_word_is_not_believed(tmp_path: Path) -> None:
    world = elsewhere(World(home=tmp_path), marked=False).set_up()
    world.land(0, 1)
    session = opened(world)
    with pytest.raises(TransformError, match="ended without a word on branch") as raised:
        steps.load(session)
    (attempt,) = attempts(world.target, session.plan)
    assert repr(attempt.branch) in str(raised.value)
    assert raised.value.retryable
    assert find_sealed(world.target, session.plan) is None
    elsewhere(world)
    finish(opened(world, run_id="run1"))
    world.check()


def test_rows_of_somebody_else_on_the_branch_are_not_taken(tmp_path: Path) -> None:
    """A driver that a cluster started twice gets its rows in just before the other one says that it is done."""
    world = World(home=tmp_path).set_up()

    def twin(job: Mapping[str, Any]) -> None:
        row = {"id": 99, "ts": hour(0), "region": "eu", "v10": 1}
        rows = pa.Table.from_pylist([row], schema=world.target_schema)
        world.target.append(rows, branch=job["target"]["branch"])

    world.land(0, 1)
    elsewhere(world, twin)
    session = opened(world)
    with pytest.raises(TransformError, match=r"holds 3 new rows, .* says that it wrote 2: somebody else") as raised:
        steps.load(session)
    assert raised.value.retryable
    elsewhere(world)
    finish(opened(world, run_id="run1"))
    world.check()


def says(world: World, **report: Any) -> BEFORE:
    """Let an application say that it failed."""

    def fail(job: Mapping[str, Any]) -> None:
        world.target.append(
            world.target.schema().as_arrow().empty_table(),
            branch=job["target"]["branch"],
            snapshot_properties={DRIVER: "failed", DRIVER_REPORT: json.dumps(report)},
        )
        message = "the application ended with exit code 1"
        raise TransformError(message)

    return fail


def test_the_applications_own_error_comes_first(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    elsewhere(world, says(world, error="AnalysisException: no column 'w'", where="transform", hint="look at the SQL"))
    world.land(0, 1)
    session = opened(world)
    with pytest.raises(TransformError) as raised:
        steps.load(session)
    assert str(raised.value).startswith("AnalysisException: no column 'w' (while it did its transform)")
    assert "look at the SQL" in str(raised.value)
    assert "exit code 1" in str(raised.value.__cause__)
    assert read_lock(world.target, "proc") is not None, "the session stays, for a retry"


def test_a_catalog_that_does_not_answer_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(home=tmp_path).set_up()
    world.land(0, 1)

    def fail(_: Mapping[str, Any]) -> None:
        def silent(*_: Any) -> Any:
            message = "no answer"
            raise ConnectionError(message)

        monkeypatch.setattr(SqlCatalog, "load_table", silent)
        monkeypatch.setattr(commits, "ATTEMPTS", 2)  # it is waited for, but not for long here
        message = "AnalysisException: no column 'w'"
        raise TransformError(message)

    elsewhere(world, fail)
    with pytest.raises(TransformError, match="no column 'w'"):
        steps.load(opened(world))


def test_what_the_plan_reads_is_gone(tmp_path: Path) -> None:
    """Found out by the application, or by looking again when it fails: the session ends, and the next try plans anew."""
    world = World(home=tmp_path).set_up()
    elsewhere(world, says(world, error="NotFoundException: no such file", where="read", code="expired"))
    world.land(0, 1)
    with pytest.raises(PlanExpired, match="no such file"):
        steps.load(opened(world))
    assert read_lock(world.target, "proc") is None

    def expired(_: Mapping[str, Any]) -> None:
        table = world.source
        old = table.metadata.current_snapshot_id
        world.land(2)
        expire(world.source, [old])
        message = "cannot find snapshot"
        raise TransformError(message)

    elsewhere(world, expired)
    with pytest.raises(PlanExpired, match="does not exist any more"):
        steps.load(opened(world))
    elsewhere(world)
    steps.run(world.process())
    world.check()


def test_a_session_that_was_taken_over_while_it_ran(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(0, 1)

    def overtaken(_: Mapping[str, Any]) -> None:
        elsewhere(world)
        steps.run(world.process())

    elsewhere(world, overtaken)
    with pytest.raises(SessionSuperseded):
        steps.load(opened(world))
    assert world.target_rows() == world.oracle(world.source_rows())
    world.land(2)
    steps.run(world.process())
    world.check()  # nor is there the branch any more that the application has made again


def test_the_target_evolves_while_it_runs(tmp_path: Path) -> None:
    """Rows written under another schema or spec than the table has now are not sealed."""
    world = World(home=tmp_path).set_up()
    world.land(0, 1)

    def evolve(_: Mapping[str, Any]) -> None:
        with world.target.update_spec() as update:
            update.add_field("region", "identity", "region_part")

    elsewhere(world, evolve)
    session = opened(world)
    with pytest.raises(TargetChanged, match="changed to schema 0 and partition spec 2"):
        steps.load(session)
    assert read_lock(world.target, "proc") is None
    elsewhere(world)
    steps.run(world.process())
    world.check()


@pytest.mark.parametrize(
    ("mode", "sql", "message"),
    [
        (
            "overwrite",
            "SELECT ts + INTERVAL 7 DAY AS hour_ts, region, 1 AS n, v AS total FROM events",
            "lie outside the planned",
        ),
        ("merge", "SELECT 'zz' AS region, count(*) AS n, 1 AS total FROM events", "is none of the changed ones"),
        ("merge", "SELECT NULL::VARCHAR AS region, count(*) AS n, 1 AS total FROM events", "is null"),
    ],
)
def test_rows_outside_of_the_plan_are_refused(tmp_path: Path, mode: str, sql: str, message: str) -> None:
    world = elsewhere(world_of(tmp_path, mode)).set_up()
    world.land(0, 1)
    steps.run(world.process())
    rows = world.target_rows()
    world.land(0.5, region="us")
    session = opened(world, transform=sql)
    with pytest.raises(TransformError, match=message):
        steps.load(session)
    assert world.target_rows() == rows


def test_a_merge_may_not_remove_what_others_wrote(tmp_path: Path) -> None:
    world = Totals(home=tmp_path).set_up()
    world.land(0, 1)
    world.tick()
    world.land(2)

    def drop(job: Mapping[str, Any]) -> None:
        (file,) = world.target.inspect.files().column("file_path").to_pylist()
        commit_snapshot(world.target, "overwrite", removed=[file], branch=job["target"]["branch"])  # type: ignore[arg-type]

    elsewhere(world, drop)
    with pytest.raises(TransformError, match="1 files of main were removed"):
        steps.load(opened(world))


def test_audits_and_rows_put_aside(tmp_path: Path) -> None:
    world = elsewhere(World(home=tmp_path)).set_up()
    world.land(0, 1)
    world.land(2, region="us")
    eu = AcceptedValues("region", ["eu"], severity="quarantine", name="eu")
    finish(opened(world, audits=[eu, NotNull("id")]))
    check_split(world, lambda row: ["eu"] if row[2] != "eu" else [])
    world.land(3, region="us")
    with pytest.raises(AuditFailed):
        steps.run(world.process(audits=[AcceptedValues("region", ["eu"])]))


def test_a_target_that_is_to_be_created(tmp_path: Path) -> None:
    world = elsewhere(World(home=tmp_path)).set_up()
    world.land(0)
    world.catalog.drop_table(TARGET)
    spec = world.spec
    created = {
        "spec": type(spec)(
            process="proc", sources=spec.sources, mode="append", target=IcebergTarget(TARGET, create=True)
        )
    }
    with pytest.raises(TableError, match="what a transform on Spark returns is not known"):
        plan(world.process(**created))


class TestJob:
    """The document itself."""

    def document(self, world: World, **changes: Any) -> dict[str, Any]:
        session = opened(world, **changes)
        attempt = begin_attempt(world.catalog, session.begin)
        made = job_document(session, runner_of(session), world.target, attempt)
        return json.loads(json.dumps(made))

    def test_append(self, tmp_path: Path) -> None:
        world = elsewhere(World(home=tmp_path)).set_up()
        world.land(0)
        steps.run(world.process())
        start = world.source.metadata.current_snapshot_id
        world.land(1)
        job = self.document(world)
        assert (job["version"], job["what"], job["mode"], job["kind"], job["attempt"]) == (
            1,
            "load",
            "append",
            "load",
            1,
        )
        assert job["session_conf"]["spark.sql.session.timeZone"] == "UTC"
        assert job["transform"] == {"kind": "sql", "text": APPEND_SQL}
        source = job["sources"]["events"]
        assert (source["table"], source["event_time"], source["event_time_type"]) == (SOURCE, "ts", "timestamptz")
        assert source["columns"][1] == ["ts", "timestamp"]
        assert [(r["start"], r["end"]) for r in source["rows"]] == [(start, world.source.metadata.current_snapshot_id)]
        assert (source["added"], source["removed"]) == ([], []), "its text asks for no changes"
        target = job["target"]
        assert target["branch"].endswith("_0_1")
        assert world.target.metadata.refs[target["branch"]].snapshot_id == target["base"]
        assert (target["replace"], target["check"]) == (None, {"ranges": None, "scope": None, "keys": False})
        assert (job["keys"], job["steps"]) == (None, None)

    def test_a_lookup_has_no_changes(self, tmp_path: Path) -> None:
        world = elsewhere(World(home=tmp_path)).set_up()
        world.land(0)
        spec = attrs.evolve(
            world.spec,
            sources={**world.spec.sources, "names": IcebergSource(TARGET.replace("result", "names"), role="lookup")},
        )
        world.catalog.create_table("mart.names", schema=pa.schema([("region", pa.string())]))
        job = self.document(world, spec=spec)
        lookup = job["sources"]["names"]
        assert (lookup["rows"], lookup["added"], lookup["removed"], lookup["event_time"]) == ([], None, None, None)

    def test_overwrite(self, tmp_path: Path) -> None:
        world = elsewhere(World(home=tmp_path, mode="overwrite")).set_up()
        world.land(0, 1)
        steps.run(world.process())
        world.land(1.5)
        job = self.document(world, transform=OVERWRITE_SQL + "-- events_changes")
        whole = {"ranges": [["2024-01-01T01:00:00+00:00", "2024-01-01T02:00:00+00:00"]], "nulls": False}
        (read,) = job["sources"]["events"]["rows"]
        assert read["keep"] == whole
        assert read["snapshot"] == world.source.metadata.current_snapshot_id
        assert job["target"]["replace"] == {"ranges": whole, "scope": None}
        assert job["target"]["check"]["ranges"] == whole
        assert job["plan_ranges"] == whole
        assert len(job["sources"]["events"]["added"]) == 1
        assert job["sources"]["events"]["removed"] == []

    def test_a_file_that_straddles_is_left_to_the_seal(self, tmp_path: Path) -> None:
        world = elsewhere(World(home=tmp_path, mode="overwrite", target_fields=(("day", "hour_ts"),))).set_up()
        world.land(0, 1)
        steps.run(world.process())
        with world.target.update_spec() as update:
            update.remove_field("hour_ts_day")
            update.add_field("hour_ts", "hour", "hour_ts_hour")
        world.land(1.5)
        session = opened(world)
        finish(session)
        assert runner_of(session).jobs[0]["target"]["replace"] is None
        world.check()

    def test_first_run_replaces_everything_there_is_nothing_of(self, tmp_path: Path) -> None:
        world = elsewhere(Totals(home=tmp_path)).set_up()
        world.land(0, 1)
        job = self.document(world)
        assert ranges_of(job["target"]["replace"]["ranges"]).is_everything
        assert job["keys"] is None

    def test_merge(self, tmp_path: Path) -> None:
        world = Totals(home=tmp_path, policies={"key_horizon": 3600})
        elsewhere(world).set_up()
        world.land(0, 1)
        world.tick()
        world.land(5)
        job = self.document(world)
        keys = job["keys"]
        assert (keys["columns"], keys["sources"]) == (["region"], {"events": ["region"]})
        assert ranges_of(keys["within"]["events"]).contains(hour(4.5))
        assert not ranges_of(keys["within"]["events"]).contains(hour(3.5))
        (read,) = job["sources"]["events"]["rows"]
        assert (read["keep"], read["files"]) == (None, None)
        assert len(job["sources"]["events"]["added"]) == 1
        assert job["target"]["check"]["keys"] is True
        assert job["target"]["replace"] is None

    def test_stateful_in_steps(self, tmp_path: Path) -> None:
        world = Balances(home=tmp_path, step="hour")
        elsewhere(world).set_up()
        world.land(0, 1, 3)
        job = self.document(world)
        assert job["steps"]["parts"] == [
            [f"2024-01-01T0{n}:00:00+00:00", f"2024-01-01T0{n + 1}:00:00+00:00"] for n in range(3)
        ]
        state = job["steps"]["state"]
        assert (state["kind"], state["columns"], state["unit"]) == ("latest_by", ["customer"], "hour")
        assert "state" not in job["sources"]

    def test_null_event_times_and_scopes(self, tmp_path: Path) -> None:
        fields = (("hour", "hour_ts"), ("identity", "region"))
        world = World(
            home=tmp_path,
            mode="overwrite",
            target_fields=fields,
            scope={"region": ["eu"]},
            policies={"on_null_event_time": "own_range"},
        )
        elsewhere(world).set_up()
        world.land(0, None)
        finish(opened(world))
        world.land(0.5, None)
        job = self.document(world)
        assert job["target"]["replace"]["scope"] == {"region": ["eu"]}
        assert job["target"]["replace"]["ranges"]["nulls"] is True
        assert job["target"]["check"]["scope"] == {"region": ["eu"]}

    def test_a_file_with_and_without_event_times_is_no_whole_range(self, tmp_path: Path) -> None:
        """An expression that holds by one range for some rows and by their lack of one for others drops no file of both."""
        world = World(home=tmp_path, target_fields=()).set_up()
        rows = [{"id": 1, "ts": hour(0), "region": "eu", "v10": 1}, {"id": 2, "ts": None, "region": "eu", "v10": 1}]
        world.target.append(pa.Table.from_pylist(rows, schema=world.target_schema))
        both = EventRanges((TimeRange(hour(0), hour(1)),), nulls=True)
        head = world.target.metadata.current_snapshot_id
        assert not replaceable(world.target, head, event_time="ts", ranges=both, scope=None)
        assert replaceable(world.target, head, event_time="ts", ranges=EventRanges.everything(), scope=None)
        assert not replaceable(world.target, 1, event_time="ts", ranges=both, scope=None)
        world.target.delete("id = 2")
        head = world.target.metadata.current_snapshot_id
        assert replaceable(world.target, head, event_time="ts", ranges=both, scope=None)


def test_what_is_read_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = elsewhere(World(home=tmp_path)).set_up()
    world.land(0)
    steps.run(world.process())
    world.land(1)
    steps.run(world.process())
    said = caplog.text
    assert "events: a pinned snapshot" in said
    assert "events: 1 incremental reads" in said
    assert "Spark wrote 1 rows in 1 files" in said
