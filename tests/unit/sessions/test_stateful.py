"""Stateful sessions: everything from the first change on is computed again, on the state before it, as far as all is complete."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.types import StringType

from airflow_incremental.core.errors import TargetChanged
from airflow_incremental.core.plan import Plan
from airflow_incremental.engines import duckdb
from airflow_incremental.iceberg.state import process_of, published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import draft, plan
from airflow_incremental.sessions.process import Session
from tests.support.balances import BALANCES, Balances
from tests.support.counting import attempt
from tests.support.tables import compact, roll_back
from tests.support.world import SOURCE, create, hour

STEPS = pytest.mark.parametrize("step", [None, "hour"])


def drafted(world: Balances) -> Plan:
    found = draft(world.process(), world.target)
    assert isinstance(found, Plan)
    return found


def span(plan: Plan) -> tuple[dt.datetime, dt.datetime]:
    (whole,) = plan.replaced.ranges
    return whole.start, whole.end


@STEPS
def test_late_rows_change_all_that_follows_and_nothing_before(tmp_path: Path, step: str | None) -> None:
    world = Balances(home=tmp_path, step=step).set_up()
    world.land(0, 1, 2, 3.5, 4)
    world.tick()
    assert world.processed == hour(4), "hour 4 may still go on"
    world.verify()
    world.land(2.5, 6, region="us")
    world.land(2.25)
    plan = drafted(world)
    assert span(plan) == (hour(2), hour(6))
    assert plan.late.to_json() == ["2024-01-01T02:00:00Z/2024-01-01T03:00:00Z"]
    kept = {f.file.file_path for f in world.target.scan().plan_files()}
    world.tick()
    world.verify()
    assert world.processed == hour(6)
    assert len(kept & {f.file.file_path for f in world.target.scan().plan_files()}) == 2, (
        "hours 0 and 1 were not touched"
    )


def test_changes_past_what_is_complete_wait(tmp_path: Path) -> None:
    world = Balances(home=tmp_path).set_up()
    world.land(0, 1)
    assert world.tick().did_publish
    world.land(1.5)
    assert world.tick().outcome == "nothing_to_do"
    world.land(1.75, 2)
    plan = drafted(world)
    assert span(plan) == (hour(1), hour(2))
    world.tick()
    world.verify()


def test_nothing_is_complete_yet(tmp_path: Path) -> None:
    world = Balances(home=tmp_path).set_up()
    assert "nothing is complete yet" in world.tick().reason
    world.land(5.25)
    assert "nothing is complete yet" in world.tick().reason
    world.land(3, 6)
    world.tick()
    world.verify()
    assert len(world.target_rows()) == 2


def test_an_hour_without_a_row_completes(tmp_path: Path) -> None:
    world = Balances(home=tmp_path, through={"rule": "property", "name": "complete"}).set_up()
    for through, rows in ((2, (0, 1, 3)), (3, ()), (9, ())):
        if rows:
            world.land(*rows)
        with world.source.transaction() as change:
            change.set_properties({"complete": hour(through).isoformat()})
        assert world.tick().did_publish
        assert world.processed == hour(through)
        world.verify()
    with world.source.transaction() as change:
        change.set_properties({"complete": hour(2).isoformat()})
    assert world.tick().published is not None
    assert world.processed == hour(9), "a fall is published, and takes nothing back"
    world.land(1.5, 5)
    assert span(drafted(world)) == (hour(1), hour(9))
    world.tick()
    world.verify()


@STEPS
def test_previous_step(tmp_path: Path, step: str | None) -> None:
    """The total up to each hour, from the hour before; hours without a row have to be there for it."""
    world = Balances(home=tmp_path, state="previous_step", step=step).set_up()
    sql = """
        WITH hours AS (
          SELECT unnest(generate_series(range_start, range_end - INTERVAL 1 HOUR, INTERVAL 1 HOUR)) AS ts FROM plan_ranges
        ), found AS (
          SELECT h.ts, coalesce(sum(e.v), 0) AS v FROM hours h LEFT JOIN events e ON date_trunc('hour', e.ts) = h.ts GROUP BY ALL
        )
        SELECT ts, 0::BIGINT AS id, 'all' AS customer,
               (coalesce((SELECT max(balance) FROM state), 0) + sum(v) OVER (ORDER BY ts))::BIGINT AS balance
        FROM found
    """

    def check(through: int) -> None:
        rows = world.source_rows()
        expected = [
            (hour(h), 0, "all", sum(v for _, ts, _, v in rows if ts is not None and ts < hour(h + 1)))
            for h in range(through)
        ]
        assert sorted(world.target_rows().elements()) == expected

    world.land(0, 0.5, 3, 5)
    steps.run(world.process(transform=sql))
    check(5)
    world.land(1.5, 8)
    steps.run(world.process(transform=sql))
    check(8)


def test_a_reload_empties_more_than_it_fills(tmp_path: Path) -> None:
    world = Balances(
        home=tmp_path, through={"rule": "property", "name": "complete"}, policies={"on_lost_watermark": "reload"}
    )
    world.set_up()
    world.land(0, 1, 2, 3)
    for through in (4, 2):
        with world.source.transaction() as change:
            change.set_properties({"complete": hour(through).isoformat()})
        world.tick()
    assert world.processed == hour(4)
    catalog = world.catalog
    rows = world.source.scan().to_arrow()
    schema = world.source.schema().as_arrow()
    catalog.drop_table(SOURCE)
    create(catalog, SOURCE, schema, (), complete=hour(2).isoformat()).append(rows)
    finished = world.tick()
    assert finished.plan is not None
    assert finished.plan.kind == "reload"
    assert world.processed == hour(2)
    world.verify()


def test_a_reload_starts_without_state(tmp_path: Path) -> None:
    world = Balances(home=tmp_path, policies={"on_lost_watermark": "reload"}).set_up()
    world.land(0, 1, 3)
    world.tick()
    schema = world.source.schema().as_arrow()
    catalog = world.catalog
    catalog.drop_table(SOURCE)
    create(catalog, SOURCE, schema, ())
    world.land(5, 6)
    finished = world.tick()
    assert finished.plan is not None
    assert finished.plan.kind == "reload"
    world.verify()


def test_a_change_of_what_was_read_as_state_is_a_conflict(tmp_path: Path) -> None:
    world = Balances(home=tmp_path).set_up()
    world.land(0, 1, 2)
    world.tick()
    world.land(2.5, 4)
    process = world.process("run")
    session = plan(process)
    assert isinstance(session, Session)
    world.target.delete(f"ts < '{hour(1).isoformat()}'")
    with pytest.raises(TargetChanged, match="replaces or reads as state"):
        steps.load(session)


def test_a_cleared_run_computes_all_that_follows(tmp_path: Path) -> None:
    world = Balances(home=tmp_path).set_up()
    world.land(0, 1, 2, 3)
    steps.run(world.process("first"))
    world.land(3.5, 6)
    steps.run(world.process("second"))
    finished = steps.run(world.process("first", clear_number=1))
    assert finished.plan is not None
    assert (finished.plan.kind, span(finished.plan)) == ("restatement", (hour(0), hour(6)))
    world.verify()


def test_starting_from_now(tmp_path: Path) -> None:
    world = Balances(home=tmp_path, initial="current").set_up()
    world.land(0, 3)
    assert not world.tick().did_publish
    assert world.processed == hour(3)
    world.land(5)
    world.tick()
    assert sorted(r[0] for r in world.target_rows()) == [hour(3)], "from hour 3 on, which was not complete"


def test_all_steps_share_a_database(tmp_path: Path) -> None:
    """Opening one takes longer than a small step."""
    world, opened = Balances(home=tmp_path, step="hour").set_up(), []
    for last in (2, 9):
        world.land(*range(last), last)
        with patch.object(duckdb, "open_connection", wraps=duckdb.open_connection) as calls:
            assert world.tick().did_publish
        opened.append(calls.call_count)
    assert opened[0] == opened[1], "for nine steps as many as for two"


def test_steps_of_a_finer_unit_than_the_partitions(tmp_path: Path) -> None:
    world = Balances(home=tmp_path, unit="day", step="hour").set_up()
    world.land(0, 5, 30, 50)
    world.tick()
    world.verify()
    world.land(3, 75)
    assert span(drafted(world)) == (hour(0), hour(72))
    world.tick()
    world.verify()


_ticks = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["eu", "us"])), max_size=4),  # (hour, customer)
        st.sampled_from(["nothing", "compact", "delete", "roll back"]),
    ),
    min_size=2,
    max_size=6,
)


@settings(max_examples=12)
@given(_ticks, st.sampled_from([None, "hour"]), st.sampled_from(["hour", "day"]))
def test_after_every_tick_the_target_is_the_recompute(
    tmp_path_factory: pytest.TempPathFactory, ticks: Any, step: str | None, unit: str
) -> None:
    world = Balances(home=tmp_path_factory.mktemp("stateful"), step=step, unit=unit).set_up()
    for rows, then in ticks:
        for h, customer in rows:
            world.land(h + 0.5, region=customer)
        if then == "delete" and world.source.current_snapshot() is not None:
            world.source.delete(f"ts >= '{hour(3).isoformat()}' and ts < '{hour(4).isoformat()}'")
        elif then == "compact" and world.source.current_snapshot() is not None:
            compact(world.source)
        elif then == "roll back" and (done := published(world.target, "proc")) is not None:
            table = world.target
            parent = table.snapshot_by_id(done.snapshot_id).parent_snapshot_id  # type: ignore[union-attr]
            before = None if parent is None else table.snapshot_by_id(parent)
            if before is not None and process_of(before) is not None:
                roll_back(table, before.snapshot_id)
        world.tick()
        world.verify()


class TestFinishedSteps:
    """What an earlier try got done is not computed again, unless the transform or the table is another one now."""

    @pytest.fixture(params=["latest_by(customer)", "previous_step"])
    def world(self, tmp_path: Path, request: pytest.FixtureRequest) -> Balances:
        world = Balances(home=tmp_path, step="hour", state=request.param).set_up()
        world.land(0, 1, 2)
        world.tick()
        world.land(1.5, 2.5, 3, 4.5, 5, region="eu")
        return world

    @staticmethod
    def attempt(world: Balances, fail_at: int | None = None, **changes: Any) -> list[str]:
        ran = attempt(world, fail_at, of="AS balance", **changes)
        return [text[11:13] for ranges in ran for text in ranges.to_json()]

    def test_a_retry_goes_on_after_them(self, world: Balances) -> None:
        assert self.attempt(world, 2) == ["01", "02"]
        assert self.attempt(world, 1) == ["03"], "and is cut off, too"
        assert self.attempt(world) == ["04"]
        if world.state != "previous_step":  # which knows only customers of the hour before
            world.verify()
        else:
            expected = world.target_rows()
            fresh = attrs.evolve(world, home=world.home / "fresh").set_up()
            fresh.source.append(world.source.scan().to_arrow())
            fresh.tick()
            assert fresh.target_rows() == expected
        refs = world.target.metadata.refs
        assert set(refs) == {"main", "inc_wm_proc"}
        assert len(world.target.metadata.snapshots) == 3, "nothing of the steps is left in the history"

    def test_of_another_transform_are_computed_again(self, world: Balances) -> None:
        self.attempt(world, 2)
        assert self.attempt(world, transform=f"{BALANCES}  ") == ["01", "02", "03", "04"]

    def test_under_another_schema_are_computed_again(self, world: Balances) -> None:
        self.attempt(world, 2)
        with world.target.update_schema() as change:
            change.add_column("note", StringType())
        sql = f"SELECT *, 'x' AS note FROM ({BALANCES})"
        assert self.attempt(world, transform=sql) == ["01", "02", "03", "04"]

    def test_go_with_a_session_that_is_taken_over(self, world: Balances) -> None:
        self.attempt(world, 2)
        world.land(6)
        world.tick()
        assert set(world.target.metadata.refs) == {"main", "inc_wm_proc"}

    def test_are_kept_only_now_and_then(self, world: Balances) -> None:
        before = world.target.metadata.last_sequence_number
        self.attempt(world, keep_parts_every=3600.0)
        assert world.target.metadata.last_sequence_number == before + 2, "lock and seal; publishing adds no snapshot"
