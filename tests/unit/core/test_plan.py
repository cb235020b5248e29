"""Plans: stored form, size limit, what people read."""

from __future__ import annotations

import datetime as dt

import attrs
import pytest

from airflow_incremental.core.errors import IncrementalError
from airflow_incremental.core.plan import PLAN_LIMIT, PLAN_VERSION, Owner, Plan, SourcePlan, new_session_id
from airflow_incremental.core.ranges import UTC, EventRanges, Grain, TimeRange
from airflow_incremental.core.watermark import SourcePosition, Watermark

T0 = dt.datetime(2024, 1, 1, tzinfo=UTC)
POSITION = SourcePosition(
    snapshot_id=5, sequence_number=2, committed_at=T0, table_uuid="u", latest_event=T0, complete_through=T0
)


def hours(*starts: int) -> EventRanges:
    hour = dt.timedelta(hours=1)
    return EventRanges(tuple(TimeRange(T0 + s * hour, T0 + (s + 1) * hour) for s in starts))


def plan(ranges: EventRanges) -> Plan:
    return Plan(
        process="p",
        session="20240101T000000-00000000",
        mode="overwrite",
        kind="load",
        reason="because",
        target="m.t",
        target_uuid="u",
        main=1,
        base_session=None,
        sources=(
            SourcePlan(
                name="s",
                table="r.s",
                base=None,
                pinned=POSITION,
                derivation="lineage",
                changed=ranges,
                rows_added=3,
                rows_late=1,
            ),
        ),
        replaced=ranges,
        affected=ranges,
        late=ranges.below(T0 + dt.timedelta(hours=3)),
        grain=Grain.HOUR,
        scope={"region": ("eu", None)},
        watermark=Watermark(positions={"s": POSITION}, complete_through=T0),
        owner=Owner(deployment="d", dag_id="dag", run_id="r", clear_number=2),
        created_at=T0,
    )


def test_a_plan_survives_its_stored_form() -> None:
    original = plan(hours(1, 2, 5))
    assert Plan.decode(original.encode()) == original
    no_scope = attrs.evolve(original, scope=None, grain=None)
    assert Plan.decode(no_scope.encode()) == no_scope


def test_a_plan_with_very_many_holes_is_widened_until_it_fits() -> None:
    scattered = EventRanges(
        tuple(r for r in hours(*range(0, 80_000, 2)).ranges if (r.start.day * 7 + r.start.hour) % 3)
    )
    fitted = plan(scattered).fitted()
    assert len(fitted.encode()) <= PLAN_LIMIT
    assert fitted.replaced.union(scattered) == fitted.replaced, "nothing that has to be computed is lost"
    assert fitted.affected.union(fitted.replaced) == fitted.affected


def test_two_thousand_ranges_are_replaced_exactly() -> None:
    """What lies between them may be rows that were adopted, which no source gives back."""
    scattered = hours(*range(0, 8_000, 4))
    large = attrs.evolve(plan(scattered), late=scattered)
    assert len(large.encode()) > PLAN_LIMIT
    fitted = large.fitted()
    assert len(fitted.encode()) <= PLAN_LIMIT
    assert fitted.replaced == scattered
    assert fitted.affected.union(scattered) == fitted.affected


def test_a_plan_of_another_version_is_refused() -> None:
    stored = {**plan(hours(1)).to_json(), "version": 99}
    with pytest.raises(IncrementalError, match=r"format version 99.*upgrade"):
        Plan.from_json(stored)


def test_a_plan_from_before_this_format_is_refused_with_a_way_out() -> None:
    stored = {**plan(hours(1)).to_json(), "version": 1}
    del stored["keys"]
    with pytest.raises(
        IncrementalError, match=rf"format version 1\..*version {PLAN_VERSION}.*session abandon m\.t p --reason"
    ):
        Plan.from_json(stored)


def test_what_people_read() -> None:
    text = plan(hours(1, 2, 5)).describe()
    assert "3 rows added" in text
    assert "1 late" in text
    assert (
        "replaces m.t: 2024-01-01T01:00:00Z/2024-01-01T03:00:00Z, 2024-01-01T05:00:00Z/2024-01-01T06:00:00Z (3 hours)"
        in text
    )
    assert "  late part: 2024-01-01T01:00:00Z/2024-01-01T03:00:00Z\n" in f"{text}\n"


def test_a_late_part_is_told_only_where_something_is_late() -> None:
    again = attrs.evolve(plan(hours(1)), kind="restatement")
    assert again.late
    assert "late part" not in again.describe(), "all that is computed again was there"
    added = attrs.evolve(plan(hours(1)), mode="append", replaced=EventRanges())
    assert "late part" in added.describe()
    in_time = attrs.evolve(added, sources=tuple(attrs.evolve(s, rows_late=0) for s in added.sources))
    assert "late part" not in in_time.describe(), "the unit had begun, and what came is after it"


def test_owners() -> None:
    owner = Owner(deployment="d", dag_id="dag", run_id="r", task_id="t", clear_number=1)
    assert owner.same_task(attrs.evolve(owner, clear_number=2))
    assert not owner.same_task(attrs.evolve(owner, map_index=1))
    nobody = Owner(deployment="d")
    assert not nobody.same_task(nobody), "nothing tells two callers without a run apart"
    assert Owner.from_json({**owner.to_json(), "from_the_future": 1}) == owner


def test_session_ids_sort_by_time_and_differ() -> None:
    assert new_session_id(T0) < new_session_id(T0 + dt.timedelta(seconds=1))
    assert new_session_id(T0) != new_session_id(T0)
