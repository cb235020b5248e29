"""Threads in which triggers ask catalogs and stores: each of these has its own, so one that hangs keeps nobody waiting for another.

asyncio has a handful of threads for all of a triggerer, asgiref a single one. Airflow and other triggers need them, too.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async

P = ParamSpec("P")
T = TypeVar("T")

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
