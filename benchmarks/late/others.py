"""What people do without knowing what changed: compute everything, compute the last days, or merge what is new by its key."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import attrs
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io.pyarrow import schema_to_pyarrow

from airflow_incremental.core.ranges import MIN_TIME, EventRanges, TimeRange
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.core.stateful import STATE, State
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.engines.latest import state_query
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import position_of
from airflow_incremental.iceberg.reads import read_files
from benchmarks.late.hops import CUSTOMERS, EVENTS, FACTS, STATES, Hop
from benchmarks.late.place import Place, days, given

_FRESH = "fresh"
_LATEST = State(kind="latest_by", keys=("customer_id",))


def _schema(hop: Hop) -> pa.Schema:
    return schema_to_pyarrow(hop.schema, include_field_ids=False)


def _upserted(hop: Hop, key: str) -> str:
    """Return SQL for a hop's rows with the fresh ones in place of those of the same key."""
    return f"SELECT {hop.columns} FROM {_FRESH} UNION ALL (SELECT {hop.columns} FROM {hop.name} ANTI JOIN {_FRESH} USING ({key}))"  # noqa: S608


@attrs.frozen(kw_only=True)
class Window:
    """Compute the last days again, whatever changed: a full refresh, or a fixed lookback as in dbt's and SQLMesh's.

    ``facts`` and ``states`` replace the partitions of the window; ``states`` starts from each customer's row before it, and
    ``customers`` takes the window's customers and replaces their rows. Right as long as nothing comes later than the window is
    long.

    :param back: days before the newest that are computed, too; None is everything.
    """

    place: Place
    back: int | None

    def load(self, hop: Hop, day: dt.date) -> None:
        """Bring a hop up to date, on a day."""
        first_load = self.place.catalog.load_table(hop.table).current_snapshot() is None
        keep = None if self.back is None or first_load else days(day - dt.timedelta(days=self.back), day)
        reads = [self.place.source(hop, keep)]
        if hop is STATES:
            reads.append(given(STATE, self._before(keep)))
        if hop is CUSTOMERS and keep is not None:
            upsert(self.place, hop, self.place.rows(hop.sql, reads, _schema(hop)), key="customer_id", keep=None)
            return
        with self.place.running(hop, hop.sql, reads) as batches:
            self.place.replace(hop, batches, keep)

    def _before(self, keep: EventRanges | None) -> pa.Table:
        """Return the last row of each customer before the window, as the package makes its state."""
        schema = _schema(STATES)
        if keep is None:
            return schema.empty_table()
        history = EventRanges((TimeRange(MIN_TIME, keep.ranges[0].start),))
        query = state_query(_LATEST, schema, "day", None)
        return self.place.rows(query, [self.place.own(STATES, STATE, history)], schema)


def upsert(place: Place, hop: Hop, fresh: pa.Table, *, key: str, keep: EventRanges | None) -> None:
    """Replace rows by key; copy on write, so all rows of ``keep`` (None: of the table) are read and written."""
    with place.running(hop, _upserted(hop, key), [given(_FRESH, fresh), place.own(hop, hop.name, keep)]) as batches:
        place.replace(hop, batches, keep)


@attrs.define(kw_only=True)
class Merge:
    """MERGE what is new by its key; each hop hands the next the rows it made of it.

    * ``facts``: counts and sums of the new events are *added* to the rows of the same customer and day. Reads the least there is
      to read. Right as long as every event is delivered exactly once and none is ever corrected or removed: the table cannot
      tell, so a load that is retried counts twice.
    * ``states``: the new amounts on top of where each customer stands now, inserted or updated by customer and day. Right for
      the newest day. Wrong for late rows: the state before a late day is not the state of now, and the days after the late one,
      which all change, are not among the keys that are merged.
    * ``customers``: replaced by ``customer_id``, with the greatest day. Balances are right, since sums do not depend on order;
      ``active_days`` counts a day again for every time rows of it came.
    """

    place: Place
    _consumed: SourcePosition | None = None
    _delta: pa.Table = attrs.field(init=False)

    def load(self, hop: Hop, day: dt.date) -> None:
        """Bring a hop up to date, on a day."""
        if self.place.catalog.load_table(hop.table).current_snapshot() is None:
            Window(place=self.place, back=None).load(hop, day)
            if hop is FACTS:
                self._new_events()
            return
        steps: dict[str, Callable[[], None]] = {
            FACTS.name: self._facts,
            STATES.name: self._states,
            CUSTOMERS.name: self._customers,
        }
        steps[hop.name]()

    def _facts(self) -> None:
        self._delta = self.place.rows(FACTS.sql, [self._new_events()], _schema(FACTS))
        keep = self._touched()
        merged = f"""
            SELECT day, customer_id, coalesce(f.events, 0) + coalesce(n.events, 0) AS events,
                coalesce(f.amount, 0) + coalesce(n.amount, 0) AS amount, greatest(f.last_ts, n.last_ts) AS last_ts
            FROM facts AS f FULL JOIN {_FRESH} AS n USING (day, customer_id)
        """  # noqa: S608  (a constant)
        reads = [given(_FRESH, self._delta), self.place.own(FACTS, "facts", keep)]
        with self.place.running(FACTS, merged, reads) as batches:
            self.place.replace(FACTS, batches, keep)

    def _states(self) -> None:
        now = "SELECT last_seen AS day, customer_id, 0::BIGINT AS amount, balance, active_days, NULL::INTEGER AS days_away FROM now"
        state = self.place.rows(now, [self.place.own(CUSTOMERS, "now", None)], _schema(STATES))
        keep = self._touched()
        self._delta = self.place.rows(STATES.sql, [given("facts", self._delta), given(STATE, state)], _schema(STATES))
        upsert(self.place, STATES, self._delta, key="day, customer_id", keep=keep)

    def _customers(self) -> None:
        latest = f"""
            SELECT customer_id, greatest(c.last_seen, n.last_seen) AS last_seen, n.balance, n.active_days
            FROM ({CUSTOMERS.sql}) AS n LEFT JOIN now AS c USING (customer_id)
        """  # noqa: S608  (a constant)
        reads = [given("states", self._delta), self.place.own(CUSTOMERS, "now", None)]
        fresh = self.place.rows(latest, reads, _schema(CUSTOMERS))
        upsert(self.place, CUSTOMERS, fresh, key="customer_id", keep=None)

    def _new_events(self) -> SourceRead:
        """Return the events added since the last tick, found as cheaply as it can be done."""
        table = self.place.catalog.load_table(EVENTS)
        head = table.current_snapshot()
        assert head is not None
        changes = detect(table, self._consumed, head.snapshot_id, event_time="ts", mode="append")
        self._consumed = position_of(table, head)
        return read_files(table, "events", [change.handle for change in changes.added], event_time="ts")

    def _touched(self) -> EventRanges:
        """Return the days the new rows fall on."""
        found = pc.unique(self._delta["day"]).to_pylist()
        return EventRanges.union_of(days(day, day) for day in found)
