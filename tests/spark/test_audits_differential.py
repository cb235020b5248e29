"""Audits in Spark against audits in DuckDB, which are proven against an oracle and against Great Expectations itself.

They say the same of the same rows, to the last count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
