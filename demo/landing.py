"""The landing table: a local Iceberg catalog, and what a feed does to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import load_catalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, HourTransform
from pyiceberg.types import DoubleType, IntegerType, LongType, NestedField, StringType, TimestamptzType

if TYPE_CHECKING:
    from pathlib import Path

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from demo.flights import Tick

#: Airflow connection under which most DAGs find their catalog.
CONNECTION_ID = "iceberg_default"
#: Where flights land.
SOURCE = "raw.flights"
#: What is known of each aircraft.
PLANES = "raw.planes"
#: Where each aircraft is after each leg.
AIRCRAFT_STATE = "mart.aircraft_state"

_INTEGERS = {"flight", "dep_delay", "arr_delay", "air_time", "distance"}
_TIMES = {"time_hour", "sched_dep", "landed_at"}
_COLUMNS = (
    *("flight_key", "time_hour", "sched_dep", "carrier", "flight", "tailnum", "origin", "dest"),
    *("dep_delay", "arr_delay", "air_time", "distance", "landed_at"),
)


def _column(position: int, name: str) -> NestedField:
    kind = IntegerType() if name in _INTEGERS else TimestamptzType() if name in _TIMES else StringType()
    # All columns are optional: a landing table takes what the feed sends, and audits decide what is good enough.
    return NestedField(field_id=position, name=name, field_type=kind, required=False)


SCHEMA = Schema(*(_column(i, name) for i, name in enumerate(_COLUMNS, start=1)))

#: By day of arrival, because that is what a feed can do: it appends what it got today, and old days are dropped whole
#: when their retention ends. So a file's partition says nothing about the event times in it, and one flight that is a
#: day late widens the file's bounds over hours of which it holds no row.
PARTITIONING = PartitionSpec(
    PartitionField(
        source_id=SCHEMA.find_field("landed_at").field_id, field_id=1000, transform=DayTransform(), name="landed_day"
    )
)


@attrs.frozen
class Lakehouse:
    """A catalog in a SQL database and a warehouse in a folder; or what a REST catalog server has.

    :param folder: absolute folder of the warehouse; made when it is missing.
    :param uri: SQLAlchemy URL of the catalog's database, or address of the server, which knows its warehouse itself; default is
        a SQLite file in the folder.
    :param connection_id: Airflow connection under which DAGs find the catalog.
    """

    folder: Path
    uri: str | None = None
    connection_id: str = CONNECTION_ID

    @property
    def properties(self) -> dict[str, str]:
        """Return the properties of the catalog, as pyiceberg takes them."""
        if self.uri is not None and self.uri.startswith("http"):
            return {"type": "rest", "uri": self.uri}
        return {
            "type": "sql",
            "uri": self.uri or f"sqlite:///{self.folder / 'catalog.db'}",
            "warehouse": (self.folder / "warehouse").as_uri(),
        }

    def catalog(self) -> Catalog:
        """Open the catalog, making it on first use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # A SQL catalog keeps its tables under the catalog's name, and Airflow's hook opens it under the name of the
        # connection.
        return load_catalog(self.connection_id, **self.properties)

    def connection(self) -> dict[str, str]:
        """Return the environment variable that makes the catalog an Airflow connection of type ``iceberg``.

        Everything is in the connection's extra. Its host must stay empty: the provider's hook puts it in place of
        ``uri``.
        """
        return {
            f"AIRFLOW_CONN_{self.connection_id.upper()}": json.dumps({"conn_type": "iceberg", "extra": self.properties})
        }


def create_source(catalog: Catalog, identifier: str = SOURCE) -> Table:
    """Create an empty landing table for flights, and its namespace."""
    catalog.create_namespace_if_not_exists(identifier.rpartition(".")[0])
    return catalog.create_table(identifier, schema=SCHEMA, partition_spec=PARTITIONING)


