"""The store as triggers open it: again and again while it does not answer, and never another one than their tasks have seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_incremental.core.errors import IncrementalError

if TYPE_CHECKING:
    from airflow_incremental.store.database import Store

#: Of each event loop: connection -> the question for its store that is being answered.
_ASKED: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Task[Store]]] = WeakKeyDictionary()


async def open_store(
    incremental_conn_id: str, store_id: str | None, *, interval: float, tell: Callable[[str], None]
) -> Store:
    """Return the store of an Airflow connection, waiting until it answers.

    :param store_id: which one it has to be; None for any.
    :param interval: seconds between two tries.
    :param tell: is called with what is wrong, after each try.
    :raises IncrementalError: what waiting does not mend, such as StoreMismatch.
    """
    while True:
        try:
            store = await _ask(incremental_conn_id)
        except Exception as error:
            # Airflow itself, which knows the connection, may not answer either.
            if isinstance(error, IncrementalError) and not error.retryable:
                raise
            tell(str(error))
        else:
            if store_id is not None:
                store.check(store_id)
            return store
        await asyncio.sleep(interval)


async def _ask(incremental_conn_id: str) -> Store:
    """Ask Airflow for the connection and open its store, together with all who ask in the same moment.

    A connection costs several messages to the triggerer's supervisor, each of which has it look into Airflow's database: by
    themselves, a thousand waits that a triggerer takes over would ask for minutes.
    """
    from airflow_incremental.hooks.store import IncrementalStoreHook

    asked = _ASKED.setdefault(asyncio.get_running_loop(), {})
    if incremental_conn_id not in asked:

        def forget(done: asyncio.Task[Store]) -> None:
            del asked[incremental_conn_id]
            if not done.cancelled():
                done.exception()  # looked at, if all who asked are gone

        asked[incremental_conn_id] = asyncio.create_task(IncrementalStoreHook.aget_store(incremental_conn_id))
        asked[incremental_conn_id].add_done_callback(forget)
    # Whoever is canceled takes the answer from nobody else.
    return await asyncio.shield(asked[incremental_conn_id])
