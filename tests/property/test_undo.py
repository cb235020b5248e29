"""Undo, watermarks set back and sessions ended by hand, at any point of a history: the next runs make every table right again.

The first test plays chains of three hops in which all modes follow each other; the second one target that others write to as well.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_incremental.core.errors import RollbackRefused
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.state import records, words_of
from airflow_incremental.sessions import steps
from tests.property.chain_histories import settings_of
from tests.property.histories import Run, histories, rewrites
from tests.property.test_chains import RULES
from tests.property.test_chains import play as play_chain
from tests.property.test_sessions import ADOPT, foreign, own
from tests.property.undo_histories import all_acts, undo_histories
from tests.support.by_hand import rolled_back
from tests.support.chain import Setting
from tests.support.tables import expire
from tests.support.world import World

slow = settings(max_examples=settings().max_examples // 20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
pytestmark = pytest.mark.filterwarnings("ignore:Delete operation did not match any records")


@slow
@given(undo_histories(), settings_of(pinned=True))
@example(all_acts, Setting(rules=RULES))
@example(all_acts, Setting(rules=RULES, unit="day", step="hour", buckets=True))
def test_three_hops(actions: list[Any], setting: Setting) -> None:
    play_chain(setting, actions)


@attrs.frozen
class UndoOne:
    """The target goes back to before one of the last sessions, unless others wrote since."""

    sessions: int

    def do(self, world: World) -> None:
        table = world.target
        lineage = list(main_lineage(table))
        standing = [r for r in records(lineage, world.name) if r.undone_by is None]
        if not standing:
            return
        first = standing[min(self.sessions, len(standing) - 1)]
        since = lineage[: lineage.index(first.snapshot)]
        theirs = [
            s
            for s in since
            if "incremental.session" not in words_of(s)
            and s.summary is not None
            and s.summary.operation.value != "replace"
        ]
        before, head = first.snapshot.parent_snapshot_id, table.metadata.current_snapshot_id
        known = before is not None and table.snapshot_by_id(before) is not None
        rows = own_at(world, before) if known else None
        others = foreign(world)
        try:
            rolled_back(world, first.session)
        except RollbackRefused as error:
            why = error.found
        else:
            why = None
        if why is not None:
            assert "expired" in why or ("another writer" in why and theirs)
            assert world.target.metadata.current_snapshot_id == head
            return
        assert not theirs, "others wrote since"
        assert own(world) == rows
        assert foreign(world) == others, "nobody else's row came or went"


def own_at(world: World, snapshot_id: int | None) -> Counter[tuple[Any, ...]]:
    found = world.target.scan(snapshot_id=snapshot_id).to_arrow().select(world.target_schema.names).to_pylist()
    return Counter(tuple(r.values()) for r in found if "zz" not in r.values())


@attrs.frozen
class ExpireTarget:
    """Old snapshots of the target are expired, but those that a ref holds."""

    keep: int

    def do(self, world: World) -> None:
        table = world.target
        held = {ref.snapshot_id for ref in table.metadata.refs.values()}
        old = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id not in held][: -self.keep or None]
        if old:
            expire(table, old)


undos = st.builds(UndoOne, st.integers(0, 3))
expiry = st.builds(ExpireTarget, st.integers(0, 4))


@settings(slow, max_examples=settings().max_examples * 3 // 10)
@pytest.mark.parametrize("mode", ["append", "overwrite"])
@given(histories(undos, undos, undos, expiry, rewrites))
def test_a_target_that_others_write_to_as_well(mode: str, actions: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        policies = {**ADOPT, **({"on_rewrite": "overwrite"} if mode == "append" else {})}
        world = World(home=Path(home), mode=mode, policies=policies).set_up()
        for action in actions:
            if not isinstance(action, Run):
                action.do(world)
                continue
            others = foreign(world)
            steps.run(world.process())
            assert own(world) == world.oracle(world.source_rows())
            assert foreign(world) == others
            assert steps.run(world.process()).outcome == "nothing_to_do"
