"""What the tests of loads under Airflow share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_incremental import IcebergSource, IcebergTarget
from tests.support.world import APPEND_SQL, OVERWRITE_SQL, SOURCE, TARGET, World

#: Airflow connection of a test's catalog; its id is the catalog's name, which a SQL catalog keeps with every table.
CONN_ID = "test"

Worlds = Callable[..., World]


def arguments(world: World, **changes: Any) -> dict[str, Any]:
    """Return the arguments of an operator or group that runs a world's process."""
    return {
        "iceberg_conn_id": CONN_ID,
        "sources": {"events": IcebergSource(SOURCE, event_time="ts")},
        "target": IcebergTarget(TARGET, event_time=world.event_time, scope=world.scope),
        "process": world.name,
        "mode": world.mode,
        "retry_delay": 0,
        "transform": APPEND_SQL if world.mode == "append" else OVERWRITE_SQL,
        **changes,
    }


class FailsOnce:
    """Stands for a function and raises an error when it is called first.

    :param function: what is called.
    :param error: what is raised; None stands for dying.
    :param after: do the work first, and then die.
    """

    def __init__(self, function: Callable[..., Any], error: Exception | None = None, *, after: bool = False) -> None:
        self.function = function
        self.error = error or RuntimeError("the machine was switched off")
        self.after = after
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, or fail."""
        self.calls += 1
        if self.calls > 1:
            return self.function(*args, **kwargs)
        if self.after:
            self.function(*args, **kwargs)
        raise self.error
