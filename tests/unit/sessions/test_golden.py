"""The example of Psyberg's own description, tick by tick: which hours each table replaces or adds to, and why hour 7 has to wait.

The same through the operators is in ``tests/integration/dagtest/test_golden.py``.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import attrs
import pytest

from airflow_incremental.core.plan import Owner
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.process import Process
from tests.support.membership import FACTS, Membership, hour


@attrs.define
class Ticking(Membership):
    """Runs each process when it is told to."""

    _run: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    def tick(self, name: str) -> set[int]:
        """Run a process; return the hours it replaced, or added rows to."""
        finished = steps.run(
            Process(
                spec=ProcessSpec(**self.declaration(name)),
                catalog=self.catalog,
                owner=Owner(deployment="here", dag_id="dag", run_id=f"run{next(self._run)}", task_id=name),
                transform=self.transform(name),
            )
        )
        self.verify(name)
        if finished.plan is None or finished.published is None:
            return set()
        if FACTS.get(name) != "append":
            return {n for n in range(24) if finished.plan.replaced.contains(hour(n))}
        return self.written(name, finished.published.snapshot_id)


@pytest.fixture
def membership(tmp_path: Path) -> Ticking:
    """Everything is loaded through hour 5."""
    world = Ticking(home=tmp_path)
    world.set_up()
    for name in FACTS:
        world.land(name, 0, 1, 2, 3, 4, 5, complete=5)
        world.tick(name)
    world.tick("accounts")
    assert {world.watermark(n).complete_through for n in (*FACTS, "accounts")} == {hour(6)}
    assert world.watermark("accounts").processed_through == hour(6)
    return world


def test_the_golden_example(membership: Ticking) -> None:
    for name in ("signups", "plans"):
        membership.land(name, 2, 3, 6, complete=6)
        assert membership.tick(name) == {2, 3, 6}, "late rows land in the old hours they belong to"
    membership.land("cancels", 5, 6, 7, complete=7)
    assert membership.tick("cancels") == {5, 6, 7}, "everything from the late hour on is replaced"
    assert membership.tick("accounts") == {2, 3, 4, 5, 6}, "hour 7 is not complete in signups and plans"
    assert membership.watermark("accounts").complete_through == hour(7)
    assert membership.tick("accounts") == set()

    membership.land("signups", complete=7)
    membership.land("plans", complete=7)
    assert membership.tick("signups") == membership.tick("plans") == set(), "only complete-through moved"
    assert membership.watermark("signups").complete_through == hour(8)
    assert membership.tick("accounts") == {7}, "processed when it completes, without a row of signups or plans in it"
    assert membership.watermark("accounts").processed_through == hour(8)


def test_late_signups_that_page_nobody(membership: Ticking) -> None:
    """Psyberg part 1: signups of hour 3 arrive at hour 6. By hand: find them, stop downstream, rerun 3 to 6 in order, catch up."""
    membership.land("signups", 3, 3, 6, complete=6)
    membership.land("plans", 6, complete=6)
    membership.land("cancels", 6, complete=6)
    assert membership.tick("signups") == {3, 6}
    assert membership.tick("plans") == {6}
    assert membership.tick("cancels") == {6}
    assert membership.tick("accounts") == {3, 4, 5, 6}
    assert membership.watermark("accounts").processed_through == hour(7)
