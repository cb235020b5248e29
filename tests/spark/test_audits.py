"""Sessions whose audits Spark answers: reports are DuckDB's, and nothing but an application that ended well is believed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from airflow_incremental.audits import (
    AcceptedValues,
    Audit,
    Between,
    Expectations,
    NotNull,
    NullFraction,
    PythonCheck,
    RowCount,
    SqlCheck,
    Trend,
    Unique,
    Volume,
)
from airflow_incremental.audits.run import run_audits
from airflow_incremental.core.audit import AuditIncomplete, AuditReport
from airflow_incremental.core.errors import AuditFailed, TransformError
from airflow_incremental.core.spark_job import SparkRunner
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.seal import Sealed
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.auditing import audit, subject_of
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from airflow_incremental.sessions.spark_audits import SparkAudits
from tests.spark.audit_judges import INTERPRETED
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.runners import SharedRunner
from tests.spark.support.spark_process import SparkProcess
from tests.support.world import TARGET, World
from tests.unit.audits.expectations.suites import expect, suite

_SQL = """
SELECT id, ts, region, v * 10 AS v10,
       CASE id % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN NULL ELSE v / 4 END::DOUBLE AS share,
       (v / 3)::DECIMAL(9, 2) AS price, {'city': region, 'n': v % 3} AS place, MAP {region: v} AS tags
