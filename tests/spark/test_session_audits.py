"""Audits, rows put aside and approvals over what Spark wrote: they read Iceberg, so they work as they are."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from airflow_incremental.audits import AcceptedValues, Expectations, NotNull, NullFraction, RowCount, SqlCheck, Unique
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.iceberg import naming
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.approving import decide
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.worlds import on_spark
from tests.support.approvals import ask, decision_on
from tests.support.quarantine import check_split
from tests.support.world import World
from tests.unit.audits.expectations.suites import expect, suite


@pytest.fixture
def world(tmp_path: Path, spark: SparkProcess, catalog: SharedCatalog) -> World:
    """Rows of two regions, in partitions of both; ``file:`` and ``file://`` are how the catalogs place tables."""
    fields = (("day", "ts"), ("identity", "region"))
    found = on_spark(World(home=tmp_path, target_fields=fields), spark, catalog).set_up()
    found.land(0, 1, 30)
    found.land(2, 3, region="a/b 1")
    return found


def test_what_spark_wrote_is_audited_put_aside_and_approved(world: World, tmp_path: Path) -> None:
    suite_file = tmp_path / "suite.json"
    suite_file.write_text(
        json.dumps(suite(expect("column_median_to_be_between", column="id", min_value=1, max_value=9)))
    )
    checks = [
        NotNull("id"),
        Unique("id"),
        RowCount(1),
        NullFraction("region", 0.1),
        SqlCheck("not_negative", "SELECT * FROM rows WHERE v10 < 0"),
        Expectations(str(suite_file)),
    ]
    eu = AcceptedValues("region", ["eu"], severity="quarantine", name="eu")
    finished = steps.run(world.process(audits=[*checks, eu]))
    assert (finished.outcome, finished.verdict) == ("published", "warned")
    check_split(world, lambda row: [] if row[2] == "eu" else ["eu"])

    # A person decides: the lock says so, and what is published is what Spark wrote.
    world.land(4, 5)
    waiting = ask(world, audits=[RowCount(max=1, severity="ask"), eu])
    decision = decision_on(waiting)
    decide(world.catalog, waiting.session.begin, waiting.session.plan.owner, decision, end=True)
    session = steps.resume(waiting.session.process, waiting.session.plan.session, again=False)
    done = steps.publish(attrs.evolve(waiting.session, begin=session.begin), waiting.report, decision)  # type: ignore[union-attr]
    assert (done.outcome, done.decision) == ("published", decision)
    check_split(world, lambda row: [] if row[2] == "eu" else ["eu"])

    # What fails is kept for inspection, and none of it is seen.
    rows = world.target_rows()
    world.land(6, region="us")
    with pytest.raises(AuditFailed):
        steps.run(world.process(audits=[AcceptedValues("region", ["eu"])]))
    assert world.target_rows() == rows
    (kept,) = [r for r in world.target.metadata.refs if r.startswith(naming.FAILED_PREFIX)]
    assert world.target.scan().use_ref(kept).to_arrow().num_rows == rows.total() + 1

    # History grows by one snapshot per session: the first one, two publishes, and the one that is kept.
    assert len(world.target.metadata.snapshots) == 4
    assert {f.rsplit("/", 1)[0] for f in world.target.inspect.files().column("file_path").to_pylist()}
