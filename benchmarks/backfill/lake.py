"""Sources of two rows an hour, targets with a row an hour, and what these have to hold."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import duckdb
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform, HourTransform, Transform

from airflow_incremental.core.ranges import UTC, format_time
from airflow_incremental.iceberg import naming
from demo.landing import Lakehouse

START = dt.datetime(2019, 1, 1, tzinfo=UTC)
EVENTS = pa.schema([("id", pa.int64()), ("ts", pa.timestamp("us", "UTC")), ("v", pa.int64())])
HOURS = pa.schema([("hour_ts", pa.timestamp("us", "UTC")), ("n", pa.int64()), ("total", pa.int64())])
#: A file for each day of it.
_HOURS_OF_AN_APPEND = 366 * 24
_MINUTES = (10, 40)
_ORACLE = """
SELECT date_trunc('hour', ts) AS hour_ts, count(*) AS n, sum(v * {factor})::BIGINT AS total FROM events GROUP BY 1 ORDER BY 1
"""


@attrs.frozen(kw_only=True)
class Load:
    """Tables of one load.

    :param hours: of the source, from 2019 on.
    """

    lakehouse: Lakehouse
    source: str
    target: str
    hours: int

    @property
    def start(self) -> str:
        """The first hour, as the form takes it."""
        return format_time(START)

    @property
    def end(self) -> str:
        """The end of the last hour."""
        return format_time(START + dt.timedelta(hours=self.hours))

    @property
    def table(self) -> Table:
        """The target as it is now."""
        return self.lakehouse.catalog().load_table(f"mart.{self.target}")

    def make(self) -> int:
        """Create the tables, fill the source unless it is there, and return its bytes."""
        catalog = self.lakehouse.catalog()
        for namespace in ("raw", "mart"):
            catalog.create_namespace_if_not_exists(namespace)
        _create(catalog, f"mart.{self.target}", HOURS, "hour_ts", HourTransform())
        if not catalog.table_exists(f"raw.{self.source}"):
            _create(catalog, f"raw.{self.source}", EVENTS, "ts", DayTransform())
            for first in range(0, self.hours, _HOURS_OF_AN_APPEND):
                landed = _rows(first, min(first + _HOURS_OF_AN_APPEND, self.hours))
                catalog.load_table(f"raw.{self.source}").append(landed)
        head = catalog.load_table(f"raw.{self.source}").current_snapshot()
        assert head is not None
        assert head.summary is not None
        return int(head.summary.additional_properties["total-files-size"])

    def check(self, factor: int) -> None:
        """Assert that the target is what all rows of the source give, row for row, and that nothing is left of its sessions."""
        events = _rows(0, self.hours)
        # Without the zone, which is UTC: DuckDB takes an extension to know zones.
        events = events.set_column(1, "ts", events["ts"].cast(pa.timestamp("us")))
        with duckdb.connect() as con:
            con.register("events", events)
            expected: pa.Table = con.sql(_ORACLE.format(factor=factor)).to_arrow_table()
        table = self.table
        found = table.scan().to_arrow().select(HOURS.names).sort_by("hour_ts")
        assert expected.num_rows == self.hours
        assert found.cast(HOURS).equals(expected.cast(HOURS))
        left = {name for name in table.metadata.refs if name.startswith("inc_")}
        assert left == {naming.watermark_tag(f"mart.{self.target}")}, left


def _create(catalog: Catalog, name: str, schema: pa.Schema, column: str, by: Transform[Any, Any]) -> None:
    with catalog.create_table(name, schema=schema).update_spec() as update:
        update.add_field(column, by, "part")


def _rows(first: int, end: int) -> pa.Table:
    """Return the rows of the hours from the first on and before the end."""
    numbers = range(first * len(_MINUTES), end * len(_MINUTES))
    times = [START + dt.timedelta(hours=hour, minutes=minutes) for hour in range(first, end) for minutes in _MINUTES]
    return pa.table([pa.array(numbers), pa.array(times), pa.array([n * 7 % 101 for n in numbers])], schema=EVENTS)
