"""late-bench is fair: the rows are the ones it says, what is wrong is seen, and what is counted is what was read."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.histories import new_catalog
from benchmarks.late.arrivals import FIRST_DAY, LEVELS, Arrivals, arrive, make_events
from benchmarks.late.truth import Truth
from benchmarks.late.worker import Spent, Worker


def delays(arrivals: Arrivals, tick: int) -> Counter[int]:
    """How many days late the rows of a tick are."""
    came = pc.cast(pc.floor_temporal(arrivals.of_tick(tick)["ts"], unit="day"), pa.date32()).to_pylist()
    return Counter((arrivals.day(tick) - day).days for day in came)


def share(found: Counter[int], first: int, last: int) -> float:
    return sum(count for days_late, count in found.items() if first <= days_late <= last) / sum(found.values())


def test_rows_come_as_late_as_the_mix_says() -> None:
    found = delays(Arrivals(history=365, daily_rows=200_000, late="mix"), 3)
    assert sum(found.values()) == 200_000
    assert share(found, 0, 0) == pytest.approx(0.9, abs=0.005)
    assert share(found, 1, 2) == pytest.approx(0.08, abs=0.005)
    assert share(found, 3, 14) == pytest.approx(0.019, abs=0.002)
    assert share(found, 15, 200) == pytest.approx(0.001, abs=0.0003)
    assert max(found) <= 200


def test_nothing_is_late_without_late_rows() -> None:
    assert delays(Arrivals(history=10, daily_rows=500, late="none"), 1) == {0: 500}


def test_late_rows_fall_on_ever_more_days() -> None:
    arrivals = Arrivals(history=365, daily_rows=2_000, late="dense")
    assert [len(delays(arrivals, tick)) - 1 for tick in range(1, len(LEVELS) + 1)] == list(LEVELS)


def test_rows_are_the_same_for_everybody_and_new_in_every_tick() -> None:
    arrivals = Arrivals(history=30, daily_rows=100, late="mix")
    assert arrivals.of_tick(2).equals(arrivals.of_tick(2))
    ids = [*(rows["id"] for rows in arrivals.of_history()), *(arrivals.of_tick(tick)["id"] for tick in (1, 2))]
    found = sorted(i for column in ids for i in column.to_pylist())
    assert found == list(range(32 * 100))


class Chain:
    """A contender with its tables, the events, and what the tables should hold."""

    def __init__(self, home: Path, contender: str, *, history: int = 5) -> None:
        self.home = home
        self.arrivals = Arrivals(history=history, daily_rows=50, late="mix")
        self.events = make_events(new_catalog(home / "events"), self.arrivals)
        self.truth = Truth.at(home / "truth", None)
        self.worker = Worker(name=contender, home=home / "tables", memory_limit=None)

    def arrive(self, *rows: tuple[int, int]) -> None:
        """Let rows come: day and amount."""
        start = dt.datetime.combine(FIRST_DAY, dt.time(), dt.timezone.utc)
        table = pa.table(
            {
                "id": pa.array([10_000 + i for i in range(len(rows))], pa.int64()),
                "ts": pa.array([start + dt.timedelta(days=day) for day, _ in rows], pa.timestamp("us", "UTC")),
                "customer_id": pa.array([7] * len(rows), pa.int64()),
                "amount": pa.array([amount for _, amount in rows], pa.int64()),
            }
        )
        arrive(self.events, table, through=self.arrivals.day(1))

    def tick(self, number: int) -> dict[str, Spent]:
        found = self.worker.tick(self.events.metadata_location, self.arrivals.day(number))
        assert found.peak_mib > 50
        return {spent.hop: spent for spent in found.hops}

    def wrong(self, spent: dict[str, Spent]) -> dict[str, int]:
        self.truth.compute(self.events)
        return {hop: self.truth.wrong(hop, found.files) for hop, found in spent.items()}


@pytest.fixture
def chain(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Chain]:
    made = Chain(tmp_path, request.param)
    yield made
    made.truth.con.close()


@pytest.mark.parametrize("chain", ["lookback 1"], indirect=True)
def test_what_is_wrong_is_seen(chain: Chain) -> None:
    first = chain.tick(0)
    assert chain.wrong(first) == {"facts": 0, "states": 0, "customers": 0}
    chain.arrive((5, 1), (4, 1), (1, 1))
    # Not loaded: three days differ, one of which is not there at all; where the customer stands has changed since the first.
    stale = chain.wrong(first)
    assert stale["facts"] == 3
    assert 3 <= stale["states"] <= 5
    assert stale["customers"] == 1
    # The window does not reach back to day 1, so the days after it do not know of it either.
    late = chain.wrong(chain.tick(1))
    assert late["facts"] == 1
    assert late["states"] >= 3
    assert late["customers"] == 1


@pytest.mark.parametrize("chain", ["full"], indirect=True)
def test_what_is_counted_is_what_there_is(chain: Chain) -> None:
    chain.tick(0)
    chain.arrive((5, 1), (1, 1))
    spent = chain.tick(1)
    assert chain.wrong(spent) == {"facts": 0, "states": 0, "customers": 0}
    assert spent["facts"].rows_read == 5 * 50 + 2
    assert spent["facts"].files_read == 5 + 2
    assert spent["facts"].partitions_rewritten == spent["states"].partitions_rewritten == 6
    assert spent["facts"].rows_written == spent["states"].rows_read == spent["states"].rows_written
    assert 0 < spent["facts"].engine_s < spent["facts"].wall_s


@pytest.mark.parametrize("chain", ["ours", "lookback 200"], indirect=True)
def test_replaced_files_are_removed_and_no_others(chain: Chain) -> None:
    chain.tick(0)
    chain.arrive((5, 1), (1, 1))
    live = {path.removeprefix("file://") for spent in chain.tick(1).values() for path in spent.files}
    assert live == {str(path) for path in (chain.home / "tables").rglob("*.parquet")}


@pytest.mark.parametrize("chain", ["ours"], indirect=True)
def test_the_package_reads_the_days_that_changed(chain: Chain) -> None:
    chain.tick(0)
    chain.arrive((5, 1), (3, 1))
    spent = chain.tick(1)
    assert set(chain.wrong(spent).values()) == {0}
    assert spent["facts"].rows_read == 50 + 2
    assert spent["facts"].partitions_rewritten == 2
    assert spent["states"].partitions_rewritten == 3
    assert spent["customers"].rows_written > 1


@pytest.mark.parametrize("chain", ["merge"], indirect=True)
def test_merging_adds_to_late_days_and_forgets_the_days_after_them(chain: Chain) -> None:
    chain.tick(0)
    chain.arrive((5, 1), (1, 1))
    spent = chain.tick(1)
    assert spent["facts"].rows_read < 50 + 2 + 4
    wrong = chain.wrong(spent)
    assert wrong["facts"] == 0
    assert wrong["states"] > 0
