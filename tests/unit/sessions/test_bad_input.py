"""What a run says to bad input: what was found, what was expected, what to do; nothing is written and no lock is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest

from airflow_incremental.audits import AcceptedValues, Audit, NotNull, SqlCheck
from airflow_incremental.core.errors import AuditFailed, IncrementalError, TableError, TransformError
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.iceberg.targets import check_format
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Process
from tests.support.world import EVENTS, SOURCE, TARGET, World, create


def source(**changes: Any) -> Callable[[Process], Process]:
    def change(process: Process) -> Process:
        declared = IcebergSource(**{"table": SOURCE, "event_time": "ts", **changes})
        return attrs.evolve(process, spec=attrs.evolve(process.spec, sources={"events": declared}))

    return change


def target(**changes: Any) -> Callable[[Process], Process]:
    def change(process: Process) -> Process:
        declared = IcebergTarget(**{"table": TARGET, "event_time": "hour_ts", **changes})
        return attrs.evolve(process, spec=attrs.evolve(process.spec, target=declared))

    return change


def transform(code: Any) -> Callable[[Process], Process]:
    return lambda process: attrs.evolve(process, transform=code)


def broken(relations: Any, plan: Any) -> Any:  # noqa: ARG001
    raise ZeroDivisionError


HOURS = (
    "SELECT date_trunc('hour', ts) AS hour_ts, region, count(*) AS n, sum(v)::BIGINT AS total FROM events GROUP BY ALL"
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (source(table="raw.nothing"), r"the source 'raw\.nothing' does not exist in catalog"),
        (source(branch="dev"), r"has no branch 'dev'; it has main"),
        (source(event_time="when"), r"has no column 'when'; it has id, ts, region, v"),
        (source(event_time="v"), r"event_time 'v' .* is of type long.*Expected: date, timestamp or timestamptz"),
        (target(event_time="n"), r"event_time 'n' .* is of type long"),
        (target(event_time="missing"), r"has no column 'missing'"),
        (
            target(scope={"region": "eu"}),
            r"scope column 'region' is not an identity partition column.*ADD PARTITION FIELD region",
        ),
        (
            target(scope={"regon": "eu"}),
            r"scope column 'regon' is not .*a column whose values are partitions .*the table has none\..*correct the name",
        ),
        (transform("SELECT * FROM clicks"), r"clicks"),
        (transform("SELECT 1 AS hour_ts; SELECT 2"), r"statement"),
        (transform(f"SELECT hour_ts, region, n FROM ({HOURS})"), r"total"),
        (transform(f"SELECT *, 1 AS extra FROM ({HOURS})"), r"extra"),
        (transform(f"SELECT * REPLACE (region AS n) FROM ({HOURS})"), r"n\b"),
        (transform(f"SELECT * REPLACE (hour_ts + INTERVAL 30 DAY AS hour_ts) FROM ({HOURS})"), r"hour_ts"),
        (transform("SELECT nonsense FROM events"), r"nonsense"),
        (transform(broken), r"ZeroDivisionError"),
        (transform(lambda relations, plan: 7), r"int"),  # noqa: ARG005
        (
            transform(lambda relations, plan: relations["clicks"]),  # noqa: ARG005
            r"asks for the relation 'clicks'.*can read: events, plan_ranges.*declare 'clicks' in sources",
        ),
    ],
)
def test_a_run_refuses(tmp_path: Path, change: Callable[[Process], Process], message: str) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(0.5, 1)
    with pytest.raises((TableError, TransformError), match=message) as refused:
        steps.run(change(world.process("bad")))
    assert isinstance(refused.value, IncrementalError)
    assert refused.value.expected or refused.value.hint, "it says what to do"
    # The author's own code may have failed for a reason that passes; the rest is as wrong the next time.
    assert refused.value.retryable == ("raised in the transform" in str(refused.value))
    assert world.target_rows() == {}
    # The corrected run of the same or a later try goes on as if nothing had been.
    assert steps.run(world.process("bad")).did_publish
    world.check()


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        (NotNull("totl"), r"not_null\(totl\).*totl"),
        (AcceptedValues("total", ["a"]), r"compares the column 'total' of type int64 with"),
        (SqlCheck("rule", "SELEC 1"), r"'rule' is refused by DuckDB: Parser Error"),
        (SqlCheck("rule", "SELECT * FROM rows WHERE totl < 0"), r"'rule' is refused by DuckDB: Binder Error.*totl"),
    ],
)
def test_an_audit_that_does_not_fit_is_found_before_the_load(tmp_path: Path, audit: Audit, message: str) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(0.5)
    with pytest.raises(AuditFailed, match=message):
        steps.run(world.process("bad", audits=(audit,), transform=broken))
    assert list(world.target.metadata.refs) == ["main"], "no session was opened"
    assert steps.run(world.process("bad", audits=(NotNull("total"),))).did_publish
    assert steps.run(world.process("bad", audits=(audit,))).outcome == "already_published"
    world.check()


def test_overwrite_needs_partitioning_by_event_time(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite", target_fields=(("identity", "region"),)).set_up()
    world.land(0)
    with pytest.raises(
        TableError, match=r"not partitioned by its event time 'hour_ts' but by .*ADD PARTITION FIELD day"
    ):
        steps.run(world.process())


@pytest.mark.parametrize(
    ("column", "partitioning", "message"),
    [
        (pa.uuid(), "identity", r"partitioned by identity\(extra\), a column of type uuid.*bucket\(16, extra\)"),
        (pa.float64(), "identity", r"partitioned by identity\(extra\), a column of type double"),
        (pa.binary(3), "identity", r"the target mart.result is partitioned by identity\(extra\), .*fixed\[3\].*Java"),
        (pa.binary(), "truncate[3]", r"partitioned by truncate\[3\]\(extra\), a column of type binary.*bucket"),
    ],
)
def test_partition_fields_that_cannot_be_written(
    tmp_path: Path, column: pa.DataType, partitioning: str, message: str
) -> None:
    world = World(home=tmp_path).set_up()
    world.land(0)
    world.catalog.drop_table(TARGET)
    create(world.catalog, TARGET, world.target_schema.append(pa.field("extra", column)), [(partitioning, "extra")])
    with pytest.raises(TableError, match=message):
        steps.run(world.process())


def test_a_source_whose_manifests_may_be_misread(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.catalog.drop_table(SOURCE)
    create(world.catalog, SOURCE, EVENTS.append(pa.field("extra", pa.binary(3))), [("identity", "extra")])
    with pytest.raises(TableError, match=r"the source raw.events is partitioned by identity\(extra\).*fixed\[3\]"):
        steps.run(world.process())


def test_format_versions_a_session_cannot_write(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    for version, word in ((1, "upgrade"), (3, "cannot write version 3")):
        table = world.target
        table.metadata = table.metadata.model_copy(update={"format_version": version})
        with pytest.raises(TableError, match=rf"has format version {version}.*{word}"):
            check_format(table)
