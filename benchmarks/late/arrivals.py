"""What arrives when: one generator, the same rows for the same seed, whoever reads them."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Mapping

import attrs
import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.iceberg.writer import write
from benchmarks.late.hops import COMPLETE, EVENTS, EVENTS_BY_DAY, EVENTS_SCHEMA

FIRST_DAY = dt.date(2024, 1, 1)
#: The farthest a row comes late, in days, and so how far a lookback has to reach.
LONGEST = 200
#: Share of the rows of a tick -> how many days late they are, evenly: of each row by itself.
MIX = {0.9: (0, 0), 0.08: (1, 2), 0.019: (3, 14), 0.001: (15, LONGEST)}
#: ``dense``: on how many days of the last 200 the late rows fall, tick by tick, over and over.
LEVELS = (0, 5, 10, 25, 50, 100, 200)
#: And how many of a tick's rows are late there.
DENSE_SHARE = 0.1
_DAY_MICROS = 86_400_000_000
_ROWS_AT_ONCE = 2_000_000

Delays = Callable[[np.random.Generator, int, int], "np.ndarray[tuple[int], np.dtype[np.int64]]"]


def _by_mix(rng: np.random.Generator, _tick: int, rows: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    spans = np.array(list(MIX.values()))[rng.choice(len(MIX), rows, p=list(MIX))]
    return rng.integers(spans[:, 0], spans[:, 1], endpoint=True)


def _none(_rng: np.random.Generator, _tick: int, rows: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.zeros(rows, dtype=np.int64)


def _dense(rng: np.random.Generator, tick: int, rows: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    delays = np.zeros(rows, dtype=np.int64)
    days = LEVELS[(tick - 1) % len(LEVELS)]
    if days:
        late = int(rows * DENSE_SHARE)
        delays[:late] = np.resize(rng.permutation(np.arange(1, LONGEST + 1))[:days], late)
    return delays


#: Name -> how many days late each row of a tick is.
LATE: Mapping[str, Delays] = {"mix": _by_mix, "none": _none, "dense": _dense}


@attrs.frozen(kw_only=True)
class Arrivals:
    """The events, as they come.

    :param history: days that are there, whole, before the first tick.
    :param daily_rows: rows a tick brings, and of each day before.
    :param late: one of ``LATE``.
    """

    history: int
    daily_rows: int
    late: str
    seed: int = 20240101

    @property
    def customers(self) -> int:
        """How many customers there are: five for each row of a day."""
        return 5 * self.daily_rows

    def day(self, tick: int) -> dt.date:
        """Return the day a tick ends; tick 0 ends the history."""
        return FIRST_DAY + dt.timedelta(days=self.history - 1 + tick)

    def of_tick(self, tick: int) -> pa.Table:
        """Return the rows of one tick: most of its day, the rest of days before."""
        rng = np.random.default_rng([self.seed, tick])
        delays = LATE[self.late](rng, tick, self.daily_rows)
        # No row is older than the table.
        return self._rows(rng, self.history - 1 + tick - np.minimum(delays, self.history - 1), self._first_id(tick))

    def of_history(self) -> Iterator[pa.Table]:
        """Yield the rows that are there before the first tick, some days at a time."""
        step = max(1, _ROWS_AT_ONCE // self.daily_rows)
        for start in range(0, self.history, step):
            days = np.repeat(np.arange(start, min(start + step, self.history)), self.daily_rows)
            rng = np.random.default_rng([self.seed, 0, start])
            yield self._rows(rng, days, start * self.daily_rows)

    def _first_id(self, tick: int) -> int:
        return (self.history - 1 + tick) * self.daily_rows

    def _rows(
        self, rng: np.random.Generator, days: np.ndarray[tuple[int], np.dtype[np.int64]], first_id: int
    ) -> pa.Table:
        """Return a row for each of the given days, in order of time as a landing zone would write them."""
        count = len(days)
        start = (FIRST_DAY - dt.date(1970, 1, 1)).days
        ts = np.sort((start + days) * _DAY_MICROS + rng.integers(0, _DAY_MICROS, count))
        # Some customers are seen every day, many hardly ever.
        who = (rng.random(count) ** 2 * self.customers).astype(np.int64)
        return pa.table(
            {
                "id": pa.array(np.arange(first_id, first_id + count), pa.int64()),
                "ts": pa.array(ts, pa.int64()).cast(pa.timestamp("us", "UTC")),
                "customer_id": pa.array(who, pa.int64()),
                "amount": pa.array(rng.integers(-5_000, 10_000, count), pa.int64()),
            }
        )


def make_events(catalog: Catalog, arrivals: Arrivals) -> Table:
    """Make the table of events with its history, a file for each day."""
    table = catalog.create_table(EVENTS, schema=EVENTS_SCHEMA, partition_spec=EVENTS_BY_DAY)
    for rows in arrivals.of_history():
        arrive(table, rows, through=arrivals.day(0))
    return table


def arrive(table: Table, rows: pa.Table, *, through: dt.date) -> int:
    """Append rows, say that the day ``through`` is over, and return on how many days they fall."""
    files = write(table, rows.to_reader(), write_id=uuid.uuid4(), check=None).files
    with table.transaction() as transaction:
        with transaction.update_snapshot().fast_append() as append:
            for file in files:
                append.append_data_file(file)
        transaction.set_properties({COMPLETE: (through + dt.timedelta(days=1)).isoformat()})
    return len({file.partition[0] for file in files})
