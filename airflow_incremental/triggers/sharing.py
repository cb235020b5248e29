"""One look at a table for all in this triggerer that wait for it: a table is loaded once per interval, however many there are.

Each event loop has its own registry, and a table leaves it with the last that waits. Airflow has shared streams for triggers of
assets only; what deferred tasks wait for is shared here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import attrs

from airflow_incremental.operators.runtime import catalog_of
from airflow_incremental.triggers.threads import in_time

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

log = logging.getLogger(__name__)

#: Seconds between two looks at a table, at least, however short an interval is asked for.
PAUSE = 0.1

Answer = TypeVar("Answer")


@attrs.define(eq=False)
class Look:
    """A table as it was at one moment.

    :param table: None if it was not there.
    :param at: when the look began, in the seconds of the event loop's clock; what was committed later is not seen.
    :param catalog: connection of its catalog, whose threads work on it.
    """

    table: Table | None
    at: float
    _catalog: str
    _answers: dict[Hashable, asyncio.Task[Any]] = attrs.field(factory=dict, init=False)

    async def ask(self, question: Callable[..., Answer], *arguments: Hashable) -> Answer:
        """Return ``question(table, *arguments)``, worked out in a thread, once for all that ask the same of this look."""
        key = (question, *arguments)
        if key not in self._answers:
            self._answers[key] = asyncio.ensure_future(in_time(self._catalog, question, self.table, *arguments))
        # Shielded: one that stops waiting takes nothing away from the others.
        answer: Answer = await asyncio.shield(self._answers[key])
        return answer


@attrs.define(eq=False)
class SharedTable:
    """A table that somebody in this event loop waits for."""

    iceberg_conn_id: str
    identifier: str
    #: How many wait for it.
    waiting: int = attrs.field(default=0, init=False)
    _catalog: Catalog | None = attrs.field(default=None, init=False)
    _looking: asyncio.Task[Look] | None = attrs.field(default=None, init=False)

    async def look(self, max_age: float) -> Look:
        """Return a look that is less than ``max_age`` seconds old: that of another, or a new one.

        :raises Exception: the catalog cannot be had, or does not answer.
        """
        if self._looking is None or self._is_over(self._looking, max_age):
            self._looking = asyncio.ensure_future(self._take())
        return await asyncio.shield(self._looking)

    @staticmethod
    def _is_over(looking: asyncio.Task[Look], max_age: float) -> bool:
        if not looking.done():
            return False
        failed = looking.cancelled() or looking.exception() is not None
        return failed or asyncio.get_running_loop().time() - looking.result().at >= max_age

    async def _take(self) -> Look:
        at = asyncio.get_running_loop().time()
        try:
            if self._catalog is None:
                self._catalog = await in_time(self.iceberg_conn_id, catalog_of, self.iceberg_conn_id)
            table = await in_time(self.iceberg_conn_id, _find, self._catalog, self.identifier)
            return Look(table=table, at=at, catalog=self.iceberg_conn_id)
        except Exception:
            self._catalog = None  # the connection may be another by the next look
            raise


def _find(catalog: Catalog, identifier: str) -> Table | None:
    from airflow_incremental.iceberg.waiting import find_table  # which takes a second, and not of the event loop

    return find_table(catalog, identifier)


_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], SharedTable]] = WeakKeyDictionary()


@contextmanager
def shared_table(iceberg_conn_id: str, identifier: str) -> Iterator[SharedTable]:
    """Wait for a table together with all others of this event loop.

    :param iceberg_conn_id: Airflow connection of the catalog.
    :param identifier: the table.
    """
    tables = _LOOPS.setdefault(asyncio.get_running_loop(), {})
    key = (iceberg_conn_id, identifier)
    shared = tables.setdefault(key, SharedTable(iceberg_conn_id, identifier))
    shared.waiting += 1
    try:
        yield shared
    finally:
        shared.waiting -= 1
        if not shared.waiting:
            del tables[key]


async def looks(iceberg_conn_id: str, identifier: str, interval: float) -> AsyncGenerator[Look, None]:
    """Yield looks at a table for ever, together with all others of this event loop; a catalog that does not answer is asked again.

    :param iceberg_conn_id: Airflow connection of the catalog.
    :param identifier: the table.
    :param interval: seconds between two looks; a tenth of one at least.
    """
    clock = asyncio.get_running_loop().time
    interval = max(interval, PAUSE)
    with shared_table(iceberg_conn_id, identifier) as shared:
        while True:
            begun = clock()
            try:
                look = await shared.look(interval)
            except Exception:
                log.warning("could not look at %s; looking again later", identifier, exc_info=True)
            else:
                yield look
                begun = look.at  # so that all that wait for the table wake up together
            await asyncio.sleep(max(0.0, begun + interval - clock()))
