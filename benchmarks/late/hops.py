"""The chain: events, what a customer did on a day, where a customer stood after it, and where each stands now.

Every contender runs these texts, word for word. What differs is which rows the names in them stand for.
"""

from __future__ import annotations

import attrs
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.types import DateType, IntegerType, LongType, NestedField, PrimitiveType, TimestamptzType


def _schema(**columns: PrimitiveType) -> Schema:
    return Schema(*(NestedField(i, name, kind, required=False) for i, (name, kind) in enumerate(columns.items(), 1)))


def _by_day(schema: Schema, column: str) -> PartitionSpec:
    source = schema.find_field(column).field_id
    return PartitionSpec(
        PartitionField(source_id=source, field_id=1000, transform=DayTransform(), name=f"{column}_day")
    )


#: What arrives.
EVENTS = "raw.events"
EVENTS_SCHEMA = _schema(id=LongType(), ts=TimestamptzType(), customer_id=LongType(), amount=LongType())
EVENTS_BY_DAY = _by_day(EVENTS_SCHEMA, "ts")
#: Property of ``EVENTS``: up to which event time it counts as complete.
COMPLETE = "events.complete-through"


@attrs.frozen(kw_only=True)
class Hop:
    """One table of the chain and how it comes from the one before.

    :param source: name of the table before, in the SQL.
    :param source_table: its identifier.
    :param source_time: its event time.
    """

    name: str
    source: str
    source_table: str
    source_time: str
    schema: Schema = attrs.field(repr=False)
    sql: str = attrs.field(repr=False)

    @property
    def table(self) -> str:
        """Identifier of the table."""
        return f"mart.{self.name}"

    @property
    def event_time(self) -> str | None:
        """The column it is partitioned by, if it is."""
        return "day" if "day" in self.schema.column_names else None

    @property
    def spec(self) -> PartitionSpec:
        """How it is partitioned."""
        return _by_day(self.schema, "day") if self.event_time else PartitionSpec()

    @property
    def columns(self) -> str:
        """Its columns, for SQL."""
        return ", ".join(self.schema.column_names)


FACTS = Hop(
    name="facts",
    source="events",
    source_table=EVENTS,
    source_time="ts",
    schema=_schema(
        day=DateType(), customer_id=LongType(), events=LongType(), amount=LongType(), last_ts=TimestamptzType()
    ),
    sql="""
        SELECT ts::DATE AS day, customer_id, count(*) AS events, sum(amount)::BIGINT AS amount, max(ts) AS last_ts
        FROM events
        GROUP BY ALL
    """,
)

#: Depends on order: what a customer has after a day, and how long the customer had been away before it.
STATES = Hop(
    name="states",
    source="facts",
    source_table=FACTS.table,
    source_time="day",
    schema=_schema(
        day=DateType(),
        customer_id=LongType(),
        amount=LongType(),
        balance=LongType(),
        active_days=LongType(),
        days_away=IntegerType(),
    ),
    sql="""
        SELECT f.day, f.customer_id, f.amount,
            (coalesce(s.balance, 0) + sum(f.amount) OVER so_far)::BIGINT AS balance,
            coalesce(s.active_days, 0) + count(*) OVER so_far AS active_days,
            (f.day - coalesce(lag(f.day) OVER so_far, s.day))::INTEGER AS days_away
        FROM facts AS f LEFT JOIN state AS s ON s.customer_id = f.customer_id
        WINDOW so_far AS (PARTITION BY f.customer_id ORDER BY f.day)
    """,
)

CUSTOMERS = Hop(
    name="customers",
    source="states",
    source_table=STATES.table,
    source_time="day",
    schema=_schema(customer_id=LongType(), last_seen=DateType(), balance=LongType(), active_days=LongType()),
    sql="""
        SELECT customer_id, max(day) AS last_seen, arg_max(balance, day) AS balance,
            arg_max(active_days, day) AS active_days
        FROM states
        GROUP BY customer_id
    """,
)

HOPS = {hop.name: hop for hop in (FACTS, STATES, CUSTOMERS)}
