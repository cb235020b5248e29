"""What a session put aside, and what it should have: for worlds whose audits have severity ``quarantine``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pyiceberg.exceptions import NoSuchTableError

from airflow_incremental.core.quarantine import MARKERS, REASONS_COLUMN
from tests.support.world import TARGET, World

QUARANTINE = f"{TARGET}__quarantine"


def quarantined_rows(world: World, name: str = QUARANTINE) -> list[dict[str, Any]]:
    """Return the rows on ``main`` of a quarantine table, which need not exist."""
    try:
        table = world.catalog.load_table(name)
    except NoSuchTableError:
        return []
    return [] if table.current_snapshot() is None else list(table.scan().to_arrow().to_pylist())


def staged_refs(world: World, name: str = QUARANTINE) -> list[str]:
    """Return the branches of a quarantine table besides ``main``."""
    try:
        return [ref for ref in world.catalog.load_table(name).metadata.refs if ref != "main"]
    except NoSuchTableError:
        return []


def plain(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return a row of a quarantine table as the target has it."""
    return tuple(value for name, value in row.items() if name not in MARKERS)


def check_split(world: World, offends: Callable[[tuple[Any, ...]], list[str]]) -> None:
    """Assert that target and quarantine together are what the oracle says, each row once, and nothing is left staged.

    :param offends: of a row as the target has it, the audits it offends.
    """
    expected = world.oracle(world.source_rows())
    assert world.target_rows() == Counter({row: n for row, n in expected.items() if not offends(row)})
    found = Counter((plain(row), *row[REASONS_COLUMN]) for row in quarantined_rows(world))
    assert found == Counter({(row, *offends(row)): n for row, n in expected.items() if offends(row)})
    assert staged_refs(world) == []
    left = [r for r in world.target.metadata.refs if r.startswith("inc_") and not r.startswith("inc_wm_")]
    assert [r for r in left if not r.startswith("inc_failed_")] == []