def create_planes(catalog: Catalog, planes: pa.Table, identifier: str = PLANES) -> Table:
    """Create the table of what is known of each aircraft, and its namespace, and fill it."""
    catalog.create_namespace_if_not_exists(identifier.rpartition(".")[0])
    table = catalog.create_table(identifier, schema=planes.schema)
    table.append(planes)
    return table


def create_aircraft_state(catalog: Catalog, identifier: str = AIRCRAFT_STATE) -> Table:
    """Create the empty table of ``aircraft_state``, and its namespace.

    The other targets are made by their first load. This one is read by its own transform, as the state, so its columns have to be
    known before.
    """
    schema = Schema(
        NestedField(1, "tailnum", StringType()),
        NestedField(2, "sched_dep", TimestamptzType()),
        NestedField(3, "legs", LongType()),
        NestedField(4, "flight_key", StringType()),
        NestedField(5, "airport", StringType()),
        NestedField(6, "delay", IntegerType()),
        NestedField(7, "carried_delay", IntegerType()),
    )
    return _create_by_hour(catalog, identifier, schema, "sched_dep")


def create_flight_fact(catalog: Catalog, identifier: str = "mart.flight_fact") -> Table:
    """Create the empty fact table, and its namespace, for a load that does not: what Spark returns is known when it has run."""
    names = (*_COLUMNS[:-1], "outcome", _COLUMNS[-1])
    return _create_by_hour(
        catalog, identifier, Schema(*(_column(i, name) for i, name in enumerate(names, start=1))), "time_hour"
    )


def create_hourly_departures(catalog: Catalog, identifier: str = "mart.hourly_departures") -> Table:
    """Create the empty table of departures per airport and hour, and its namespace, as ``create_flight_fact`` does."""
    schema = Schema(
        NestedField(1, "time_hour", TimestamptzType()),
        NestedField(2, "origin", StringType()),
        NestedField(3, "departures", LongType()),
        NestedField(4, "cancellations", LongType()),
        NestedField(5, "late_departures", LongType()),
        NestedField(6, "mean_delay", DoubleType()),
    )
    return _create_by_hour(catalog, identifier, schema, "time_hour")


def _create_by_hour(catalog: Catalog, identifier: str, schema: Schema, column: str) -> Table:
    catalog.create_namespace_if_not_exists(identifier.rpartition(".")[0])
    source_id = schema.find_field(column).field_id
    by_hour = PartitionField(source_id=source_id, field_id=1000, transform=HourTransform(), name=f"{column}_hour")
    return catalog.create_table(identifier, schema=schema, partition_spec=PartitionSpec(by_hour))


def land(catalog: Catalog, rows: pa.Table, identifier: str = SOURCE) -> None:
    """Append rows to the landing table: one commit, as a feed makes per delivery."""
    catalog.load_table(identifier).append(rows)


def deliver_again(catalog: Catalog, tick: Tick, identifier: str = SOURCE) -> None:
    """Replace a delivery by a corrected one, in one commit: what a feed does after it has sent rubbish.

    What the delivery had brought is recognised by the landing time, so the files of the bad delivery go whole, no other
    file is rewritten, and doing it twice changes nothing.
    """
    delivered = f"landed_at >= '{tick.start.isoformat()}' and landed_at < '{tick.end.isoformat()}'"
    catalog.load_table(identifier).overwrite(tick.rows, overwrite_filter=delivered)


def spoil(rows: pa.Table, every: int = 50) -> tuple[pa.Table, int]:
    """Return rows as a broken feed would send them, and how many are wrong.

    Wrong rows have no carrier, no delay, and a distance below zero.

    :param every: each ``every``-th row, from the first, is spoiled.
    """
    wrong = pa.array([i % every == 0 for i in range(rows.num_rows)])
    broken = {
        "carrier": pa.scalar(None, pa.string()),
        "dep_delay": pa.scalar(None, pa.int32()),
        "distance": pc.negate(rows["distance"]),
    }
    for name, value in broken.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, pc.if_else(wrong, value, rows[name]))
    return rows, pc.sum(wrong).as_py()
