"""Two judges of the same rows: the one pass in DuckDB, and the same in Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_incremental.audits.checks import SqlCheck
from airflow_incremental.audits.compile import Counts, Measure
from airflow_incremental.audits.query import Rows
from airflow_incremental.audits.questions import Answered, Questions, decoded
from airflow_incremental.audits.run import _connection, _count
from airflow_incremental.audits.spark_sql import SparkSql
from airflow_incremental.audits.subject import ROWS
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.spark_process import SparkProcess
from tests.unit.audits.rows import read_of

#: Asks the questions of cases as the driver of an audit does.
_ASK = """
from airflow_incremental_spark import audits

for key, value in {**audits.CONF, **given["conf"]}.items():
    spark.conf.set(key, value)
result = [audits.answers(spark, spark.read.parquet(case["path"]), case["questions"]) for case in given["cases"]]
"""


@attrs.frozen(kw_only=True)
class Case:
    """A table, and what is asked of it in Spark's SQL."""

    table: pa.Table
    measures: tuple[Measure, ...]
    checks: tuple[SqlCheck, ...] = ()

    @property
    def questions(self) -> Questions:
        return Questions(measures=self.measures, checks=self.checks)

    @property
    def picked(self) -> list[Measure]:
        """The measures of which single rows offend."""
        return [m for m in self.measures if m.offends is not None]

    def as_job(self) -> list[dict[str, Any]]:
        # What looks for others with its key cannot stand in an aggregate.
        each = [
            f"(SELECT count(*) FROM {SparkSql.rows} WHERE {m.offends})"
            if m.keys
            else f"count(*) FILTER (WHERE {m.offends})"
            for m in self.picked
        ]
        picked = {"id": "picked", "sql": f"SELECT {', '.join(each)}, count(*) FROM {SparkSql.rows}"}
        return [*self.questions.as_job(), *([picked] if each else [])]


def nowhere(home: Path) -> SharedCatalog:
    """Return a catalog for a Spark that is to read files."""
    return SharedCatalog(name="nowhere", properties={}, spark={"type": "hadoop", "warehouse": str(home)})


#: Without it, Spark makes Java of each query, which takes longer than all else over small tables.
INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
#: Files of others than Spark have the calendar that they have; Iceberg's readers take none for another.
_FILES = {"spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED"}


def by_spark(
    spark: SparkProcess, home: Path, cases: Sequence[Case], conf: Mapping[str, str] | None = None
) -> list[Answered]:
    """Let Spark judge; and see that the predicate of offending rows is true for just as many as were counted."""
    asked = []
    for i, case in enumerate(cases):
        path = home / f"{i}.parquet"
        pq.write_table(case.table, path)
        asked.append({"path": str(path), "questions": case.as_job()})
    answers = spark.script(nowhere(home), _ASK, cases=asked, conf={**_FILES, **(conf or {})})
    found = []
    for case, answer in zip(cases, answers, strict=True):
        picked = [decoded(v) for v in answer.pop("picked", [])]
        answered = case.questions.read(answer, case.table.schema.names)
        for m, offending in zip(case.picked, picked[:-1], strict=True):
            assert answered.found[m.name].undecided or offending == answered.found[m.name].offending, m
        found.append(answered)
    return found


def by_duckdb(table: pa.Table, measures: Sequence[Measure]) -> tuple[int, Mapping[str, Counts]]:
    """Let DuckDB judge."""
    with _connection(None, None) as worker:
        rows = Rows(worker, attrs.evolve(read_of(table), name=ROWS))
        rows.bind()
        return _count(rows, measures)
