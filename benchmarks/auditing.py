"""Six usual checks over a Parquet file, in a process of its own, so that its peak of memory is its own.

``python -m benchmarks.auditing HOW FILE``, where HOW is ``fast path`` (a Great Expectations suite as an audit of this package),
``gx`` (the same suite run by Great Expectations over a pandas frame), ``sql`` (one statement,
written by hand) or ``imports`` (what the first two import, and nothing else). Prints the seconds of the checks alone, imports not
counted, and what they found.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What DuckDB may use, here and in a task whose worker has little.
MEMORY_LIMIT = "128MB"
HOWS = ("fast path", "gx", "sql")

SUITE: dict[str, Any] = {
    "name": "usual",
    "expectations": [
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "id"}},
        {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "v", "min_value": 0, "max_value": 995}},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "region", "value_set": ["eu", "us", "ap"]}},
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "v", "min_value": 400, "max_value": 600}},
    ],
}
_BY_HAND = """
    SELECT count(*), count(*) FILTER (WHERE id IS NULL), count(id) - count(DISTINCT id),
        count(*) FILTER (WHERE v NOT BETWEEN 0 AND 995), count(*) FILTER (WHERE region NOT IN ('eu', 'us', 'ap')), avg(v)
    FROM read_parquet(?)
"""
#: Of the mean; sums of floats depend on the order of the rows.
_DIGITS = 6


def make(path: Path, rows: int) -> None:
    """Write rows of which some violate a check: 4 of 1,000 values are too great, one region of 5,000 is unknown."""
    import duckdb

    with duckdb.connect() as con:
        con.execute(
            f"""COPY (
                SELECT i AS id, TIMESTAMPTZ '2024-01-01 00:00:00Z' + to_seconds(i) AS ts,
                    CASE WHEN hash(i) % 5000 = 0 THEN 'xx' ELSE ['eu', 'us', 'ap'][(hash(i) % 3)::INT + 1] END AS region,
                    (hash(i + 7) % 1000)::BIGINT AS v
                FROM range({rows}) AS numbers(i)
            ) TO '{path}' (FIELD_IDS {{id: 1, ts: 2, region: 3, v: 4}})"""  # noqa: S608  (a number and a path made here)
        )


def fast_path(path: Path) -> Callable[[], list[float]]:
    """Return the work: the suite as an audit of a session that wrote the file."""
    import pyarrow.parquet as pq

    from airflow_incremental.audits import Expectations
    from airflow_incremental.audits.run import run_audits
    from airflow_incremental.audits.subject import ROWS, Subject
    from airflow_incremental.core.audit import Over
    from airflow_incremental.core.reads import ReadPart, SourceRead
    from airflow_incremental.core.statistics import Statistics

    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    part = ReadPart(paths=(str(path),), batches=lambda: pq.ParquetFile(path).iter_batches())
    read = SourceRead(
        name=ROWS,
        schema=schema,
        field_ids=tuple(range(1, len(schema) + 1)),
        parts=(part,),
        rows=file.metadata.num_rows,
    )

    def nothing(_over: Over) -> Statistics:
        raise AssertionError("no statistics are asked for")

    def work() -> list[float]:
        subject = Subject(snapshot_id=1, read=lambda _over: read, statistics=nothing)
        report = run_audits([Expectations(SUITE)], subject, memory_limit=MEMORY_LIMIT)
        assert {r.path for r in report.results} == {"duckdb"}
        return _found([r.full["result"] for r in report.results if r.full])

    return work


def by_gx(path: Path) -> Callable[[], list[float]]:
    """Return the work: the suite run by Great Expectations."""
    import great_expectations as gx
    import pyarrow.parquet as pq

    logging.disable(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    suite = gx.ExpectationSuite(**SUITE)
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("rows")
    definition = asset.add_batch_definition_whole_dataframe("all")

    def work() -> list[float]:
        frame = pq.read_table(path).to_pandas()
        validated = definition.get_batch({"dataframe": frame}).validate(suite)
        by_type = {r.expectation_config.type: r.result for r in validated.results}
        return _found([by_type[e["type"]] for e in SUITE["expectations"]])

    return work


def by_hand(path: Path) -> Callable[[], list[float]]:
    """Return the work: one statement."""
    import duckdb

    def work() -> list[float]:
        with duckdb.connect(config={"memory_limit": MEMORY_LIMIT}) as con:
            ((rows, nulls, doubles, outside, unknown, mean),) = con.execute(_BY_HAND, [str(path)]).fetchall()
        return [rows, nulls, doubles, outside, unknown, round(mean, _DIGITS)]

    return work


def _found(results: list[Any]) -> list[float]:
    return [
        r["unexpected_count"] if r.get("observed_value") is None else round(r["observed_value"], _DIGITS)
        for r in results
    ]


def main() -> None:
    """Run the checks once, or import what they need."""
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=[*HOWS, "imports"])
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.how == "imports":
        import airflow_incremental.audits.run  # noqa: F401  imported to see what that takes

        return
    work = {"fast path": fast_path, "gx": by_gx, "sql": by_hand}[arguments.how](arguments.file)
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "found": found}))


if __name__ == "__main__":
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    main()
