"""Waiting that has an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float, awaited: Awaitable[T]) -> T:
    """Wait for something, at most so long; then, or when the wait is cancelled, it is cancelled.

    ``asyncio.wait_for`` does that too, but before Python 3.12 it overhears that it is cancelled if what it waits for is done in the
    same moment, and a trigger that goes on waiting again and again is then never stopped.

    :raises TimeoutError: it took longer. (In Python 3.10 it is that of ``asyncio``.)
    """
    task = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()
