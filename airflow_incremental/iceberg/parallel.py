"""Waiting for several files at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

#: Files that are read at the same time: enough to hide the latency of object storage, few enough for a small worker.
READERS = 4

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply ``work`` to items a few at a time, keeping their order."""
    todo = list(items)
    if len(todo) <= 1:
        return [work(item) for item in todo]
    with ThreadPoolExecutor(min(READERS, len(todo))) as pool:
        return list(pool.map(work, todo))
