"""A world of each mode, for what must hold in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_incremental.core.chunks import Chunking
from tests.support.balances import Balances
from tests.support.totals import Totals
from tests.support.union import Union
from tests.support.world import World

MODES = ("append", "append a union", "overwrite", "stateful", "stateful in steps", "merge")
#: In steps or chunks, a session keeps each finished one where ``keep_parts_every=0`` says so.
IN_PARTS = ("stateful in steps", "append in chunks", "overwrite in chunks")


def world_of(home: Path, mode: str, **options: Any) -> World:
    """Return a world with a process of the mode."""
    if mode.startswith("stateful"):
        return Balances(home=home, step="hour" if mode.endswith("steps") else None, **options)
    if mode.endswith("union"):
        return Union(home=home, **options)
    if mode.endswith("chunks"):
        options["binding"] = {"chunking": Chunking(1, 3), **options.get("binding", {})}
    return (
        Totals(home=home, **options) if mode == "merge" else World(home=home, mode=mode.split(maxsplit=1)[0], **options)
    )
