"""What a session takes on of the pending work, and what the thresholds leave for later."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core.errors import ArgumentError, WorkCutOff
from airflow_incremental.core.ranges import UTC, EventRanges, Grain, TimeRange
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.core.thresholds import SKIPPED_RANGES, Share, Thresholds
from airflow_incremental.core.watermark import SourcePosition, Watermark

DAY = dt.datetime(2024, 1, 1, tzinfo=UTC)


def hour(n: int) -> dt.datetime:
    return DAY + dt.timedelta(hours=n)


def hours(*ns: int, nulls: bool = False) -> EventRanges:
    return EventRanges(tuple(TimeRange(hour(n), hour(n + 1)) for n in ns), nulls=nulls)


def numbers(ranges: EventRanges) -> list[int]:
    return [(u.start - DAY) // dt.timedelta(hours=1) for r in ranges.ranges for u in r.units(Grain.HOUR)]


def spec(**changes: Any) -> ProcessSpec:
    values: dict[str, Any] = {
        "process": "p",
        "sources": {"s": IcebergSource("raw.s", event_time="ts")},
        "target": IcebergTarget("mart.t", event_time="ts"),
        "mode": "overwrite",
    }
    return ProcessSpec(**{**values, **changes})


def limits(
    *, since: int | None = None, budget: int | None = None, keep: bool = True, exact: bool = False
) -> Thresholds:
    return Thresholds(
        process="p",
        grain=Grain.HOUR,
        since=None if since is None else hour(since),
        budget=budget,
        max_lookback=dt.timedelta(hours=3),
        on_skipped="keep" if keep else "fail",
        exact=exact,
    )


def parts(share: Share) -> tuple[list[int], list[int], list[int]]:
    return numbers(share.now), numbers(share.old), numbers(share.beyond)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (limits(), ([1, 2, 5, 8, 9], [], [])),
        (limits(since=2), ([2, 5, 8, 9], [1], [])),
        (limits(budget=3), ([5, 8, 9], [], [1, 2])),
        (limits(since=2, budget=1), ([9], [1], [2, 5, 8])),
        (limits(since=10), ([], [1, 2, 5, 8, 9], [])),
    ],
)
def test_units_by_themselves(threshold: Thresholds, expected: Any) -> None:
    assert parts(threshold.of_set(hours(1, 2, 5, 8, 9))) == expected


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (limits(), ([2, 3, 4, 5, 6, 7], [], [])),
        (limits(since=3), ([5, 6, 7], [2], [])),
        (limits(budget=2), ([2, 3], [], [4, 5, 6, 7])),
        (limits(since=3, budget=2), ([5, 6], [2], [7])),
        (limits(since=6), ([], [2, 5], [])),
    ],
)
def test_units_in_order(threshold: Thresholds, expected: Any) -> None:
    assert parts(threshold.in_order(hours(2, 5), hour(8))) == expected


def test_rows_without_event_time_are_one_unit_and_not_old() -> None:
    share = limits(since=5, budget=1).of_set(hours(1, 7, nulls=True))
    assert share.now == hours(nulls=True)
    assert parts(share) == ([], [1], [7])


def test_months() -> None:
    year = EventRanges((TimeRange(dt.datetime(2024, 1, 1, tzinfo=UTC), dt.datetime(2025, 1, 1, tzinfo=UTC)),))
    monthly = attrs.evolve(limits(budget=2), grain=Grain.MONTH)
    assert monthly.of_set(year).now.to_json() == ["2024-11-01T00:00:00Z/2025-01-01T00:00:00Z"]
    end = dt.datetime(2025, 1, 1, tzinfo=UTC)
    assert monthly.in_order(year, end).now.to_json() == ["2024-01-01T00:00:00Z/2024-03-01T00:00:00Z"]


@given(
    st.sets(st.integers(0, 40)),
    st.none() | st.integers(0, 45),
    st.none() | st.integers(1, 8),
    st.booleans(),
)
def test_nothing_is_lost(units: set[int], since: int | None, budget: int | None, ordered: bool) -> None:
    work, threshold = hours(*units), limits(since=since, budget=budget)
    share = threshold.in_order(work, hour(41)) if ordered else threshold.of_set(work)
    now, old, beyond = map(set, parts(share))
    assert len(now) + len(old) + len(beyond) == len(now | old | beyond)
    assert units <= now | old | beyond
    assert ordered or units == now | old | beyond
    assert budget is None or len(now) <= budget
    assert bool(now) == any(since is None or u >= since for u in units)
    assert now | old | beyond <= set(numbers(threshold.kept(share))) | now


def test_since_when() -> None:
    def since(before: dt.datetime | None, lookback: Any) -> dt.datetime | None:
        return Thresholds.of(spec(max_lookback=lookback), before=before, grain=Grain.HOUR).since

    assert since(hour(9), dt.timedelta(hours=2)) == hour(7)
    assert since(hour(9), dt.timedelta(minutes=90)) == hour(7), "a unit that is not wholly older stays in"
    assert since(hour(9), 0) == hour(9)
    assert since(None, 0) is None, "on a first run nothing is too old"
    assert since(hour(9), dt.timedelta(days=900_000)) is None, "before the beginning of time"


class TestWhatIsKept:
    def test_what_is_pending_by_itself_is_not(self) -> None:
        share = limits(budget=2).in_order(hours(2), hour(8))
        assert numbers(limits().kept(share, below=hour(6))) == [4, 5]

    def test_many_ranges_are_joined_where_the_gaps_are_small(self) -> None:
        scattered = hours(*(n * 10 for n in range(SKIPPED_RANGES)), 1_000, 1_002)
        kept = limits().kept(Share(old=scattered))
        assert len(kept.ranges) == SKIPPED_RANGES
        assert kept.covers(TimeRange(hour(1_000), hour(1_003)))
        assert kept.union(scattered) == kept

    def test_not_around_rows_that_were_adopted(self) -> None:
        few, many = hours(*range(0, 2 * SKIPPED_RANGES, 2)), hours(*range(0, 2 * SKIPPED_RANGES + 2, 2))
        assert limits(exact=True).kept(Share(old=few)) == few
        with pytest.raises(WorkCutOff, match=r"13 separate ranges .* adopted with would be lost"):
            limits(exact=True).kept(Share(old=many))
        assert Thresholds.of(spec(initial={"adopt": "all"}), before=None, grain=Grain.HOUR).exact

    def test_a_property_with_three_sources_holds_it(self) -> None:
        position = SourcePosition(
            snapshot_id=2**63 - 1,
            sequence_number=10**6,
            committed_at=DAY + dt.timedelta(microseconds=1),
            table_uuid="6f1c2a9e-8d0b-4f66-9a53-0d7f7c1b2a3e",
            latest_event=DAY + dt.timedelta(microseconds=1),
            complete_through=DAY,
            event_field=12,
        )
        kept = limits().kept(Share(old=hours(*range(0, 900, 9))))
        found = Watermark(positions={f"source_{n}": position for n in range(3)}, processed_through=DAY, skipped=kept)
        assert len(found.dumps()) < 2048 - 300, "with who published it"
        assert Watermark.from_json(found.to_json()) == found

    def test_failing_says_what_and_how_much(self) -> None:
        share = limits(since=3, budget=1).of_set(hours(1, 4, 6, 7))
        with pytest.raises(WorkCutOff) as refused:
            limits(since=3, budget=1, keep=False).kept(share)
        text = str(refused.value)
        assert text.startswith(
            "a threshold would cut off pending work of process 'p': 1 hour older than max_lookback=3:00:00"
        )
        assert "before 2024-01-01T03:00:00Z (2024-01-01T01:00:00Z/2024-01-01T02:00:00Z)" in text
        assert "and 2 hours more than budget=1 (2024-01-01T04:00:00Z/2024-01-01T05:00:00Z" in text
        assert "nothing was changed" in text
        assert "set on_skipped='keep'" in text
        assert not refused.value.retryable


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 0}, "budget is 0.*whole number from 1"),
        ({"budget": True}, "budget is True"),
        ({"budget": 1.5}, r"budget is 1\.5"),
        ({"budget": "many"}, "budget is 'many'"),
        ({"max_lookback": dt.timedelta(-1)}, r"max_lookback is datetime\.timedelta\(days=-1\).*0 or more"),
        ({"max_lookback": "3 days"}, "max_lookback is '3 days'.*a timedelta, or seconds"),
        ({"max_lookback": True}, "max_lookback is True"),
        ({"on_skipped": "ignore"}, "on_skipped is 'ignore'.*'fail', 'keep'"),
        ({"mode": "append", "budget": 3}, "mode='append' and budget='3'.*leave budget out"),
        ({"mode": "append", "max_lookback": 3600}, "mode='append' and max_lookback='1:00:00'"),
        ({"mode": "merge", "keys": ["id"], "budget": 3}, "mode='merge' and budget='3'"),
        ({"mode": "append", "on_skipped": "keep"}, "mode='append' and on_skipped='keep'"),
    ],
)
def test_bad_declarations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        spec(**changes)


def test_templates_wait_and_are_read_as_text() -> None:
    templates = {"max_lookback": "{{ params.l }}", "budget": "{{ params.b }}", "on_skipped": "{{ params.s }}"}
    found = spec(**templates)
    assert (found.max_lookback, found.budget, found.on_skipped) == tuple(templates.values())
    assert spec(mode="{{ params.mode }}", budget=3).budget == 3
    rendered = spec(max_lookback="5400", budget="7", on_skipped="keep")
    assert (rendered.max_lookback, rendered.budget) == (dt.timedelta(minutes=90), 7)
