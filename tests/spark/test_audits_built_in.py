"""The built-in audits in Spark against what a few lines of Python say about the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_incremental.audits import AcceptedValues, Audit, Between, NotNull, RowCount, SqlCheck, Unique
from airflow_incremental.audits.compile import measures_of
from airflow_incremental.audits.elsewhere import read_here
from airflow_incremental.audits.spark_sql import SparkSql
from airflow_incremental.core.errors import AuditFailed
from tests.spark.audit_judges import INTERPRETED, Case, by_spark
from tests.spark.support.spark_process import SparkProcess
from tests.unit.audits.test_oracle import COLUMNS, SCHEMA, TRIED, expected

#: Iceberg has no integers of 8 bits and none without sign.
_COLUMNS = {name: values for name, (_, values) in COLUMNS.items() if name not in ("tiny", "u")}
_PATHS = [*_COLUMNS, "box.it's", "box.s"]
_SCHEMA = pa.schema([f for f in SCHEMA if f.name not in ("tiny", "u")])
_EMPTY: Mapping[str, Any] = dict.fromkeys(SCHEMA.names)


def _case(rows: Sequence[Mapping[str, Any]], audits: Sequence[Audit], schema: pa.Schema = _SCHEMA) -> Case:
    measures = measures_of(audits, schema, SparkSql)
    assert all(measures[a.name] for a in audits if not isinstance(a, SqlCheck))
    checks = tuple(a for a in audits if isinstance(a, SqlCheck))
    return Case(
        table=pa.Table.from_pylist([{f.name: r.get(f.name) for f in schema} for r in rows], schema),
        measures=tuple(m for each in measures.values() for m in each),
        checks=checks,
    )


def _bounds_and_values(column: str) -> list[Audit]:
    """Return every bound and value tried, with the bound itself inside and outside in turn."""
    audits: list[Audit] = []
    for n, value in enumerate(TRIED[column]):
        least, most = ("left", "left") if n % 2 else ("right", "right")
        audits.append(Between(column, value, inclusive=least, name=f"{n} min"))
        audits.append(Between(column, None, value, inclusive=most, name=f"{n} max"))
        audits.append(AcceptedValues(column, [value], allow_null=n % 2 == 0, name=f"{n} is"))
    # So many that Spark makes a set of them.
    audits.append(AcceptedValues(column, TRIED[column], name="all"))
    if column in ("f", "g"):
        audits.append(AcceptedValues(column, range(20), name="zero is minus zero"))
    return audits


def test_every_bound_and_value_against_every_cell_and_every_key(spark: SparkProcess, tmp_path: Path) -> None:
    asked: list[tuple[list[dict[str, Any]], list[Audit]]] = [
        ([{**_EMPTY, column: v} for v in [None, *_COLUMNS[column]]], _bounds_and_values(column))
        for column in TRIED
        if column in _COLUMNS
    ]
    texts = [{**_EMPTY, "s": v} for v in [None, *_COLUMNS["s"], "${spark.app.id}", "a\\'", "\\u0041"]]
    values = [r["s"] for r in texts[1:]]
    asked.append((texts, [AcceptedValues("s", [v], name=repr(v)) for v in values]))
    asked.append((texts, [AcceptedValues("s", values, name="all"), AcceptedValues("s", ["b"])]))
    pools = {**_COLUMNS, "box": [{"it's": n, "s": t} for n in (0, 1) for t in "xy"]}
    keys = [*((c,) for c in _PATHS), ("s", "f"), ("box.it's", "box.s"), ("ts", "d", "b"), ("box",)]
    whole = [{name: pool[n % len(pool)] for name, pool in pools.items()} for n in (0, 1, 1, 2, 2, 2, 3)]
    rows = [*whole, *({**row, c.partition(".")[0]: None} for row in whole[:3] for key in keys for c in key)]
    asked.append((rows, [Unique(*key) for key in keys if key != ("box",)]))
    asked.append((rows, [NotNull(*key) for key in keys if key != ("box",)]))
    asked.append((rows, [RowCount(1, 5), RowCount(100, name="more")]))
    asked.append(([], [NotNull("i"), Unique("i", "s"), AcceptedValues("s", ["a"]), Between("f", 0), RowCount(1)]))
    found = by_spark(spark, tmp_path, [_case(*each) for each in asked], INTERPRETED)
    for (rows, audits), answered in zip(asked, found, strict=True):
        counts = {name: (c.checked, c.offending) for name, c in answered.found.items()}
        assert counts == {a.name: expected(rows, a) for a in audits}
        assert answered.total == len(rows)


def test_a_query_of_ones_own_is_counted_or_said_to_be_none(spark: SparkProcess, tmp_path: Path) -> None:
    rows = [{**_EMPTY, "i": n, "s": "Jane Doe"} for n in range(4)]

    def returned(sql: str) -> int:
        (found,) = by_spark(spark, tmp_path, [_case(rows, [RowCount(1), SqlCheck("own", sql)])])
        return found.returned["own"]

    assert returned("SELECT i, i AS i FROM rows WHERE i > 1 -- the last two") == 2
    assert returned("WITH few AS (SELECT * FROM rows LIMIT 1) SELECT count(*) FROM few HAVING count(*) > 1") == 0
    with pytest.raises(AuditFailed, match=r"is refused by Spark: .*nothing.*has the columns i, f"):
        returned("SELECT nothing FROM rows")
    with pytest.raises(AuditFailed, match=r"is refused by Spark: .*PARSE_SYNTAX_ERROR"):
        returned("SELEC * FROM rows")
    with pytest.raises(AuditFailed, match="is refused by Spark"):
        returned("DROP VIEW rows")
    with pytest.raises(AuditFailed, match="is refused by Spark"):
        returned("SELECT 1) AS one; DROP VIEW rows --")
    with pytest.raises(AuditFailed, match="stopped on a row with CAST_INVALID_INPUT") as stopped:
        returned("SELECT * FROM rows WHERE CAST(s AS INT) > 1")
    assert "Jane" not in str(stopped.value)
    with pytest.raises(AuditFailed, match="stopped on a row with DIVIDE_BY_ZERO"):
        returned("SELECT * FROM rows WHERE 1 / i > 1")


def test_a_field_of_a_column_that_is_called_as_the_relation(spark: SparkProcess, tmp_path: Path) -> None:
    inner = pa.struct([("x", pa.int64()), ("it`s", pa.int64())])
    schema = pa.schema([("rows", inner), ("x", pa.int64()), ("incremental rows", pa.int64()), ("a.b", pa.int64())])
    rows = [{"rows": {"x": None, "it`s": 1}, "x": 1, "incremental rows": None, "a.b": None}]
    audits = [NotNull("rows.x"), NotNull("x"), NotNull("rows.it`s"), NotNull("incremental rows"), NotNull("a.b")]
    (found,) = by_spark(spark, tmp_path, [_case(rows, audits, schema)])
    assert [c.offending for c in found.found.values()] == [1, 0, 0, 1, 1]


def test_what_spark_has_no_exact_sql_for_is_named() -> None:
    schema = pa.schema([("tags", pa.map_(pa.string(), pa.int64())), ("list", pa.list_(pa.int64()))])
    audits = [Unique("tags"), Unique("list"), NotNull("tags")]
    assert {a.name: bool(m) for a, m in zip(audits, measures_of(audits, schema, SparkSql).values(), strict=True)} == {
        "unique(tags)": False,
        "unique(list)": True,
        "not_null(tags)": True,
    }
    assert read_here(audits[0], schema, "a") == [("unique(tags)", "Spark does not group rows by maps")]
    assert read_here(audits[1], schema, "a") == []
