"""``catch_up="missed"``: of a table that is computed as far as all is complete, only the units that changed, and the new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_incremental.core.errors import ArgumentError, TransformError
from airflow_incremental.core.ranges import EventRanges, TimeRange
from airflow_incremental.core.stateful import pending
from airflow_incremental.sessions import steps
from tests.support.balances import SUMS, Sums, planned, shown
from tests.support.world import hour


def hours(*ns: int) -> EventRanges:
    return EventRanges(tuple(TimeRange(hour(n), hour(n + 1)) for n in ns))


@pytest.mark.parametrize(
    ("affected", "complete", "processed", "expected"),
    [
        (hours(2, 4), 7, 7, ["2-3", "4-5"]),
        (hours(2, 7), 9, 7, ["2-3", "7-9"]),
        (hours(2, 8), 7, 7, ["2-3"]),
        (hours(3, 6), 5, 7, ["3-4", "6-7"]),
        (hours(), 8, 7, ["7-8"]),
        (hours(1, 4), 6, None, ["1-6"]),
        (hours(4), None, None, []),
    ],
)
def test_what_is_pending(affected: EventRanges, complete: int | None, processed: int | None, expected: Any) -> None:
    found = pending(
        affected,
        complete=None if complete is None else hour(complete),
        processed=None if processed is None else hour(processed),
    )
    assert shown(found) == expected


@pytest.mark.parametrize("step", [None, "hour"])
def test_only_what_was_missed_is_computed(tmp_path: Path, step: str | None) -> None:
    world = Sums(home=tmp_path, step=step).set_up()
    world.land(0.5, 1.5, 2.5, 5.5, 6)
    world.tick()
    world.verify()
    before = {f.file.file_path for f in world.target.scan().plan_files()}
    world.land(1.75, 4.5, 8)
    assert planned(world) == ["1-2", "4-5", "6-8"]
    world.tick()
    world.verify()
    assert len(before & {f.file.file_path for f in world.target.scan().plan_files()}) == 3, "hours 0, 2 and 5 stay"


def test_a_cleared_run_computes_what_it_wrote_and_no_more(tmp_path: Path) -> None:
    world = Sums(home=tmp_path).set_up()
    world.land(0.5, 1.5, 2)
    steps.run(world.process("first"))
    world.land(0.75, 5)
    steps.run(world.process("second"))
    finished = steps.run(world.process("first", clear_number=1))
    assert finished.plan is not None
    assert (finished.plan.kind, shown(finished.plan.replaced)) == ("restatement", ["0-2"])
    world.verify()


def test_rows_between_the_ranges(tmp_path: Path) -> None:
    world = Sums(home=tmp_path).set_up()
    world.land(0.5, 1.5, 2.5, 3)
    world.tick()
    world.land(0.75, 2.75)
    before = world.target_rows()
    with pytest.raises(TransformError, match="outside the planned ranges"):
        steps.run(world.process(transform=SUMS.replace("AS ts,", "+ INTERVAL 1 HOUR AS ts,")))
    assert world.target_rows() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": "previous_step"}, "catch_up='missed' and state='previous_step'.*leave state out"),
        ({"state": "{{ params.state }}"}, r"catch_up='missed' and state='\{\{ params.state"),
        ({"mode": "overwrite"}, "has mode='overwrite' and catch_up='missed'"),
        ({"catch_up": "some"}, "catch_up is 'some'.*'whole_range', 'missed'"),
    ],
)
def test_bad_declarations(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        attrs.evolve(Sums(home=tmp_path).spec, **changes)


@settings(max_examples=8)
@given(st.lists(st.lists(st.integers(0, 30), max_size=4), min_size=2, max_size=5), st.sampled_from(["hour", "day"]))
def test_after_every_tick_the_target_is_the_recompute(
    tmp_path_factory: pytest.TempPathFactory, ticks: list[list[int]], unit: str
) -> None:
    world = Sums(home=tmp_path_factory.mktemp("missed"), unit=unit).set_up()
    for rows in ticks:
        for h in rows:
            world.land(h + 0.5)
        world.tick()
        world.verify()
