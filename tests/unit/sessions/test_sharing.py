"""What a process may replace is registered on the target, so that others keep out of its scope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.core.errors import ArgumentError, ScopeOverlap
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Process, Session
from tests.support.world import World

FIELDS = (("identity", "region"), ("hour", "ts"))


def worlds(home: Path, **other: Any) -> tuple[World, World]:
    """An append process that recomputes rewritten ranges, and a plain one on the same target."""
    first = World(home=home, target_fields=FIELDS, policies={"on_rewrite": "overwrite"}).set_up()
    policies = {"initial": {"adopt": "current"}, **other.pop("policies", {})}
    first.land(0, 1)
    return first, World(home=home, name="other", target_fields=FIELDS, policies=policies, **other)


@pytest.mark.parametrize("far", ["open", "published"])
def test_an_append_that_recomputes_rewritten_ranges_keeps_others_out(tmp_path: Path, far: str) -> None:
    first, second = worlds(tmp_path)
    if far == "open":
        assert isinstance(plan(first.process()), Session)
    else:
        steps.run(first.process())
    with pytest.raises(ScopeOverlap, match=r"process 'other' \(scope the whole table\) and process 'proc'"):
        steps.run(second.process())


def test_the_watermark_of_a_run_without_rows_registers_it_as_well(tmp_path: Path) -> None:
    first, second = worlds(tmp_path)
    first.policies = {"on_rewrite": "overwrite", "initial": "current"}
    assert steps.run(first.process()).outcome == "nothing_to_do"
    with pytest.raises(ScopeOverlap):
        steps.run(second.process())


def test_plain_appends_and_disjoint_scopes_get_along(tmp_path: Path) -> None:
    first, second = worlds(tmp_path / "plain")
    first.policies = {}
    steps.run(first.process())
    assert steps.run(second.process()).outcome == "nothing_to_do"
    first, second = worlds(tmp_path / "scopes", scope={"region": "us"})
    first.scope = {"region": "eu"}
    steps.run(first.process())
    assert steps.run(second.process()).outcome == "nothing_to_do"


def test_two_mapped_instances_of_one_process_are_refused_open_or_published(tmp_path: Path) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1)

    def mapped(index: int, clear_number: int = 0) -> Process:
        process = world.process("run", clear_number=clear_number)
        return attrs.evolve(process, owner=attrs.evolve(process.owner, map_index=index))

    first = plan(mapped(0))
    assert isinstance(first, Session)
    with pytest.raises(ArgumentError, match="map indexes 0 and 1 of task 'load'"):
        plan(mapped(1))
    assert steps.run(mapped(0)).did_publish
    world.land(2)
    with pytest.raises(ArgumentError, match="map indexes 0 and 1"):
        plan(mapped(1))
    # After the run was cleared, the instances may be in another order.
    assert steps.run(mapped(1, clear_number=1)).did_publish
    world.check()
