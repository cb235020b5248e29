"""Stateful sessions: everything from the first change on is computed again, on the state before it, as far as all is complete."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_incremental.core.errors import ArgumentError, NullEventTime, TableError, TransformError
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.iceberg.state import process_of, published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import draft
from airflow_incremental.sessions.process import Finished, Process
from tests.support.tables import compact, roll_back
from tests.support.world import SOURCE, TARGET, World, create, hour

SCHEMA = pa.schema(
    [("ts", pa.timestamp("us", "UTC")), ("id", pa.int64()), ("customer", pa.string()), ("balance", pa.int64())]
)
#: What a customer has after each event: the same text with steps and without.
BALANCES = """
SELECT e.ts, e.id, e.region AS customer,
       coalesce(s.balance, 0) + sum(e.v) OVER (PARTITION BY e.region ORDER BY e.ts, e.id)::BIGINT AS balance
FROM events e LEFT JOIN state s ON s.customer = e.region
"""


@attrs.define
class Balances(World):
    """Balances of customers after each event, as far as the source is complete."""

    step: str | None = None
    through: Any = "latest_event"
    unit: str = "hour"
    state: str | None = "latest_by(customer)"
    initial: Any = "all"
    policies: Any = attrs.field(factory=dict)

    @property
    def target_schema(self) -> pa.Schema:
        return SCHEMA

    @property
    def spec(self) -> ProcessSpec:
        return ProcessSpec(
            process="proc",
            sources={"events": IcebergSource(SOURCE, event_time="ts", complete_through=self.through)},
            target=IcebergTarget(TARGET, event_time="ts"),
            mode="stateful",
            state=self.state,
            step=self.step,
            initial=self.initial,
            **self.policies,
        )

    def set_up(self) -> Balances:
        self.target_fields = ((self.unit, "ts"),)
        World.set_up(self)
        return self

    def process(self, run_id: str | None = None, **changes: Any) -> Process:
        return World.process(self, run_id, **{"transform": BALANCES, **changes})

    def tick(self) -> Finished:
        return steps.run(self.process())

    @property
    def processed(self) -> dt.datetime | None:
        last = published(self.target, "proc")
        return None if last is None else last.watermark.processed_through

    def verify(self) -> None:
        """Assert that the target is what all events before ``processed`` give, one after the other."""
        through, totals, expected = self.processed, defaultdict[str, int](int), []
        for i, ts, region, v in sorted(self.source_rows(), key=lambda r: (r[1], r[0])):
            if through is not None and ts is not None and ts < through:
                totals[region] += v
                expected.append((ts, i, region, totals[region]))
        assert sorted(self.target_rows().elements()) == sorted(expected)


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


def test_steps_of_a_finer_unit_than_the_partitions(tmp_path: Path) -> None:
    world = Balances(home=tmp_path, unit="day", step="hour").set_up()
    world.land(0, 5, 30, 50)
    world.tick()
    world.verify()
    world.land(3, 75)
    assert span(drafted(world)) == (hour(0), hour(72))
    world.tick()
    world.verify()


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"state": "latest"}, "state is 'latest'"),
            ({"state": "latest_by()"}, r"state is 'latest_by\(\)'"),
            ({"mode": "overwrite"}, "has mode='overwrite' and state='latest_by"),
            ({"mode": "overwrite", "state": None, "step": "hour"}, "has mode='overwrite' and step='hour'"),
            ({"step": "minute"}, "step is 'minute'"),
            ({"on_null_event_time": "own_range"}, "has mode='stateful' and on_null_event_time='own_range'"),
            ({"initial": {"adopt": "all"}}, "adopts a filled target"),
            ({"sources": {"state": IcebergSource(SOURCE, event_time="ts")}}, "is named 'state'"),
            ({"sources": {"x": IcebergSource(SOURCE, role="lookup")}}, "has only lookups"),
            ({"sources": {"x": IcebergSource(SOURCE)}}, "has no event_time, which mode='stateful' needs"),
        ],
    )
    def test_declarations(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ArgumentError, match=message):
            attrs.evolve(Balances(home=tmp_path).spec, **changes)

    def test_a_driver_without_a_rule(self, tmp_path: Path) -> None:
        world = Balances(home=tmp_path, through=None).set_up()
        world.land(0, 1)
        with pytest.raises(
            ArgumentError, match=r"driver 'events' \(raw.events\) .* does not say how far it is complete"
        ) as found:
            world.tick()
        assert "CompleteThrough.latest_event" in found.value.hint

    def test_a_target_without_event_time_partitioning(self, tmp_path: Path) -> None:
        world = Balances(home=tmp_path)
        World.set_up(world)
        with world.target.update_spec() as update:
            update.remove_field("ts_hour")
        world.land(0, 1)
        with pytest.raises(TableError, match="is not partitioned by its event time 'ts'"):
            world.tick()

    def test_a_step_that_does_not_divide_the_partitioning(self, tmp_path: Path) -> None:
        world = Balances(home=tmp_path, step="day").set_up()
        world.land(0, 1)
        with pytest.raises(ArgumentError, match=r"computes in steps of a day, and mart\.result is partitioned by hour"):
            world.tick()

    def test_rows_outside_the_range(self, tmp_path: Path) -> None:
        world = Balances(home=tmp_path).set_up()
        world.land(0, 1)
        with pytest.raises(TransformError, match="outside the planned ranges"):
            steps.run(world.process(transform=BALANCES.replace("SELECT e.ts,", "SELECT e.ts + INTERVAL 1 HOUR AS ts,")))

    def test_keys_the_target_does_not_have(self, tmp_path: Path) -> None:
        world = Balances(home=tmp_path, state="latest_by(client)").set_up()
        world.land(0, 1)
        with pytest.raises(TableError, match="has no column 'client'"):
            world.tick()

    def test_rows_without_event_time(self, tmp_path: Path) -> None:
        world = Balances(home=tmp_path).set_up()
        world.land(0, None, 1)
        with pytest.raises(NullEventTime):
            world.tick()

    def test_starting_from_now_without_completeness(self, tmp_path: Path) -> None:
        world = Balances(home=tmp_path, initial="current", through={"rule": "property", "name": "x"}).set_up()
        world.land(0)
        with pytest.raises(ArgumentError, match="starts from now, but not all of its drivers"):
            world.tick()


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
