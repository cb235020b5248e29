"""A world of each mode, for what must hold in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.balances import Balances
from tests.support.totals import Totals
from tests.support.union import Union
from tests.support.world import World

#: In steps, a ``stateful`` session keeps each finished one where ``keep_steps_every=0`` says so.
MODES = ("append", "append a union", "overwrite", "stateful", "stateful in steps", "merge")


def world_of(home: Path, mode: str, **options: Any) -> World:
    """Return a world with a process of the mode."""
    if mode.startswith("stateful"):
        return Balances(home=home, step="hour" if mode.endswith("steps") else None, **options)
    if mode.endswith("union"):
        return Union(home=home, **options)
    return Totals(home=home, **options) if mode == "merge" else World(home=home, mode=mode, **options)
