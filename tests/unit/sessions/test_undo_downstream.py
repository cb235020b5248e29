"""What a load that reads an undone table makes of it: in ``append`` its ``on_rewrite`` decides, and only if it had taken the rows.

Modes that replace follow by lineage; the histories of ``tests.property.test_undo`` play them in chains.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.core.errors import SourceRewritten
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.tables import IcebergSource, IcebergTarget
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Finished
from tests.support.by_hand import last_of, rolled_back
from tests.support.tables import compact
from tests.support.world import TARGET, World, create

SECOND = "mart.second"


@attrs.define
class Two:
    """A load, and one in mode ``append`` that reads its target."""

    up: World
    policies: dict[str, Any]
    _runs: int = 0

    @classmethod
    def of(cls, home: Path, **policies: Any) -> Two:
        up = World(home=home).set_up()
        create(up.catalog, SECOND, up.target_schema, (("hour", "ts"),))
        return cls(up, policies)

    def down(self, **policies: Any) -> Finished:
        self._runs += 1
        declared = self.up.process(f"down{self._runs}")
        spec = ProcessSpec(
            process="down",
            sources={"rows": IcebergSource(TARGET, event_time="ts")},
            target=IcebergTarget(SECOND, event_time="ts"),
            mode="append",
            **{**self.policies, **policies},
        )
        return steps.run(attrs.evolve(declared, spec=spec, transform="SELECT * FROM rows"))

    def load(self, *hours: float) -> str:
        self.up.land(*hours)
        steps.run(self.up.process())
        return last_of(self.up).session

    @property
    def rows(self) -> Counter[tuple[Any, ...]]:
        return Counter(tuple(r.values()) for r in self.up.catalog.load_table(SECOND).scan().to_arrow().to_pylist())


def test_what_it_had_not_taken_cancels_out(tmp_path: Path) -> None:
    two = Two.of(tmp_path)
    two.load(0, 1)
    two.down()
    session = two.load(2, 0.5)
    rolled_back(two.up, session)
    assert two.down().outcome == "nothing_to_do"
    assert two.rows == two.up.target_rows()
    steps.run(two.up.process())
    two.down()
    assert two.rows == two.up.target_rows() == two.up.oracle(two.up.source_rows())


def test_what_it_had_taken_is_an_error_that_names_the_policies(tmp_path: Path) -> None:
    two = Two.of(tmp_path)
    two.load(0, 1)
    session = two.load(2, 0.5)
    two.down()
    before = two.rows
    rolled_back(two.up, session)
    with pytest.raises(SourceRewritten, match="on_rewrite"):
        two.down()
    assert two.rows == before
    # For one run it recomputes what went, and is right again, before or after the rows come back.
    two.down(on_rewrite="overwrite")
    assert two.rows == two.up.target_rows()
    steps.run(two.up.process())
    two.down()
    assert two.rows == two.up.target_rows() == two.up.oracle(two.up.source_rows())


@pytest.mark.parametrize("between", [False, True])
def test_it_follows_where_it_recomputes_rewritten_ranges(tmp_path: Path, between: bool) -> None:
    """Undone, loaded again, and compacted in between; looked at after each of it or at the end."""
    two = Two.of(tmp_path, on_rewrite="overwrite")
    first = two.load(0, 1)
    second = two.load(2, 0.5)
    two.down()
    for session in (second, first):
        rolled_back(two.up, session)
        if between:
            two.down()
            assert two.rows == two.up.target_rows()
        steps.run(two.up.process())
        compact(two.up.target)
        two.load(0.7, 5)
    two.down()
    assert two.rows == two.up.target_rows() == two.up.oracle(two.up.source_rows())


def test_where_rewrites_are_ignored_the_undone_rows_stay(tmp_path: Path) -> None:
    """As the policy says: what leaves the source stays, and what comes again is new. The documentation warns of it."""
    two = Two.of(tmp_path, on_rewrite="ignore")
    session = two.load(0, 1)
    two.down()
    rolled_back(two.up, session)
    two.down()
    steps.run(two.up.process())
    two.down()
    assert two.rows == two.up.target_rows() + two.up.target_rows()
