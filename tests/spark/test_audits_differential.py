"""Audits in Spark against audits in DuckDB, which are proven against an oracle and against Great Expectations itself.

They say the same of the same rows, to the last count.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations.fast import FORMS
from airflow_incremental.audits.spark_sql import SparkSql
from airflow_incremental.audits.sql import DuckDBSql
from tests.spark.audit_judges import Case, by_duckdb, by_spark
from tests.spark.support.spark_process import SparkProcess
from tests.unit.audits.expectations.cases import case
from tests.unit.audits.expectations.judges import alike, compiled_all

#: Expectations of each table.
_EACH = 30
#: What Spark alone may leave undecided, as its numbers in the middle are floats.
_BEYOND = "a value in the middle is beyond what a float can hold"


def test_expectations_are_judged_alike(spark: SparkProcess, tmp_path: Path) -> None:
    seeds = [Random().getrandbits(63) for _ in range(20)]
    asked: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    cases, all_expectations = [], []
    for seed in seeds:
        table, expectations = case(seed, _EACH)
        measures = [m for m in compiled_all(table, expectations, SparkSql) if isinstance(m, Measure)]
        cases.append(Case(table=table, measures=tuple(measures)))
        all_expectations.append(expectations)
    for seed, c, expectations, found in zip(
        seeds, cases, all_expectations, by_spark(spark, tmp_path, cases), strict=True
    ):
        measures = {m.name: m for m in compiled_all(c.table, expectations, DuckDBSql) if isinstance(m, Measure)}
        assert measures.keys() == found.found.keys()
        total, expected = by_duckdb(c.table, list(measures.values()))
        assert total == found.total
        for name, one in expected.items():
            e, other = expectations[int(name)], found.found[name]
            asked[e.type] += 1
            if other.undecided == _BEYOND != one.undecided:
                continue
            decided[e.type] += not one.undecided
            same = (one.passed, one.offending, one.checked, one.undecided) == (
                other.passed,
                other.offending,
                other.checked,
                other.undecided,
            )
            what = f"seed {seed}: {e.type} {dict(e.kwargs)}\n  DuckDB: {one}\n  Spark:  {other}"
            assert one.undecided or (same and alike(one.full, other.full)), what
    assert asked.total() >= 200
    assert decided.total() > 0.5 * asked.total()
    assert set(decided) == set(FORMS)
