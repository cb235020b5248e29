"""Two sources that one process appends: after every run the target holds the rows of both, whatever happened to either."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_incremental.core.errors import SourceRewritten
from airflow_incremental.sessions import steps
from tests.property.histories import Compact, CompactTarget, Delete, Land, Update
from tests.support.union import TABLES, Union

slow = settings(max_examples=settings().max_examples // 5, suppress_health_check=[HealthCheck.too_slow], deadline=None)
HOURS = st.integers(0, 8)


@attrs.frozen
class On:
    """Something happens to one of the sources."""

    table: str
    what: Any

    def do(self, world: Union) -> None:
        with world.on(self.table):
            self.what.do(world)


@attrs.frozen
class Run:
    """One scheduled run of the process."""

    def do(self, world: Union) -> None:
        steps.run(world.process())
        world.check()


def on_one(what: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return what happens to one of the sources."""
    return st.builds(On, st.sampled_from(TABLES), what)


_land = on_one(st.builds(Land, st.lists(HOURS, min_size=1, max_size=3).map(tuple)))
_common = st.one_of(_land, _land, on_one(st.just(Compact())), st.just(CompactTarget()), st.just(Run()))
_rewrite = on_one(st.one_of(st.builds(Delete, st.integers(0, 30)), st.builds(Update, st.integers(0, 30), HOURS)))


def world_of(home: str, actions: list[Any], **policies: Any) -> Union:
    """Return a world after a history, and one more run."""
    world = Union(home=Path(home), policies=policies)
    world.set_up()
    for action in [*actions, Run()]:
        action.do(world)
    return world


@slow
@given(st.lists(_common, min_size=2, max_size=10))
def test_every_row_once(actions: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = world_of(home, actions)
        assert not steps.run(world.process()).did_publish, "all is done"


@slow
@given(st.lists(st.one_of(_common, _common, _rewrite), min_size=2, max_size=12))
def test_rewritten_ranges_are_computed_from_both(actions: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        world_of(home, actions, on_rewrite="overwrite", initial={"adopt": "all"})


@slow
@given(st.lists(_common, min_size=1, max_size=5), _rewrite, st.lists(_common, max_size=3))
def test_a_rewrite_of_either_is_refused_by_default(before: list[Any], rewrite: Any, after: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = world_of(home, [On(table, Land((1, 2))) for table in TABLES] + before)
        rows = world.target_rows()
        rewrite.do(world)
        for action in after:
            if not isinstance(action, Run):
                action.do(world)
        with pytest.raises(SourceRewritten, match=f"source .* \\({rewrite.table}\\) of process 'proc' was rewritten"):
            steps.run(world.process())
        assert world.target_rows() == rows
