"""The store as triggers open it: again and again while it does not answer, and never another one than their tasks have seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_incremental.core.errors import IncrementalError

if TYPE_CHECKING:
    from airflow_incremental.store.database import Store


async def open_store(
    incremental_conn_id: str, store_id: str | None, *, interval: float, tell: Callable[[str], None]
) -> Store:
    """Return the store of an Airflow connection, waiting until it answers.

    :param store_id: which one it has to be; None for any.
    :param interval: seconds between two tries.
    :param tell: is called with what is wrong, after each try.
    :raises IncrementalError: what waiting does not mend, such as StoreMismatch.
    """
    from airflow_incremental.hooks.store import IncrementalStoreHook

    while True:
        try:
            store = await IncrementalStoreHook.aget_store(incremental_conn_id)
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
