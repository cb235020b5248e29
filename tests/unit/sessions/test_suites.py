"""Great Expectations suites as the audits of a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental.audits import Expectations
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.iceberg import naming
from airflow_incremental.sessions import steps
from tests.support.world import World
from tests.unit.audits.expectations.suites import expect, suite


def written(folder: Path, *expectations: dict[str, Any]) -> str:
    path = folder / "events.json"
    path.write_text(json.dumps(suite(*expectations, name="events")))
    return str(path)


def test_a_blocking_expectation_of_a_suite_from_a_file_keeps_the_data_unpublished(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1, 2)
    path = written(
        tmp_path,
        expect("column_values_to_not_be_null", column="region"),
        expect("column_median_to_be_between", column="id", min_value=0, max_value=1, severity="warning"),
        expect("column_values_to_be_dateutil_parseable", column="region"),
    )
    with pytest.raises(AuditFailed, match=r"1 of 3 audits failed over 2 rows.*dateutil_parseable\(region\): 2 of 2"):
        steps.run(world.process(audits=[Expectations(path)]))
    assert world.target_rows().total() == 0
    assert any(ref.startswith(naming.failed_ref("")) for ref in world.target.metadata.refs)
    written(tmp_path, expect("column_median_to_be_between", column="id", max_value=0, severity="info"))
    finished = steps.run(world.process("next", audits=[Expectations(path)]))
    assert (finished.outcome, finished.verdict) == ("published", "warned")
    world.check()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (expect("column_median_to_be_between", column="idd"), "names the column 'idd', which"),
        (expect("column_medan_to_be_between", column="id"), "did you mean 'expect_column_median_to_be_between'"),
        (expect("column_values_to_be_in_set", column="id", value_sets=[1]), "'value_sets' is no argument of it"),
    ],
)
def test_a_suite_that_does_not_fit_is_found_before_the_load(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1)
    with pytest.raises(AuditFailed, match=message):
        steps.run(world.process(audits=[Expectations(written(tmp_path, wrong))], transform="SELECT no column"))
    assert list(world.target.metadata.refs) == ["main"], "no session was opened"


def test_a_suite_over_the_table_sees_what_was_there_before(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1)
    steps.run(world.process())
    world.next_id = 0
    world.land(2)  # the same id
    unique = suite(expect("column_values_to_be_unique", column="id"), name="keys")
    with pytest.raises(AuditFailed, match=r"keys over table: column_values_to_be_unique\(id\): 2 of 2 rows"):
        steps.run(world.process("again", audits=[Expectations(unique), Expectations(unique, over="table")]))


def test_rows_that_offend_an_expectation_are_put_aside(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1, 2)
    sql = "SELECT id, ts, CASE WHEN id = 1 THEN region END AS region, v * 10 AS v10 FROM events"
    present = suite(
        expect("column_values_to_not_be_null", column="region", meta={"severity": "quarantine"}), name="events"
    )
    finished = steps.run(world.process(audits=[Expectations(present)], transform=sql))
    assert (finished.outcome, finished.verdict) == ("published", "warned")
    assert world.target_rows().total() == 1
    aside = world.catalog.load_table("mart.result__quarantine").scan().to_arrow().to_pylist()
    assert [row["quarantine_reasons"] for row in aside] == [["events: column_values_to_not_be_null(region)"]]


def test_a_suite_that_is_looked_up_late_may_not_put_rows_aside_unasked(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1)
    path = written(tmp_path, expect("column_values_to_not_be_null", column="region", meta={"severity": "quarantine"}))
    with pytest.raises(AuditFailed, match=r"only found when it is looked up.*give the suite as a file"):
        steps.run(world.process(audits=[Expectations(path)]))
    assert steps.run(world.process("next", audits=[Expectations(path, severity="quarantine")])).did_publish


def test_rows_that_only_great_expectations_can_tell_block_and_the_error_says_why_none_was_put_aside(
    tmp_path: Path,
) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1, 2)
    sql = "SELECT id, ts, region, CASE WHEN id = 1 THEN 0 END AS v10 FROM events"
    greater = expect(
        "column_pair_values_a_to_be_greater_than_b", column_A="v10", column_B="id", meta={"severity": "quarantine"}
    )
    with pytest.raises(
        AuditFailed, match=r"rows are not as expected; none is put aside, because DuckDB cannot tell which: "
    ):
        steps.run(world.process(audits=[Expectations(suite(greater, name="events"))], transform=sql))
    assert not world.catalog.table_exists("mart.result__quarantine")
