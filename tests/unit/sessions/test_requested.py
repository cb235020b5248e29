"""Restatements on request: given event times are computed again at the sources as they are now, and the watermark stays."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest

from airflow_incremental.core.errors import ArgumentError, PlanExpired, ScopeOverlap, TableError
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.requests import Cause, RestateRequest
from airflow_incremental.core.spec import Initial, ProcessSpec
from airflow_incremental.core.tables import IcebergTarget
from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import draft
from airflow_incremental.sessions.process import Finished
from tests.support.balances import Balances
from tests.support.modes import MODES, world_of
from tests.support.tables import expire
from tests.support.totals import Totals
from tests.support.world import SOURCE, TARGET, World, create, hour


def ask(start: float, end: float, *, cause: Cause = "form", **more: Any) -> RestateRequest:
    return RestateRequest.read(hour(start), hour(end), cause=cause, **more)


def standing(world: World) -> Published:
    found = published(world.target, world.name)
    assert found is not None
    return found


def restate(world: World, request: RestateRequest, run_id: str | None = None, **changes: Any) -> Finished:
    return steps.run(world.process(run_id, restate=request, **changes))


def loaded(home: Path, mode: str, *hours: float, **options: Any) -> World:
    world = world_of(home, mode, **options).set_up()
    world.land(*(hours or (0, 1, 2, 3, 4)))
    steps.run(world.process())
    return world


@pytest.mark.parametrize("mode", MODES)
def test_it_follows_the_transform_of_today_and_moves_no_watermark(tmp_path: Path, mode: str) -> None:
    world = loaded(tmp_path, mode)
    before = standing(world)

    finished = restate(world, ask(1, 3, reason="the rate was wrong", by="anna"))

    assert finished.plan is not None
    assert (finished.outcome, finished.plan.kind) == ("published", "restatement")
    assert finished.plan.reason.endswith("asked for by anna: the rate was wrong")
    after = standing(world)
    assert after.session != before.session
    assert after.watermark == before.watermark
    assert steps.run(world.process()).outcome == "nothing_to_do"
    world.land(2.5, 5)
    steps.run(world.process())
    _verify(world)


@pytest.mark.parametrize("mode", MODES)
def test_rows_that_came_since_the_watermark_are_there_once(tmp_path: Path, mode: str) -> None:
    world = loaded(tmp_path, mode)
    world.land(1.5, 2.5, 7)

    restate(world, ask(1, 3))
    steps.run(world.process())

    _verify(world)


@pytest.mark.parametrize("mode", MODES)
def test_only_the_range_is_computed_again(tmp_path: Path, mode: str) -> None:
    """A transform that marks its rows shows which of them are new."""
    world = loaded(tmp_path, mode, 0, 1, 2, 3, 4)
    column = {"append": "v10", "append a union": "v10", "overwrite": "total", "merge": "total"}.get(mode, "balance")
    sql = world.process().transform
    marked = f"SELECT * REPLACE (-1 AS {column}) FROM ({sql})"

    finished = restate(world, ask(1, 3), transform=marked)

    assert finished.did_publish
    time = None if mode == "merge" else world.event_time
    rows = world.target.scan().to_arrow().to_pylist()
    again = {r[time] if time else None for r in rows if r[column] == -1}
    kept = {r[time] if time else None for r in rows if r[column] != -1}
    if mode == "merge":
        assert kept == set(), "all rows are of one key"
    elif mode.startswith("stateful"):
        # What comes after depends on it.
        assert (again, kept) == ({hour(1), hour(2), hour(3)}, {hour(0)})
    else:
        assert (again, kept) == ({hour(1), hour(2)}, {hour(0), hour(3), hour(4)})


def test_a_cleared_run_restates_again_and_a_retry_does_not(tmp_path: Path) -> None:
    world = loaded(tmp_path, "overwrite")
    first = restate(world, ask(1, 3, cause="backfill"), "backfill")
    retried = restate(world, ask(1, 3, cause="backfill"), "backfill")
    cleared = restate(world, ask(1, 3, cause="backfill"), "backfill", clear_number=1)

    assert [f.outcome for f in (first, retried, cleared)] == ["published", "already_published", "published"]
    assert cleared.plan is not None
    assert cleared.plan.kind == "restatement"
    world.check()


def test_a_scheduled_run_that_a_backfill_processes_again_restates_its_interval(tmp_path: Path) -> None:
    world = loaded(tmp_path, "overwrite")
    wrong = steps.run(world.process("run1", clear_number=1, restate=ask(3, 4, cause="backfill")))
    assert wrong.plan is not None
    assert wrong.plan.replaced.to_json() == [f"{hour(3):%Y-%m-%dT%H:%M:%SZ}/{hour(4):%Y-%m-%dT%H:%M:%SZ}"]
    world.check()


def test_the_range_is_taken_in_whole_units_of_the_target(tmp_path: Path) -> None:
    world = loaded(tmp_path, "overwrite", target_fields=(("day", "hour_ts"),))
    planned = draft(world.process(restate=ask(1.5, 2.5)), world.target)
    assert isinstance(planned, Plan)
    assert planned.replaced.to_json() == ["2024-01-01T00:00:00Z/2024-01-02T00:00:00Z"]


def test_what_a_source_took_back_goes(tmp_path: Path) -> None:
    world = loaded(tmp_path, "append", policies={"on_rewrite": "ignore"})
    world.source.delete("id = 2")
    world.land(8)
    steps.run(world.process())
    assert sum(world.target_rows().values()) == 6, "the load leaves it where it is"
    restate(world, ask(1, 2))
    world.check()


@attrs.define
class Due(Totals):
    """Totals with an event time of their own: a day after the last event of the key."""

    @property
    def target_schema(self) -> pa.Schema:
        return Totals.target_schema.fget(self).append(pa.field("due", pa.timestamp("us", "UTC")))  # type: ignore[attr-defined]

    @property
    def spec(self) -> ProcessSpec:
        declared: ProcessSpec = Totals.spec.fget(self)  # type: ignore[attr-defined]
        return attrs.evolve(declared, target=IcebergTarget(TARGET, event_time="due"))

    def marked(self, sign: str = "") -> str:
        columns = f"region, {sign}count(*) AS n, 7::BIGINT AS total, max(ts) + INTERVAL 1 DAY AS due"
        return f"SELECT {columns} FROM events GROUP BY region"


@pytest.mark.parametrize(("start", "end"), [(0, 2), (25, 26)], ids=["of the source", "of the target"])
def test_a_merge_computes_the_keys_of_all_rows_in_the_range(tmp_path: Path, start: float, end: float) -> None:
    world = Due(home=tmp_path).set_up()
    assert isinstance(world, Due)
    world.land(1, region="eu")
    world.land(5, region="us")
    world.tick(transform=world.marked())

    restate(world, ask(start, end), transform=world.marked("-"))

    assert {r[0]: r[1] for r in world.target_rows()} == {"eu": -1, "us": 1}
    world.land(1.5, region="eu")
    world.tick(transform=world.marked())
    assert {r[0]: r[1] for r in world.target_rows()} == {"eu": 2, "us": 1}


def test_a_stateful_process_is_restated_up_to_where_it_is_processed(tmp_path: Path) -> None:
    world = Balances(home=tmp_path).set_up()
    world.land(0, 1, 2, 3)
    world.tick()
    assert world.processed == hour(3)
    planned = draft(world.process(restate=ask(2, 100)), world.target)
    assert isinstance(planned, Plan)
    assert planned.replaced.to_json() == ["2024-01-01T02:00:00Z/2024-01-01T03:00:00Z"]
    with pytest.raises(ArgumentError, match="processed through 2024-01-01T03:00:00Z only"):
        draft(world.process(restate=ask(3, 4)), world.target)


@pytest.mark.parametrize("mode", ["append", "overwrite", "merge"])
def test_a_range_in_which_nothing_is_ends_a_backfill_and_is_refused_by_form(tmp_path: Path, mode: str) -> None:
    world = loaded(tmp_path, mode)
    finished = restate(world, ask(100, 101, cause="backfill"))
    assert finished.outcome == "nothing_to_do"
    assert "hold rows of 2024-01-05T" in finished.reason
    with pytest.raises(ArgumentError, match="that was loaded; what is loaded is complete through 2024-01-01T"):
        restate(world, ask(100, 101))


def test_a_range_whose_source_rows_are_all_gone_is_emptied(tmp_path: Path) -> None:
    world = loaded(tmp_path, "overwrite")
    world.source.delete("id <= 2")
    restate(world, ask(0, 2))
    world.check()


def test_before_the_first_load_there_is_nothing_to_restate(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(1)
    with pytest.raises(ArgumentError, match="has no watermark on"):
        restate(world, ask(0, 2))


def test_append_needs_the_snapshot_of_its_watermark(tmp_path: Path) -> None:
    world = loaded(tmp_path, "append")
    world.land(9)
    source = world.source
    expire(source, [s.snapshot_id for s in source.metadata.snapshots if s != source.current_snapshot()])
    with pytest.raises(PlanExpired, match="run the DAG without a range"):
        restate(world, ask(1, 3))
    assert sum(world.target_rows().values()) == 5


def test_append_needs_a_target_partitioned_by_event_time(tmp_path: Path) -> None:
    world = loaded(tmp_path, "append", target_fields=(("identity", "region"),))
    with pytest.raises(ArgumentError, match="is not partitioned by its event time 'ts'"):
        restate(world, ask(1, 3))


def test_append_without_a_scope_does_not_replace_rows_of_others(tmp_path: Path) -> None:
    world = loaded(tmp_path, "append")
    other = World(home=tmp_path, name="other")

    other.policies = {"initial": Initial(position="current", adopt=True)}
    steps.run(other.process("theirs"))
    with pytest.raises(ScopeOverlap):
        restate(world, ask(1, 3))


def test_a_source_that_was_replaced_is_not_restated_from(tmp_path: Path) -> None:
    world = loaded(tmp_path, "overwrite")
    catalog = world.catalog
    schema = catalog.load_table(SOURCE).schema().as_arrow()
    catalog.drop_table(SOURCE)
    create(catalog, SOURCE, schema, ())
    world.land(1)
    with pytest.raises(TableError, match="another table"):
        restate(world, ask(1, 3))


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("yesterday", "2024-01-03T00:00:00Z", "restate_from is 'yesterday'"),
        (5, "2024-01-03T00:00:00Z", "restate_from is 5"),
    ],
)
def test_bad_ranges_are_refused(start: Any, end: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        RestateRequest.read(start, end, cause="form")


def test_a_data_interval_without_length_says_which_timetables_have_one() -> None:
    with pytest.raises(ArgumentError, match="CatchUpTimetable"):
        RestateRequest.read(hour(1), hour(1), cause="backfill")


def test_it_says_what_and_who_and_why() -> None:
    asked = RestateRequest.read(
        dt.datetime(2024, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        hour(24),
        cause="form",
        reason=" the rate\nwas wrong ",
        by="anna",
    )
    assert str(asked) == (
        "restatement by form of 2024-01-01T00:00:00Z/2024-01-02T00:00:00Z, asked for by anna: the rate was wrong"
    )


def _verify(world: World) -> None:
    if isinstance(world, Balances):
        world.verify()
    else:
        world.check()
