"""Audits that Spark answers, without a Spark: what it is asked, what its answers mean, and when rows are read here all the same."""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from airflow_incremental.audits import (
    Audit,
    Between,
    Expectations,
    NotNull,
    PythonCheck,
    RowCount,
    SensitiveData,
    SqlCheck,
    Unique,
)
from airflow_incremental.audits.questions import decoded, unpacked
from airflow_incremental.audits.run import check_queries, run_audits
from airflow_incremental.audits.spark_sql import SparkSql, java_pattern, literal
from airflow_incremental.audits.sql import Inexact
from airflow_incremental.core.audit import AuditIncomplete, AuditReport
from airflow_incremental.core.errors import AuditFailed
from tests.unit.audits.expectations.suites import expect, suite
from tests.unit.audits.rows import read_of, subject_of

TABLE = pa.table({"a": [1, 1, None, 4], "t": pa.array([[("k", 1)]] * 4, pa.map_(pa.string(), pa.int64()))})


def report(
    answers: Mapping[str, Any], *audits: Audit, table: pa.Table = TABLE, opened: Any = None, **options: Any
) -> tuple[AuditReport, list[dict[str, Any]]]:
    """Return a report of audits that are answered so, and what was asked."""
    asked: list[dict[str, Any]] = []

    def ask(questions: Mapping[Any, Sequence[Mapping[str, Any]]]) -> Mapping[Any, Mapping[str, Any]]:
        asked.extend(json.loads(json.dumps(questions["rows"])))
        return {"rows": answers}

    read = read_of(table, opened=opened or (lambda: None))
    return run_audits(audits, subject_of(read), ask=ask, **options), asked


def unread() -> None:
    pytest.fail("rows were read here")


def test_what_is_answered_is_not_read_here() -> None:
    audits = [NotNull("a"), Unique("a"), RowCount(1), SqlCheck("own", "SELECT * FROM rows -- all")]
    answers = {"counts": [4, 1, 3, 2], "shared unique(a)": [2], "check own": [4]}
    found, asked = report(answers, *audits, opened=unread)
    assert [(r.path, r.checked, r.offending) for r in found.results] == [
        ("spark", 4, 1),
        ("spark", 3, 2),
        ("spark", 4, 0),
        ("spark", 4, 4),
    ]
    assert found.rows == 4
    assert [q["id"] for q in asked] == ["counts", "shared unique(a)", "check own"]
    assert asked[0]["sql"] == (
        "SELECT count(*), count(*) FILTER (WHERE `a` IS NULL), count(*) FILTER (WHERE `a` IS NOT NULL), "
        "count(DISTINCT `a`) FILTER (WHERE `a` IS NOT NULL) FROM incremental_rows"
    )
    assert asked[1]["when"] == ["counts", 2, 3]
    assert asked[2] == {"id": "check own", "sql": "SELECT count(*) FROM (\nSELECT * FROM rows -- all\n)", "own": True}


def test_what_is_not_asked_about_is_no_question() -> None:
    def ask(_questions: Any) -> Any:
        pytest.fail("there is nothing to ask")

    found = run_audits([PythonCheck(lambda _r, _s: True, name="mine")], subject_of(read_of(TABLE)), ask=ask)
    assert [r.path for r in found.results] == ["python"]


def test_the_rest_is_read_here_and_has_to_be_the_same_rows() -> None:
    audits = [NotNull("a"), Unique("t"), PythonCheck(lambda rows, _s: len(rows) == 4, name="mine")]
    found, asked = report({"counts": [4, 1]}, *audits)
    assert [(r.path, r.passed) for r in found.results] == [("spark", False), ("duckdb", False), ("python", True)]
    assert len(asked) == 1
    with pytest.raises(AuditIncomplete, match="Spark counted 5 rows, and here there are 4"):
        report({"counts": [5, 1]}, *audits)


def test_samples_are_read_here_for_what_failed() -> None:
    found, _ = report({"counts": [4, 1, 0, 3]}, NotNull("a"), Between("a", 0, 9), samples=2)
    assert [r.samples for r in found.results] == [({"a": None, "t": [["k", 1]]},), ()]
    passed, _ = report({"counts": [4, 0, 3]}, Between("a", 0, 9, name="all"), opened=unread, samples=2)
    assert passed.verdict == "passed"


def test_what_spark_leaves_undecided_is_judged_here() -> None:
    text = pa.table({"a": ["x\n", "x"]})
    audit = Expectations(suite(expect("column_values_to_match_regex", column="a", regex="x$")), name="s")
    found, asked = report({"counts": [2, 2, 2, 0, 1]}, audit, table=text)
    assert [(r.path, r.passed) for r in found.results] == [("gx", True)]
    assert "`a` RLIKE CAST(X'283f64297824' AS STRING)" in asked[0]["sql"]


