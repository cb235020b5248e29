"""An engine that notes what a transform runs over and can fail, and tries of a session with it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from airflow_incremental.core.plan import Plan
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.engines.duckdb import DuckDBEngine
from airflow_incremental.engines.worker import TransformInterrupted
from airflow_incremental.sessions import steps
from tests.support.world import World


@attrs.frozen(kw_only=True)
class Counting(DuckDBEngine):
    """Notes what the transform runs over, and fails at one of its runs.

    :param of: text in the transform whose runs count; others are queries of the state.
    """

    fail_at: int | None = None
    of: str = ""
    seen: list[EventRanges] = attrs.field(factory=list)

    def run(self, transform: Any, reads: Any, plan: Plan, **options: Any) -> Any:
        """Run it, or fail."""
        if self.of in str(transform):
            if len(self.seen) == self.fail_at:
                raise TransformInterrupted("killed")
            self.seen.append(plan.affected)
        return super().run(transform, reads, plan, **options)


def attempt(world: World, fail_at: int | None = None, *, of: str = "", **changes: Any) -> list[EventRanges]:
    """Run all steps as one try of the run, keeping each finished part, and return what the transform ran over."""
    engine = Counting(fail_at=fail_at, of=of)
    process = world.process("run", **{"keep_parts_every": 0.0, "engine": engine, **changes})
    if fail_at is None:
        assert steps.run(process).did_publish
    else:
        with pytest.raises(TransformInterrupted):
            steps.run(process)
    return engine.seen
