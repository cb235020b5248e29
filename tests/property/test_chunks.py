"""Random histories in chunks: rows come late and go, whoever computes chunks in any order, tries fail, other runs take over.

Whatever the chunks and whoever computed them, the target is what one computation over all rows gives.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_incremental.core.chunks import Chunking
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import TimeRange
from airflow_incremental.core.requests import RestateRequest
from airflow_incremental.engines.worker import TransformInterrupted
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.property.test_sessions import slow
from tests.support.counting import Counting
from tests.support.world import World, hour

pytestmark = pytest.mark.filterwarnings("ignore:Delete operation did not match any records")


@attrs.frozen(kw_only=True)
class Tick:
    """What happens in a tick: what lands and goes, how the work is cut, and who does it.

    :param wrong: the first workers have a transform that is corrected later.
    :param workers: chunks that are computed by workers of their own, in this order (modulo what there is).
    :param fail_at: part at which a try of the whole load fails; None for no such try.
    :param other: whether another run takes over after that.
    """

    land: list[float | None]
    delete: int | None
    most: int
    wrong: bool
    workers: list[int]
    fail_at: int | None
    other: bool
    restate: tuple[int, int] | None


hours = st.one_of(st.none(), st.integers(0, 30).map(lambda n: n / 2 + 0.1))
ticks = st.builds(
    Tick,
    land=st.lists(hours, min_size=0, max_size=8),
    delete=st.one_of(st.none(), st.integers(1, 20)),
    most=st.integers(1, 6),
    wrong=st.booleans(),
    workers=st.lists(st.integers(0, 5), max_size=4),
    fail_at=st.one_of(st.none(), st.integers(0, 3)),
    other=st.booleans(),
    restate=st.one_of(st.none(), st.tuples(st.integers(0, 14), st.integers(1, 15))),
)


@settings(slow, max_examples=slow.max_examples // 2)
@given(
    mode=st.sampled_from(["append", "overwrite"]),
    grain=st.sampled_from(["hour", "day"]),
    history=st.lists(ticks, min_size=1, max_size=4),
)
def test_any_history_in_chunks(mode: str, grain: str, history: list[Tick]) -> None:
    policies = {"on_null_event_time": "own_range"} | ({"on_rewrite": "overwrite"} if mode == "append" else {})
    with tempfile.TemporaryDirectory() as home:
        event_time = "ts" if mode == "append" else "hour_ts"
        world = World(home=Path(home), mode=mode, policies=policies, target_fields=((grain, event_time),)).set_up()
        for number, tick in enumerate(history):
            if tick.land:
                world.land(*tick.land, region="us" if number % 2 else "eu")
            if tick.delete is not None and world.next_id >= tick.delete:
                world.source.delete(f"id == {tick.delete}")
            play(world, tick, f"run {number}")
            world.check()
            if tick.restate is not None and published(world.target, world.name) is not None:
                start, length = tick.restate
                request = RestateRequest(range=TimeRange(hour(start), hour(start + length)), cause="form")
                with suppress(ArgumentError):  # there are no rows in it
                    play(world, tick, f"restated {number}", restate=request)
                world.check()


def play(world: World, tick: Tick, run_id: str, **changes: object) -> None:
    """Do the work of a tick by workers and tries as it says, and then a whole run."""
    chunking = {"chunking": Chunking(1, tick.most), "keep_parts_every": 0.0, **changes}
    right = str(world.process("any").transform)
    wrong = f"SELECT * REPLACE ('wrong' AS region) FROM ({right})"
    session = plan(world.process(run_id, **chunking, **({"transform": wrong} if tick.wrong else {})))
    if not isinstance(session, Session):
        return
    for chunk in tick.workers:
        steps.load_chunk(session, chunk % len(session.plan.chunks))
    if tick.fail_at is not None:
        with suppress(TransformInterrupted):
            steps.run(world.process(run_id, **chunking, engine=Counting(fail_at=tick.fail_at)))
    # The other run restates as well, if it is asked to.
    steps.run(world.process(f"other {run_id}" if tick.other else run_id, **chunking))