def test_rows_that_are_not_the_same_the_second_time_say_nothing() -> None:
    with pytest.raises(AuditIncomplete, match="a second time gave other rows"):
        report({"counts": [4, 3, 2], "shared unique(a)": [0]}, Unique("a"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"refused": "[PARSE_SYNTAX_ERROR] near 'SELEC'"}, "refused by Spark: [PARSE_SYNTAX_ERROR] near 'SELEC'"),
        ({"stopped": "DIVIDE_BY_ZERO"}, "stopped on a row with DIVIDE_BY_ZERO"),
    ],
)
def test_a_query_that_is_none_fails_whatever_its_severity(answer: Any, said: str) -> None:
    with pytest.raises(AuditFailed, match=re.escape(said)):
        report({"counts": [4], "check own": answer}, SqlCheck("own", "SELECT 1", severity="warn"))


def test_what_reads_rows_here_is_said_before_the_load(caplog: pytest.LogCaptureFixture) -> None:
    schema = pa.schema([("a", pa.int64()), ("s", pa.string()), ("t", TABLE.schema.field("t").type)])
    kinds = suite(
        expect("column_values_to_be_unique", column="s"), expect("column_values_to_be_of_type", column="a", type_="x")
    )
    audits: list[Audit] = [
        NotNull("a", severity="quarantine"),
        Unique("t"),
        SensitiveData(["s"]),
        Expectations(kinds, name="suite"),
        SqlCheck("spark's own", "SELECT a FROM rows LATERAL VIEW explode(t)"),
    ]
    with caplog.at_level(logging.WARNING):
        check_queries(audits, schema, in_spark=True)
    (said,) = caplog.messages
    assert said.partition(": ")[2] == (
        "'unique(t)' (Spark does not group rows by maps); 'sensitive_data(s)' (its recognisers are in Python); "
        "'suite: column_values_to_be_of_type(a)' (there is no SQL for expect_column_values_to_be_of_type that is proven equal); "
        "'not_null(a)' (it finds the rows to put aside, if some offend)"
    )
    caplog.clear()
    check_queries(audits[:1][:0], schema, in_spark=True)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("value", "kind", "sql"),
    [
        (True, "BOOLEAN", "TRUE"),
        (-(2**63), "BIGINT", "CAST('-9223372036854775808' AS BIGINT)"),
        (0.1, "DOUBLE", "CAST('0.1' AS DOUBLE)"),
        (Decimal("1E+2"), "DECIMAL(9,2)", "CAST('100' AS DECIMAL(9,2))"),
        (dt.date(1, 1, 1), "DATE", "CAST('0001-01-01' AS DATE)"),
        (
            dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
            "TIMESTAMP",
            "CAST('2024-01-01T00:00:00+00:00' AS TIMESTAMP)",
        ),
        ("plain text", "STRING", "'plain text'"),
        ("it's ${x}", "STRING", "CAST(X'6974277320247b787d' AS STRING)"),
        ("\\", "STRING", "CAST(X'5c' AS STRING)"),
    ],
)
def test_values_in_sparks_sql(value: Any, kind: str, sql: str) -> None:
    assert literal(value, kind) == sql


def test_a_type_that_spark_does_not_have_is_no_literal() -> None:
    with pytest.raises(Inexact, match="no type UBIGINT"):
        SparkSql().value(1, "UBIGINT")


@pytest.mark.parametrize(
    ("pattern", "java"),
    [
        ("^a.$", "(?d)^a.$"),
        (r"a\v", r"(?d)a\x0b"),
        (r"\\v", r"(?d)\\v"),
        (r"[\v\]x](?P<a_b>c)", r"(?d)[\x0b\]x](c)"),
        ("[(?P<x>]", "(?d)[(?P<x>]"),
    ],
)
def test_patterns_as_java_reads_them(pattern: str, java: str) -> None:
    assert java_pattern(pattern) == java


def test_values_come_back_as_they_were() -> None:
    packed = base64.b85encode(zlib.compress(json.dumps({"rows": {"counts": [1]}}).encode())).decode()
    assert unpacked(packed) == unpacked({"rows": {"counts": [1]}}) == {"rows": {"counts": [1]}}
    assert math.isnan(decoded({"float": "nan"}))
    assert decoded({"float": "-inf"}) == -math.inf
    assert decoded({"decimal": "1.20"}) == Decimal("1.20")
    assert decoded({"date": "0001-01-01"}) == dt.date(1, 1, 1)
    assert decoded({"timestamp": -1}) == dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=dt.timezone.utc)
    assert decoded({"timestamp_ntz": "2024-01-01 05:00:00.00001"}) == dt.datetime(2024, 1, 1, 5, 0, 0, 10)  # noqa: DTZ001
    assert [decoded(v) for v in (None, True, 2**62, 0.1, "x")] == [None, True, 2**62, 0.1, "x"]
