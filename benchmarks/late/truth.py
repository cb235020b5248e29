"""What every table should hold: all of it, computed from all events, by the same SQL; outside of what is timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import duckdb
from pyiceberg.table import Table

from airflow_incremental.engines.relations import open_connection
from benchmarks.late.hops import CUSTOMERS, FACTS, HOPS, STATES, Hop

_NO_STATE = """
    CREATE OR REPLACE TEMP VIEW state AS
    SELECT NULL::DATE AS day, NULL::BIGINT AS customer_id, NULL::BIGINT AS balance, NULL::BIGINT AS active_days WHERE false
"""


@attrs.frozen
class Truth:
    """The tables of the chain, computed anew after every tick."""

    con: duckdb.DuckDBPyConnection

    @classmethod
    def at(cls, home: Path, memory_limit: str | None) -> Truth:
        """Keep them in a database file."""
        return cls(open_connection(home, memory_limit=memory_limit))

    def compute(self, events: Table) -> None:
        """Compute all of it from the events there are."""
        self._view("events", [task.file.file_path for task in events.scan().plan_files()])
        self.con.execute(_NO_STATE)
        for hop in (FACTS, STATES, CUSTOMERS):
            self.con.execute(f"CREATE OR REPLACE TABLE {hop.name} AS {hop.sql}")
            self.con.execute(f"CREATE OR REPLACE TABLE print_of_{hop.name} AS {_fingerprints(hop, hop.name)}")

    def wrong(self, hop: str, files: Sequence[str]) -> int:
        """Return how many partitions of a table differ from what they should be; of one without partitions, how many rows."""
        self._view("found", files)
        query = f"""
            SELECT count(*) FROM print_of_{hop} AS t FULL JOIN ({_fingerprints(HOPS[hop], "found")}) AS f USING (part)
            WHERE t.print IS DISTINCT FROM f.print
        """  # noqa: S608
        row = self.con.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def _view(self, name: str, files: Sequence[str]) -> None:
        listed = ", ".join(f"'{path.removeprefix('file://')}'" for path in files)
        query = f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false)"  # noqa: S608
        self.con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")


def _fingerprints(hop: Hop, relation: str) -> str:
    part = hop.event_time or "customer_id"
    return f"SELECT {part} AS part, (count(*), sum(hash({hop.columns}))) AS print FROM {relation} GROUP BY ALL"  # noqa: S608