FROM events
"""
_MORE = pa.schema(
    [
        ("share", pa.float64()),
        ("price", pa.decimal128(9, 2)),
        ("place", pa.struct([("city", pa.string()), ("n", pa.int64())])),
        ("tags", pa.map_(pa.string(), pa.int64())),
    ]
)


@attrs.define
class Measured(World):
    """A world in a catalog that Spark shares, whose target has columns of more types."""

    shared: SharedCatalog | None = None

    @property
    def catalog(self) -> Catalog:
        assert self.shared is not None
        return self.shared.load()

    @property
    def target_schema(self) -> pa.Schema:
        return pa.schema([*World.target_schema.fget(self), *_MORE])  # type: ignore[attr-defined]


@pytest.fixture
def world(tmp_path: Any, jdbc_catalog: SharedCatalog) -> Measured:
    found = Measured(home=tmp_path, shared=jdbc_catalog).set_up()
    found.land(*(h / 10 for h in range(40)))
    return found


class Quick(SharedRunner):
    """A runner in whose Spark no query is compiled."""

    def run(self, job: Mapping[str, Any]) -> None:
        super().run({**job, "session_conf": {**job["session_conf"], **INTERPRETED}})


@pytest.fixture
def runner(spark: SparkProcess, jdbc_catalog: SharedCatalog) -> SharedRunner:
    return Quick(shared=jdbc_catalog, transform={}, spark=spark)


def opened(world: World, *audits: Audit, runner: SparkRunner | None = None, **changes: Any) -> tuple[Session, Sealed]:
    session = plan(world.process(audits=audits, transform=_SQL, audit_runner=runner, **changes))
    assert isinstance(session, Session)
    return session, steps.load(session)


def published(world: World, *audits: Audit, **changes: Any) -> AuditReport:
    session, sealed = opened(world, *audits, **changes)
    report = audit(session, sealed)
    assert steps.publish(session, report).outcome == "published"
    return report


def branches(world: World) -> list[str]:
    return [name for name in world.target.metadata.refs if "_audit_" in name]


_SUITE = suite(
    expect("column_values_to_be_between", column="v10", min_value=0, max_value=500, mostly=0.5),
    expect("column_values_to_match_regex", column="region", regex="^e[a-z]$"),
    expect("column_max_to_be_between", column="share", min_value=0, severity="warning"),
    expect("column_sum_to_be_between", column="price", min_value=0),
    expect("column_mean_to_be_between", column="v10", max_value=1),
    expect("column_unique_value_count_to_be_between", column="ts", min_value=1),
    expect("column_min_to_be_between", column="ts", min_value="2024-01-01T00:00:00+00:00"),
    expect(
        "column_kl_divergence_to_be_less_than",
        column="region",
        threshold=1.0,
        partition_object={"values": ["eu"], "weights": [1.0]},
    ),
    name="measured",
)


def _built_in(over: Any) -> list[Audit]:
    return [
        RowCount(1, over=over),
        NotNull("share", "place.city", over=over),
        Unique("id", over=over),
        Unique("place.n", "region", over=over),
        Unique("tags", over=over),  # which Spark cannot tell
        Between("share", 0, 10, over=over),  # NaN is greater than any bound in a manifest says
        Between("price", max=5, over=over),
        AcceptedValues("region", ["eu"], over=over),
        SqlCheck(f"own {over}", "SELECT * FROM rows WHERE v10 > 900", over=over),
    ]


def test_reports_are_those_of_duckdb(world: Measured, runner: SharedRunner, spark: SparkProcess) -> None:
    shared = runner.shared
    published(world)
    # Deletes by row, in a partition that the next session touches and in one that it does not.
    spark.sql(
        shared,
        f"ALTER TABLE {TARGET} SET TBLPROPERTIES ('write.delete.mode'='merge-on-read')",
        f"DELETE FROM {TARGET} WHERE id IN (3, 35)",
        "SELECT 1",
    )
    world.land(0.5, 0.55, 5.1, region="us")
    audits = [a for over in ("rows", "partitions", "table") for a in _built_in(over)]
    audits += [Expectations(_SUITE, name="suite"), Volume(min_ratio=0.1), Trend("unique(id)", max_change=1)]
    session, sealed = opened(world, *audits, runner=runner)
    subject = subject_of(session.process, world.target, session.plan, sealed)
    here = run_audits(audits, subject)
    there = run_audits(audits, subject, ask=SparkAudits(runner=runner, session=session, sealed=sealed).ask)

    def plain(report: AuditReport) -> list[dict[str, Any]]:
        return [{**r.to_json(), "path": None} for r in report.results]

    assert plain(there) == plain(here)
    assert there.rows == here.rows == 3
    counts = {r.name: r.checked for r in there.results}
    assert 3 < counts["unique(id) over partitions"] < counts["unique(id) over table"] == 41
    paths = {r.path for r in there.results}
    assert paths == {"spark", "duckdb", "gx", "statistics"}
    assert {r.path for r in here.results} == {"duckdb", "gx", "statistics"}
    assert [r.name for r in there.results if r.path == "duckdb"] == [
        "unique(tags)",
        "unique(tags) over partitions",
        "unique(tags) over table",
    ]


def test_a_session_is_published_on_what_spark_says(world: Measured, runner: SharedRunner) -> None:
    report = published(world, NotNull("id"), Between("v10", 0, 10, severity="warn"), runner=runner, samples=2)
    assert [(r.path, r.passed) for r in report.results] == [("spark", True), ("spark", False)]
    # Samples are rows, so they are read here and do not pass through the table's metadata.
    assert len(report.results[1].samples) == 2
    (job,) = runner.jobs
    assert all("LIMIT" not in q["sql"] for q in job["scopes"][0]["questions"])
    assert branches(world) == []
    left = world.target.metadata.refs
    assert set(left) == {"main", naming.watermark_tag("proc")}
    lineage = {s.snapshot_id for s in world.target.metadata.snapshots}
    assert lineage == {s.snapshot_id for s in world.target.history()} | {world.target.current_snapshot().snapshot_id}  # type: ignore[union-attr]


def test_a_failed_audit_ends_the_session(world: Measured, runner: SharedRunner) -> None:
    session, sealed = opened(world, Between("v10", 0, 10), runner=runner)
    with pytest.raises(AuditFailed, match=r"rows are not in \[0, 10\]"):
        audit(session, sealed)
    assert branches(world) == []
    assert any(name.startswith(naming.FAILED_PREFIX) for name in world.target.metadata.refs)
    assert world.target_rows() == {}


def test_rows_that_spark_found_to_offend_are_put_aside_here(
    world: Measured, runner: SharedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        low = Between("v10", 0, 500, severity="quarantine", name="low")
        report = published(world, low, PythonCheck(lambda _rows, _subject: True, name="mine"), runner=runner)
    (said,) = [r.getMessage() for r in caplog.records if "read rows on the worker" in r.getMessage()]
    assert "'mine' (it is a function in Python)" in said
    assert "'low' (it finds the rows to put aside, if some offend)" in said
    low_result = report.results[0]
    assert low_result.quarantined == low_result.offending > 0
    assert [r.path for r in report.results] == ["spark", "python"]
    assert len(runner.jobs) == 2  # the rest is audited again
    kept = world.target.scan().to_arrow()["v10"].to_pylist()
    assert len(kept) + low_result.quarantined == 40
    assert max(kept) <= 500


def test_what_spark_leaves_undecided_great_expectations_judges_here(world: Measured, runner: SharedRunner) -> None:
    ends = suite(expect("column_values_to_be_in_set", column="share", value_set=[0.0, 1.0]), name="ends")
    world.land(7.0)
    with world.source.transaction() as change:
        change.append(world.source.scan(limit=1).to_arrow().set_column(3, "v", pa.array([0], pa.int64())))
    session, sealed = opened(world, Expectations(ends, name="ends"), runner=runner)
    with pytest.raises(AuditFailed, match="rows are not as expected"):
        audit(session, sealed)


@attrs.define(kw_only=True)
class Lost:
    """A runner whose application is lost on the way, so that the first job is not run at all."""

    runner: SharedRunner
    raises: bool
    jobs: list[Mapping[str, Any]] = attrs.field(factory=list)

    @property
    def catalog(self) -> Mapping[str, Any]:
        return self.runner.catalog

    @property
    def transform(self) -> Mapping[str, Any]:
        return self.runner.transform

    @property
    def fingerprint(self) -> str:
        return self.runner.fingerprint

    def run(self, job: Mapping[str, Any]) -> None:
        self.jobs.append(job)
        if len(self.jobs) > 1:
            self.runner.run(job)
        elif self.raises:
            raise TransformError("the cluster is gone", hint="look for it")


@pytest.mark.parametrize("raises", [True, False], ids=["an error", "nothing said"])
def test_an_application_that_is_lost_says_nothing_about_the_data(
    world: Measured, runner: SharedRunner, raises: bool
) -> None:
    lost = Lost(runner=runner, raises=raises)
    session, sealed = opened(world, NotNull("id"), runner=lost)
    expected = "the cluster is gone" if raises else "left no answers"
    with pytest.raises(AuditIncomplete, match=expected):
        audit(session, sealed)
    (first,) = branches(world)
    report = audit(session, sealed)
    assert report.verdict == "passed"
    (second,) = branches(world)
    assert (first[-2:], second[-2:]) == ("_1", "_2")
    # The first application wakes up: its branch is gone, and it cannot be made again.
    before = world.target.metadata.snapshots
    with pytest.raises(TransformError, match=f"the branch {first!r} of {TARGET} is gone"):
        runner.run(lost.jobs[0])
    assert world.target.metadata.snapshots == before
    assert steps.publish(session, report).outcome == "published"
    assert branches(world) == []


def test_what_is_wrong_with_a_query_is_the_authors_business(world: Measured, runner: SharedRunner) -> None:
    session, sealed = opened(world, SqlCheck("own", "SELECT nothing FROM rows"), runner=runner)
    with pytest.raises(AuditFailed, match=r"'own' is refused by Spark: .*`?nothing`? cannot be resolved"):
        audit(session, sealed)


def test_an_audit_beyond_the_session_is_asked_again_where_main_has_moved(world: Measured, runner: SharedRunner) -> None:
    session, sealed = opened(world, NotNull("id"), RowCount(1, over="table", name="all"), runner=runner)
    report = audit(session, sealed)
    world.catalog.load_table(TARGET).append(world.target.scan().to_arrow())
    assert steps.publish(session, report).outcome == "published"
    first, second = runner.jobs
    assert [s["over"] for s in first["scopes"]] == ["rows", "table"]
    assert [s["over"] for s in second["scopes"]] == ["table"]


def test_null_fractions_need_no_application(world: Measured, runner: SharedRunner) -> None:
    published(world, NullFraction("share", max=1), runner=runner)
    assert runner.jobs == []
