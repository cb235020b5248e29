"""Random histories of a merge process: after every run each key's row is what a computation from all its source rows gives."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.histories import hides, histories, rewrites, rollbacks
from tests.property.test_sessions import ADOPT, play
from tests.support.totals import Totals

slow = settings(
    max_examples=settings().max_examples * 3 // 10, suppress_health_check=[HealthCheck.too_slow], deadline=None
)
#: Keys, and partitions of the source and the target that tell something of them.
SHAPES = st.sampled_from(
    [
        (("region",), (), ()),
        (("region",), (("bucket[4]", "region"),), (("bucket[2]", "region"),)),
        (("region", "ts"), (("day", "ts"),), (("identity", "region"),)),
        (("ts", "region"), (("identity", "region"), ("truncate[8]", "id")), (("hour", "ts"),)),
    ]
)


def world_of(home: str, shape: tuple[Any, Any, Any]) -> Totals:
    keys, source_fields, target_fields = shape
    return Totals(home=Path(home), keys=keys, source_fields=source_fields, target_fields=target_fields, policies=ADOPT)


@slow
@given(histories(rewrites, rollbacks), SHAPES, st.sampled_from(["1", "2"]))
def test_merge(actions: list[Any], shape: tuple[Any, Any, Any], version: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = world_of(home, shape)
        world.set_up_with(source_version=version)
        play(world, actions)


@slow
@given(histories(rewrites, hides, hides), SHAPES)
def test_merge_of_rows_deleted_by_position(actions: list[Any], shape: tuple[Any, Any, Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = world_of(home, shape)
        world.set_up_with(source_version="2")
        play(world, actions)
