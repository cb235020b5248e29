"""What is read of manifests, against the rows themselves; the audits of a session over them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import LongType

from airflow_incremental.audits import Audit, ColumnRange, NullFraction, Volume, run
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.iceberg.columns import ColumnReader
from airflow_incremental.iceberg.statistics import past_publishes, statistics_of
from airflow_incremental.sessions import steps
from tests.support.tables import (
    append,
    at,
    commit_snapshot,
    delete_rows_by_position,
    equality_delete_file,
    head,
    live_files,
    make_table,
    sql_catalog,
)
from tests.support.world import World, create, hour, new_catalog

KINDS = pa.schema(
    [
        ("i", pa.int32()),
        ("n", pa.int64()),
        ("f", pa.float32()),
        ("d", pa.float64()),
        ("price", pa.decimal128(30, 3)),
        ("day", pa.date32()),
        ("at", pa.timestamp("us")),
        ("s", pa.string()),
        ("inner", pa.struct([("n", pa.int64())])),
    ]
)


EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001  the column has no zone
#: Column -> its least and greatest value, and how those are stored.
VALUES: dict[str, tuple[Any, Any, Any, Any]] = {
    "i": (-5, 7, -5, 7),
    "n": (-(2**40), 2**40, -(2**40), 2**40),
    "f": (-0.5, 1.5, -0.5, 1.5),
    "d": (-1e300, 1e300, -1e300, 1e300),
    "price": (Decimal("-12345678901234567890123.456"), Decimal("0.001"), -12345678901234567890123456, 1),
    "day": (EPOCH.date() - dt.timedelta(3), EPOCH.date() + dt.timedelta(400), -3, 400),
    "at": (EPOCH - dt.timedelta(microseconds=7), EPOCH + dt.timedelta(days=1), -7, 86_400_000_000),
    "s": ("a" * 40, "z" * 40, None, None),
    "inner": ({"n": -1}, {"n": 9}, None, None),
}


def test_bounds_are_decoded_as_they_are_stored(tmp_path: Path) -> None:
    table = create(new_catalog(tmp_path), "mart.kinds", KINDS, [])
    table.append(pa.table({name: [low, high, None] for name, (low, high, *_) in VALUES.items()}, schema=KINDS))
    known = statistics_of(table, head(table).snapshot_id, live_files(table))("rows")
    for name, (*_, low, high) in VALUES.items():
        assert known.bounds(name) == ([low], [high]), name
        assert known.nulls(name) == [None if name == "inner" else 1], name
    assert (known.bounds("inner.n"), known.nulls("inner.n")) == (([None], [None]), [1])
    # A column that has a wider type now keeps the bounds its files were written with.
    with table.update_schema() as update:
        update.update_column("i", LongType())
    table.append(pa.Table.from_pylist([{"i": 2**40}], schema=table.schema().as_arrow()))
    wider = statistics_of(table, head(table).snapshot_id, ())("table")
    assert sorted(wider.bounds("i")[0]) == [-5, 2**40]


def test_row_level_deletes_are_counted_or_unknown(tmp_path: Path) -> None:
    table = make_table(sql_catalog(tmp_path))
    append(table, (1, at(0)), (2, at(9)), (3, None))
    sealed = head(table).snapshot_id
    assert statistics_of(table, sealed, ())("table").deleted == 0
    delete_rows_by_position(table, [2])
    after = statistics_of(table, head(table).snapshot_id, ())("table")
    assert (after.deleted, after.total) == (1, 3)
    file = live_files(table)[0]
    commit_snapshot(table, Operation.DELETE, deletes=[equality_delete_file(table, like=file, equality_ids=[1])])
    assert statistics_of(table, head(table).snapshot_id, ())("table").deleted is None


def files_opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []
    of_file = ColumnReader.of_file

    def noted(self: ColumnReader, path: str) -> Any:
        opened.append(path)
        return of_file(self, path)

    monkeypatch.setattr(ColumnReader, "of_file", noted)
    return opened


def test_a_session_audited_by_statistics_opens_no_file_that_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(home=tmp_path, mode="append").set_up()
    world.land(0.1, 0.2, 1.5, 3.5)
    opened = files_opened(monkeypatch)
    monkeypatch.setattr(run, "_connection", lambda *_: pytest.fail("a database was opened"))
    audits: list[Audit] = [
        NullFraction("id", 0),
        ColumnRange("ts", hour(0), hour(3.5)),
        ColumnRange("v10", min=0, over="partitions"),
        NullFraction("region", 0, over="table"),
        Volume(min_ratio=0.5),
        Volume(min_ratio=0.5, over="partitions"),
        Volume(min_ratio=0.5, over="table"),
    ]
    steps.run(world.process(audits=audits))
    world.check()
    assert [p for p in opened if "result" in p] == []
    world.land(0.4, 3.6)
    with pytest.raises(AuditFailed, match=r"column_range\(ts\): 1 of 2 files, 2 rows with a value"):
        steps.run(world.process(audits=audits))


def test_volume_follows_what_was_published(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="append").set_up()
    audits = [Volume(min_ratio=0.5, max_ratio=2), Volume(min_ratio=0.5, over="partitions", severity="warn", last=3)]
    for n in range(4):
        world.land(*[n + i / 10 for i in range(4)])
        steps.run(world.process(audits=audits))
    assert [(p.rows, p.total) for p in past_publishes(world.target, "proc")] == [(4, 16), (4, 12), (4, 8), (4, 4)]
    world.land(5.5)
    with pytest.raises(AuditFailed) as error:
        steps.run(world.process(audits=audits))
    assert "1 rows, expected at least 0.5 and at most 2 times 4 rows, the median of the last 4 publishes" in str(
        error.value
    )
    # The rows that were not published come again, with others.
    world.land(5.6)
    finished = steps.run(world.process(audits=audits))
    assert finished.verdict == "passed"
    world.land(7.5, 6.5, 6.6)
    assert steps.run(world.process(audits=audits)).verdict == "warned", (
        "hour 7 has 1 row, the others written last 2 to 4"
    )


def test_touched_partitions_are_those_of_the_rows(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(*[h + 0.5 for h in range(5) for _ in range(h + 1)])
    steps.run(world.process())
    world.land(1.1, 2.1, region="us")
    steps.run(world.process())
    table = world.target
    known = statistics_of(table, head(table).snapshot_id, ())
    hours = Counter((row[0] - hour(0)) // dt.timedelta(hours=1) for row in world.target_rows().elements())
    first = min(p[1] for p in known("table").partitions())  # type: ignore[type-var]
    by_hour = {p[1] - first: n for p, n in known("table").partitions().items()}  # type: ignore[operator]
    assert by_hour == hours
    touched = known("partitions")
    assert {p[1] - first for p in touched.partitions()} == {1, 2}  # type: ignore[operator]
    assert touched.total == hours[1] + hours[2] == sum(touched.partitions().values())
    assert {p[1] - first for p in list(known("table").partitions())[:2]} == {1, 2}, "written last come first"  # type: ignore[operator]
