"""Maintenance between any two ticks of random histories changes no result, in any mode, whatever it is told to do."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_incremental.core.maintenance import MaintenancePolicy
from tests.property.chain_histories import Tick, everything, settings_of
from tests.property.chain_histories import histories as chains
from tests.property.histories import (
    ForeignCommit,
    Land,
    RollBack,
    Run,
    Update,
    histories,
    repartition,
    rewrites,
    rollbacks,
)
from tests.property.test_sessions import ADOPT, play
from tests.support.chain import PROCESSES, Chain, Setting
from tests.support.maintaining import KEEN, maintained, policies
from tests.support.naive import Rule
from tests.support.world import SOURCE, TARGET, World

slow = settings(max_examples=settings().max_examples // 5, suppress_health_check=[HealthCheck.too_slow], deadline=None)
# Deleting hours without rows is part of the histories.
pytestmark = pytest.mark.filterwarnings("ignore:Delete operation did not match any records")


@attrs.frozen
class Maintain:
    """The source or the target is maintained; the process does not pin what it has consumed, but is known as a consumer."""

    table: str
    policy: MaintenancePolicy

    def do(self, world: World) -> None:
        maintained(world.catalog, self.table, self.policy, consumers=[TARGET])


#: Of the source, the target or both, keen as often as not.
_tables = st.sampled_from([(SOURCE,), (TARGET,), (SOURCE, TARGET)])
_policies = st.one_of(st.just(KEEN), policies)
maintenance = st.builds(lambda tables, policy: [Maintain(table, policy) for table in tables], _tables, _policies)


def strewn(history: st.SearchStrategy[list[object]]) -> st.SearchStrategy[list[Any]]:
    """Return histories with maintenance after most of what happens in them."""

    def with_maintenance(actions: list[Any]) -> st.SearchStrategy[list[Any]]:
        between = st.lists(st.one_of(st.just([]), maintenance), min_size=len(actions) - 1, max_size=len(actions) - 1)
        return between.map(
            lambda found: [a for pair in zip(actions, [*found, []], strict=True) for a in (pair[0], *pair[1])]
        )

    return history.flatmap(with_maintenance)


#: What each run has to see has been compacted, and more than once, with what was there before; and history is cut.
KEENLY: list[Any] = [
    *(Land((0, 1)), Run()),
    *(
        Land((0, 5)),
        Land((1,)),
        Maintain(SOURCE, KEEN),
        Land((2,)),
        Maintain(SOURCE, KEEN),
        Maintain(TARGET, KEEN),
        Run(),
    ),
    *(Land((3,)), ForeignCommit(), Maintain(TARGET, KEEN), RollBack(1), Maintain(TARGET, KEEN), Run()),
]


@slow
@given(
    strewn(histories(rollbacks)),
    st.sampled_from([(), (("day", "ts"),)]),
    st.sampled_from(["1", "2"]),
)
@example(KEENLY, (), "2")
def test_append(actions: list[Any], source_fields: tuple[tuple[str, str], ...], version: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(home=Path(home), mode="append", source_fields=source_fields, policies=ADOPT)
        world.set_up_with(source_version=version)
        play(world, actions)


@slow
@given(
    strewn(histories(rewrites, rollbacks, repartition)),
    st.sampled_from([(), (("day", "ts"),), (("hour", "ts"),)]),
    st.sampled_from(["hour", "day"]),
)
@example([*KEENLY, Update(0, 7), Land((4,)), Maintain(SOURCE, KEEN), Run()], (), "hour")
def test_overwrite(actions: list[Any], source_fields: tuple[tuple[str, str], ...], unit: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        world = World(
            home=Path(home),
            mode="overwrite",
            source_fields=source_fields,
            target_fields=((unit, "hour_ts"),),
            policies=ADOPT,
        )
        world.set_up_with(source_version="2")
        play(world, actions)


@attrs.frozen
class MaintainOne:
    """A table of the chain is maintained."""

    nth: int
    policy: MaintenancePolicy

    def do(self, chain: Chain) -> None:
        name = chain.tables[self.nth % len(chain.tables)]
        maintained(chain.catalog, name, self.policy, consumers=() if chain.setting.pinned else ("mart.*",))


@attrs.frozen
class MaintainAll:
    """All tables are maintained as keenly as can be."""

    def do(self, chain: Chain) -> None:
        for name in chain.tables:
            maintained(chain.catalog, name, KEEN, consumers=() if chain.setting.pinned else ("mart.*",))


def between(actions: list[Any], maintaining: list[MaintainOne]) -> list[Any]:
    """Return a history with maintenance strewn in, evenly."""
    found: list[Any] = []
    every = max(1, len(actions) // (len(maintaining) + 1))
    rest = list(maintaining)
    for number, action in enumerate(actions):
        found.append(action)
        if number % every == every - 1 and rest:
            found.append(rest.pop())
    return [*found, *rest]


some = st.lists(st.builds(MaintainOne, st.integers(0, 8), policies), min_size=2, max_size=8)
RULES = {"a": Rule(kind="latest_event"), "b": Rule(kind="property")}
always = [action for tick in everything for action in (MaintainAll(), tick)]


@settings(slow, max_examples=max(2, settings().max_examples // 20))
@given(chains, some, st.booleans().flatmap(lambda pinned: settings_of(pinned=pinned)))
@example(always, [], Setting(rules=RULES))
@example(always, [], Setting(rules=RULES, step="hour", buckets=True, pinned=False))
def test_three_hops_in_all_modes(actions: list[Any], maintaining: list[MaintainOne], setting: Setting) -> None:
    with tempfile.TemporaryDirectory() as home:
        chain = Chain(home=Path(home), setting=setting)
        for action in [*between(actions, maintaining), Tick()]:
            action.do(chain)
        publishes = dict(chain.current)
        MaintainAll().do(chain)
        Tick().do(chain)
        assert {n: p and p.memory for n, p in chain.current.items()} == {
            n: p and p.memory for n, p in publishes.items()
        }
        assert set(chain.current) == set(PROCESSES)
