"""Tables that are loaded from tables that are loaded themselves: after every tick each is what the rules of its mode say.

Three hops and all modes, over one to three raw sources of unequal completeness; see ``tests.support.chain``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.property.chain_histories import Tick, everything, histories, settings_of
from tests.support.chain import Chain, Setting
from tests.support.naive import Rule

#: A history costs some three seconds, and what has to happen in every profile is an example.
slow = settings(max_examples=settings().max_examples // 20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
# Deleting hours without rows is part of the histories.
pytestmark = pytest.mark.filterwarnings("ignore:Delete operation did not match any records")


def play(setting: Setting, actions: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        chain = Chain(home=Path(home), setting=setting)
        for action in [*actions, Tick()]:
            action.do(chain)
        publishes = dict(chain.current)
        Tick().do(chain)
        assert chain.current == publishes, "all was done"


RULES = {"a": Rule(kind="latest_event"), "b": Rule(kind="property")}


@slow
@given(histories, settings_of(pinned=True))
@example(everything, Setting(rules=RULES))
@example(everything, Setting(rules=RULES, step="hour", buckets=True))
def test_three_hops(actions: list[Any], setting: Setting) -> None:
    """Pinned positions are lost to nothing but a rollback of their consumer."""
    play(setting, actions)


@slow
@given(histories, settings_of(pinned=False))
@example(everything, Setting(rules=RULES, unit="day", pinned=False))
def test_three_hops_that_may_lose_their_positions(actions: list[Any], setting: Setting) -> None:
    """A run ends right, or says that its position is lost, and then a reload is right."""
    play(setting, actions)
