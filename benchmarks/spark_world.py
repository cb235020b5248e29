"""Tables for DuckDB and Spark: a source of many days, which each session reads as if nobody else had."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.types import LongType, NestedField

from airflow_incremental.core.spec import Mode
from benchmarks.histories import SCHEMA

BY_DAY = PartitionSpec(PartitionField(source_id=2, field_id=1000, transform=DayTransform(), name="ts_day"))
_AGGREGATE = Schema(
    *(SCHEMA.find_field(name) for name in ("ts", "region")),
    NestedField(5, "events", LongType(), required=False),
    NestedField(6, "total", LongType(), required=False),
)
_FIRST_DAY = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
#: Days that are appended at once: as much as fits into memory well.
_BATCH = 10
#: Of what a tick brings, this part is late, and these many days.
_LATE_SHARE, _LATE_BY = 0.05, (1, 10, 50)


@attrs.frozen(kw_only=True)
class World:
    """A source of so many rows, evenly spread over days, one file for each; and what comes to it in a tick.

    :param catalog: the tables' catalog.
    :param rows: rows of the source.
    :param days: days that they are spread over; as many as on each of them come in a tick, most of them on the next day.
    """

    catalog: Catalog
    rows: int
    days: int = 100

    @property
    def original(self) -> str:
        """The table that copies are made of."""
        return f"raw.events_{self.rows}"

    @property
    def tick_rows(self) -> int:
        """Rows that come in a tick."""
        return self.rows // self.days

    def make(self) -> None:
        """Make the source."""
        table = self.catalog.create_table(
            self.original, schema=SCHEMA, partition_spec=BY_DAY, properties={"format-version": "2"}
        )
        batch = min(_BATCH, self.days)
        for first in range(0, self.days, batch):
            table.append(_rows(first * self.tick_rows, self.tick_rows * batch, day=first, days=batch))

    def target(self, name: str, mode: Mode) -> str:
        """Create ``mart.<name>``, for what a mode's transform returns, by day."""
        target, schema = f"mart.{name}", SCHEMA if mode == "append" else _AGGREGATE
        self.catalog.create_table(target, schema=schema, partition_spec=BY_DAY, properties={"format-version": "2"})
        return target

    def copy(self, name: str) -> str:
        """Register the source once more, as ``raw.<name>``; what is appended there is not in the others."""
        original = self.catalog.load_table(self.original)
        return ".".join(self.catalog.register_table(f"raw.{name}", original.metadata_location).name())

    def tick(self, source: str) -> None:
        """Append what comes in a tick: the next day, and late rows of three days before."""
        late = int(self.tick_rows * _LATE_SHARE) // len(_LATE_BY)
        parts = [(self.days, self.tick_rows - late * len(_LATE_BY)), *((self.days - by, late) for by in _LATE_BY)]
        start, batches = self.rows, []
        for day, count in parts:
            batches.append(_rows(start, count, day=day, days=1))
            start += count
        self.catalog.load_table(source).append(pa.concat_tables(batches))

    def check(self, target: str, *, ticked: bool) -> None:
        """Assert that a target was made of all rows that there are in its source."""
        table = self.catalog.load_table(target)
        if "events" in table.schema().column_names:
            found = pc.sum(table.scan(selected_fields=("events",)).to_arrow()["events"]).as_py()
        else:
            found = table.scan().count()
        assert found == self.rows + (self.tick_rows if ticked else 0)

    def drop(self, source: str, target: str) -> None:
        """Drop a copy, whose files are also the others', and a target with its files."""
        place = Path(urlsplit(self.catalog.load_table(target).location()).path)
        for name in (source, target):
            self.catalog.drop_table(name)
        shutil.rmtree(place)


def _rows(first: int, count: int, *, day: int, days: int) -> pa.Table:
    """Return rows with ids from ``first``, in the order of their event times, which are spread evenly over days from ``day``."""
    start = int((_FIRST_DAY + dt.timedelta(days=day)).timestamp()) * 1_000_000
    step = days * 86_400_000_000 / count
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.sql(
            f"""
                SELECT i + {first} AS id, make_timestamptz(({start} + i * {step})::BIGINT) AS ts,
                    ['eu', 'us', 'ap'][(hash(i) % 3)::INT + 1] AS region, (hash(i + 7) % 1000)::BIGINT AS v
                FROM range({count}) AS numbers(i)
            """  # noqa: S608  (numbers)
        ).to_arrow_table()
