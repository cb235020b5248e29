"""Threads in which triggers ask catalogs and stores: each of these has its own, so one that hangs keeps nobody waiting for another.

asyncio has a handful of threads for all of a triggerer, asgiref a single one. Airflow and other triggers need them, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from airflow_incremental.triggers.within import within

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that a catalog or store has for an answer: a connection that leads nowhere any more may never be closed.
PATIENCE = 300.0
#: Questions that one catalog or store is asked at once.
_AT_ONCE = 6

_THREADS: dict[str, ThreadPoolExecutor] = {}


async def in_thread_of(whom: str, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do work in one of the threads of a catalog or store.

    What asks Airflow for a connection finds its way back from there to the triggerer's loop, in Airflow 3.1, too.

    :param whom: what is asked: a connection's or a store's id.
    """
    threads = _THREADS.setdefault(whom, ThreadPoolExecutor(_AT_ONCE, thread_name_prefix=f"incremental-{whom}"))
    return await sync_to_async(work, thread_sensitive=False, executor=threads)(*arguments, **named)


async def in_time(whom: str, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do work in one of the threads of a catalog or store, and give up what hangs.

    :raises TimeoutError: it took too long. (In Python 3.10 it is that of ``asyncio``.)
    """
    try:
        return await within(PATIENCE, in_thread_of(whom, work, *arguments, **named))
    except asyncio.TimeoutError:
        leave_threads_of(whom)
        raise asyncio.TimeoutError(f"no answer in {PATIENCE:g} seconds") from None


def leave_threads_of(whom: str) -> None:
    """Leave the threads of a catalog or store to what hangs in them: who asks next gets others."""
    if (threads := _THREADS.pop(whom, None)) is not None:
        threads.shutdown(wait=False)
