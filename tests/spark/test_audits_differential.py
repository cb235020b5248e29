"""Audits in Spark against audits in DuckDB, which are proven against an oracle and against Great Expectations itself.

They say the same of the same rows, to the last count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from airflow_incremental.audits.compile import Counts, Measure
from airflow_incremental.audits.expectations.fast import FORMS
from airflow_incremental.audits.spark_sql import SparkSql
from airflow_incremental.audits.sql import DuckDBSql, Sql
from tests.spark.audit_judges import INTERPRETED, Case, by_duckdb, by_spark
from tests.spark.support.spark_process import SparkProcess
from tests.unit.audits.expectations.cases import case
from tests.unit.audits.expectations.judges import alike, compiled_all, expectation

#: Expectations of each table.
_EACH = 30
#: Seeds of tables and suites in which each kind of expectation is decided.
_COVERING = (11, 47, 6, 4, 10)
#: What Spark alone may leave undecided, as its numbers in the middle are floats.
_BEYOND = "a value in the middle is beyond what a float can hold"


def differences(
    spark: SparkProcess, home: Path, seeds: Sequence[int], conf: Mapping[str, str]
) -> tuple[list[str], Counter[str], Counter[str]]:
    """Return where the two differ over random tables and suites; how many expectations of each type were asked, and decided."""
    drawn = [case(seed, _EACH) for seed in seeds]
    cases = [
        Case(table=t, measures=tuple(m for m in compiled_all(t, e, SparkSql) if isinstance(m, Measure)))
        for t, e in drawn
    ]
    asked: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    said = []
    for seed, (table, expectations), found in zip(seeds, drawn, by_spark(spark, home, cases, conf), strict=True):
        measures = [m for m in compiled_all(table, expectations, DuckDBSql) if isinstance(m, Measure)]
        total, expected = by_duckdb(table, measures)
        assert (total, expected.keys()) == (found.total, found.found.keys())
        for name, one in expected.items():
            e, other = expectations[int(name)], found.found[name]
            asked[e.type] += 1
            if other.undecided == _BEYOND and not one.undecided:
                continue
            decided[e.type] += not one.undecided
            if one.undecided != other.undecided or not (one.undecided or same(one, other)):
                said.append(f"seed {seed}: {e.type} {dict(e.kwargs)}\n    DuckDB: {one}\n    Spark:  {other}")
    return said, asked, decided


def same(one: Counts, other: Counts) -> bool:
    """Whether two findings are the same, but for the last digits of sums of floats."""
    plain = [(c.passed, c.offending, c.checked, c.message) for c in (one, other)]
    return plain[0] == plain[1] and alike(one.full, other.full) and alike(one.observed, other.observed)


@pytest.mark.parametrize(("seeds", "conf"), [((2,), {}), (_COVERING, INTERPRETED)], ids=["compiled", "plain"])
def test_expectations_are_judged_alike(
    spark: SparkProcess, tmp_path: Path, seeds: Sequence[int], conf: Mapping[str, str]
) -> None:
    own = [Random().getrandbits(63) for _ in range(len(seeds) // 2)]  # others in each run
    said, asked, decided = differences(spark, tmp_path, [*seeds, *own], conf)
    assert not said, "\n".join(said)
    assert decided.total() > 0.5 * asked.total() > 0
    if seeds == _COVERING:
        assert set(decided) == set(FORMS)  # each was compared


#: Texts that the engines could read differently; by what has to be left out for all patterns to be decided.
_ODD_TEXTS = (
    (
        "",
        "a",
        "\r",
        "\u0085",
        "\u2028",
        "a\r",
        "a\u2029",
        "\x0b",
        "\x1c",
        "é",
        "日本",
        "\U0001d4b3",
        "v",
        "\n",
        "a\n",
        "\r\n",
    ),
    ("", "a", "\r", "\u0085", "\u2028", "a\r", "a\u2029", "\x0b", "\x1c", "é", "日本", "\U0001d4b3", "v"),
    ("", "a", "\r", "a\r", "\na", "\t", " ", "v", "A_b-c", "x.y"),
)
_ODD_PATTERNS = (
    ".",
    "^.$",
    "^.{2}$",
    "a$",
    "^$",
    r"\v",
    r"[\v]",
    r"^[^\v]$",
    r"\\v|a",
    r"(?P<a_b>a)\r",
    "[(?P<x>]",
    "[^a]",
    r"^\S$",
    r"\w",
    r"\bA_b\b",
    "[a-]",
    r"[\w-]+$",
    "(a|^)*$",
    "a{0}b?",
    "[.]|[+*?$]",
)


def test_java_reads_patterns_and_texts_as_re2_does(spark: SparkProcess, tmp_path: Path) -> None:
    kinds = ("column_values_to_match_regex", "column_values_to_not_match_regex")
    expectations = [expectation(kind, column="x", regex=pattern) for pattern in _ODD_PATTERNS for kind in kinds]
    tables = [pa.table({"x": texts}) for texts in _ODD_TEXTS]

    def measures(sql: type[Sql]) -> tuple[Measure, ...]:
        return tuple(m for m in compiled_all(tables[0], expectations, sql) if isinstance(m, Measure))

    cases = [Case(table=table, measures=measures(SparkSql)) for table in tables]
    decided = Counter[str]()
    for table, found in zip(tables, by_spark(spark, tmp_path, cases, INTERPRETED), strict=True):
        _, expected = by_duckdb(table, measures(DuckDBSql))
        for name, one in expected.items():
            other = found.found[name]
            decided[name] += not one.undecided
            assert one.undecided == other.undecided
            assert one.undecided or one == other, (expectations[int(name)].kwargs, table.to_pydict())
    assert min(decided.values()) > 0
    assert len(decided) > len(_ODD_PATTERNS)


def test_what_does_not_fit_into_64_bits_or_a_float(spark: SparkProcess, tmp_path: Path) -> None:
    big, nan = 2**63 - 1, math.nan
    table = pa.table(
        {
            "n": pa.array([big, big, -7, None, big, -(2**63), 2**53 + 1, 1], pa.int64()),
            "m": pa.array([big, 1, 7, None, -big, -1, 0, 2**53], pa.int64()),
            "d": pa.array([Decimal(10**33 - k) / 10**4 for k in range(8)], pa.decimal128(38, 4)),
            "f": pa.array([nan, None, None, nan, None, None, None, nan], pa.float64()),
            "h": pa.array([0.1, None, 0.3, nan, None, 3.4e38, -0.0, None], pa.float32()),
        }
    )
    ends = {"quantiles": [0, 0.5, 1], "value_ranges": [[None, None]] * 3}
    expectations = [
        *(
            expectation(f"column_{of}_to_be_between", column="n", min_value=0)
            for of in ("sum", "mean", "median", "min")
        ),
        *(
            expectation(f"column_{of}_to_be_between", column="m", min_value=0)
            for of in ("sum", "mean", "median", "stdev")
        ),
        *(expectation("column_sum_to_be_between", column=c, min_value=0) for c in ("d", "f", "h")),
        *(expectation(f"column_{of}_to_be_between", column="f", min_value=0) for of in ("min", "max", "median")),
        *(expectation(f"column_{of}_to_be_between", column="h", max_value=1) for of in ("min", "max", "median")),
        *(expectation("column_quantile_values_to_be_between", column=c, quantile_ranges=ends) for c in ("n", "f", "h")),
        expectation(
            "multicolumn_sum_to_equal", column_list=["n", "m"], sum_total=0, ignore_row_if="any_value_is_missing"
        ),
        expectation("column_values_to_be_in_set", column="n", value_set=[2**53, 1, -7]),
    ]

    def measures(sql: type[Sql]) -> tuple[Measure, ...]:
        return tuple(m for m in compiled_all(table, expectations, sql) if isinstance(m, Measure))

    (found,) = by_spark(spark, tmp_path, [Case(table=table, measures=measures(SparkSql))], INTERPRETED)
    _, expected = by_duckdb(table, measures(DuckDBSql))
    beyond = [name for name, c in found.found.items() if c.undecided == _BEYOND]
    assert [(expectations[int(name)].type, expectations[int(name)].kwargs["column"]) for name in beyond] == [
        ("expect_column_quantile_values_to_be_between", "n")
    ]
    assert len(expected) == len(expectations)
    for name, one in expected.items():
        other = found.found[name]
        assert name in beyond or (one.undecided, other.undecided) != ("", "") or same(one, other), expectations[
            int(name)
        ]
        assert name in beyond or one.undecided == other.undecided, expectations[int(name)]
