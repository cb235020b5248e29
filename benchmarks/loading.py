"""One load in a process of its own, so that its peak of memory is its own.

``python -m benchmarks.loading HOW HOME ROWS``: ``session`` runs a whole session whose transform makes so many rows;
``at once`` gives the result of the same query to pyiceberg as one Arrow table. Prints how many files there are then.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import attrs
import duckdb
import pyarrow as pa

from airflow_incremental.engines.duckdb import DuckDBEngine
from airflow_incremental.sessions import steps
from benchmarks.histories import new_catalog
from benchmarks.worlds import TARGET, process_of, rows

#: What DuckDB may use; what it sorts beyond it goes to disk.
ENGINE_LIMIT = "256MB"
#: Hours the rows are spread over, which are as many partitions.
HOURS = 48


def query(count: int) -> str:
    """Return SQL that makes rows of about 150 bytes, in no useful order, from the one row of the source."""
    return f"""
        SELECT e.id + i AS id, e.ts + to_hours(CAST(hash(i) % {HOURS} AS BIGINT)) AS ts, repeat(md5(i::VARCHAR), 4) AS region,
            e.v + i AS v
        FROM events e, range({count}) AS numbers(i)
    """  # noqa: S608  (a number)


def by_session(home: Path, count: int) -> None:
    """Load by a session."""
    engine = DuckDBEngine(memory_limit=ENGINE_LIMIT, threads=2)
    process = attrs.evolve(process_of(new_catalog(home)), transform=query(count), engine=engine, work_dir=home / "work")
    finished = steps.run(process)
    assert finished.published is not None
    assert finished.published.summary["incremental.rows"] == str(count)


def at_once(home: Path, count: int) -> None:
    """Load by one Arrow table."""
    with duckdb.connect(config={"memory_limit": ENGINE_LIMIT, "threads": 2}) as con:
        con.register("events", rows(0))
        con.execute("SET TimeZone = 'UTC'")
        made: pa.Table = con.execute(query(count)).to_arrow_table()
    new_catalog(home).load_table(TARGET).append(made)


def main() -> None:
    """Run one load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=["session", "at once"])
    parser.add_argument("home", type=Path)
    parser.add_argument("rows", type=int)
    arguments = parser.parse_args()
    (by_session if arguments.how == "session" else at_once)(arguments.home, arguments.rows)
    table = new_catalog(arguments.home).load_table(TARGET)
    assert table.scan().count() == arguments.rows
    print(json.dumps({"files": len(list(table.scan().plan_files()))}))


if __name__ == "__main__":
    main()
