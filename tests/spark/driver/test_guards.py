"""A driver writes only while its branch is what it left there."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_incremental_spark import DriverError
from tests.spark.driver.lake import Lake


@pytest.fixture
def target(lake: Lake) -> Lake:
    lake.create("dst", "id bigint")
    lake.insert("dst", "VALUES (0L)")
    return lake


def late(lake: Lake, function: Any = None, found: str = "is gone") -> None:
    kind = "SELECT 1L AS id" if function is None else {"kind": "function", "module": "", "name": ""}
    with pytest.raises(DriverError, match=found) as caught:
        lake.run(lake.document("dst", kind), function)
    assert caught.value.code == "late"


def test_a_branch_that_is_gone_is_not_made_anew(target: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    late(target)
    assert [r["name"] for r in target.spark.table(target.name("dst.refs")).collect()] == ["main"]
    assert '"code": "late"' in capsys.readouterr().out


def test_a_branch_that_holds_something_already_is_left_alone(target: Lake) -> None:
    target.branch("dst")
    base = target.head("dst")
    target.spark.range(5, 6).writeTo(target.name("dst.branch_attempt")).append()
    with pytest.raises(DriverError, match="which this driver did not write"):
        target.run(target.document("dst", "SELECT 1L AS id", base=base))
    assert target.rows("dst.branch_attempt") == [(0,), (5,)]


def test_a_branch_that_is_dropped_while_the_transform_runs(target: Lake) -> None:
    target.branch("dst")

    def transform(spark: Any, *_: Any) -> Any:
        spark.sql(f"ALTER TABLE {target.name('dst')} DROP BRANCH attempt")
        return spark.range(1)

    late(target, transform)
    assert [r["name"] for r in target.spark.table(target.name("dst.refs")).collect()] == ["main"]


def test_another_attempt_is_not_written_to(target: Lake) -> None:
    """A driver that wakes up late finds its own branch gone and a later one there."""
    target.branch("dst")

    def transform(spark: Any, *_: Any) -> Any:
        name = target.name("dst")
        spark.sql(f"ALTER TABLE {name} DROP BRANCH attempt")
        spark.sql(f"ALTER TABLE {name} CREATE BRANCH attempt_2")
        return spark.range(1)

    late(target, transform)
    assert target.rows("dst.branch_attempt_2") == [(0,)]


def test_a_snapshot_that_is_gone_ends_the_plan(target: Lake) -> None:
    target.branch("dst")
    source = target.source("dst", target.read("dst", snapshot=12345))
    with pytest.raises(Exception, match="Cannot find snapshot with ID 12345"):
        target.run(target.document("dst", "SELECT * FROM src", sources={"src": source}))
    mark, report = target.marks("dst")
    assert (mark, report["where"], report["code"]) == ("failed", "read", "expired")
    assert "plans anew" in report["hint"]


def test_a_document_of_another_version(target: Lake) -> None:
    with pytest.raises(DriverError, match="version 99"):
        target.run({**target.document("dst", "SELECT 1L AS id"), "version": 99})
