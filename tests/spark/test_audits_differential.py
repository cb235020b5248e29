"""Audits in Spark against audits in DuckDB, which are proven against an oracle and against Great Expectations itself.

They say the same of the same rows, to the last count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import pytest

from airflow_incremental.audits.compile import Counts, Measure
from airflow_incremental.audits.expectations.fast import FORMS
from airflow_incremental.audits.spark_sql import SparkSql
from airflow_incremental.audits.sql import DuckDBSql
from tests.spark.audit_judges import INTERPRETED, Case, by_duckdb, by_spark
from tests.spark.support.spark_process import SparkProcess
from tests.unit.audits.expectations.cases import case
from tests.unit.audits.expectations.judges import alike, compiled_all

#: Expectations of each table.
_EACH = 30
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


@pytest.mark.parametrize(("seeds", "conf"), [(range(4), {}), (range(4, 20), INTERPRETED)], ids=["compiled", "plain"])
def test_expectations_are_judged_alike(
    spark: SparkProcess, tmp_path: Path, seeds: range, conf: Mapping[str, str]
) -> None:
    own = [Random().getrandbits(63) for _ in range(len(seeds) // 4)]  # others in each run
    said, asked, decided = differences(spark, tmp_path, [*seeds, *own], conf)
    assert not said, "\n".join(said)
    assert decided.total() > 0.5 * asked.total() > 0
    if len(seeds) > 10:
        assert set(decided) == set(FORMS)  # each was compared
