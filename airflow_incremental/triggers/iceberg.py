"""Start DAGs from commits to an Iceberg table that changed its data."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_incremental.compat import state_stores
from airflow_incremental.core.literals import check_name, check_table
from airflow_incremental.core.ranges import EPOCH
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.operators.arguments import check_number
from airflow_incremental.operators.assets import DEFAULT_CONN_ID
from airflow_incremental.triggers.sharing import Look, looks

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import SharedStreamProducer
    from pyiceberg.table import Table

    from airflow_incremental.iceberg.news import News

log = logging.getLogger(__name__)


@attrs.frozen(eq=False)
class Poll:
    """One look at a table, for all watchers of it, and what they keep once their events of it are stored."""

    look: Look
    _kept: list[tuple[Any, str, Mapping[str, Any]]] = attrs.field(factory=list, init=False)

    def keep(self, stores: Sequence[Any], key: str, place: SourcePosition) -> None:
        """Have a place kept under a key in the state stores of assets."""
        self._kept.extend((store, key, place.to_json()) for store in stores)

    async def save(self) -> None:
        """Write down what is to be kept; what cannot be written is told of again after the next restart of the triggerer."""
        for store, key, place in self._kept:
            try:
                await store.aset(key, place)
            except Exception:
                log.warning("could not keep %s in %r; its event may come again", key, store, exc_info=True)


class IcebergDataTrigger(BaseEventTrigger):
    """Fires, for an ``AssetWatcher``, when commits have changed the data of an Iceberg table.

    It takes the arguments of the official provider's ``IcebergTableSnapshotTrigger`` and differs from it in three things. It fires
    for changes of data only: not for compaction, for commits without a file (such as a watermark that moves on), or when the branch
    is set back to an ancestor. It keeps its place when Airflow has stored the event, so that a crash in between repeats an event
    and loses none. And several assets can be watched with the same arguments: each gets every event. (It is no subclass, because
    importing that one imports pyiceberg, which a DAG file must not.)

    Watch an asset with a name of its own, not that of ``iceberg_asset(table)``: loads name that one too, without watchers, and of
    several assets with one name Airflow takes the last.

    Commits between two polls make one event. It carries ``table``, ``branch``, ``from_snapshot_id``, ``to_snapshot_id``,
    ``operations``, ``rows_added`` and ``history_cut``, see :class:`~airflow_incremental.iceberg.news.News`.

    Where no place is known there is one event for what is there, with ``from_snapshot_id`` None and ``history_cut`` true, since
    something may have been missed: at the first start, after Airflow has cleaned up the state of an asset that no DAG named for a
    while, and before Airflow 3.3, which keeps no state of assets, at every start of the triggerer. A table or branch that does not
    exist yet is waited for.

    :param table: identifier, ``namespace.table``.
    :param iceberg_conn_id: Airflow connection of the catalog.
    :param branch: branch that is watched.
    :param poll_interval: seconds between two looks; all watchers of one table in a triggerer share them.
    """

    def __init__(
        self,
        *,
        table: str,
        iceberg_conn_id: str = DEFAULT_CONN_ID,
        branch: str = "main",
        poll_interval: float = 60,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check_table(table, what="the table of IcebergDataTrigger")
        check_name(iceberg_conn_id, what="the iceberg_conn_id of IcebergDataTrigger")
        check_name(branch, what="the branch of IcebergDataTrigger")
        self.table = table
        self.iceberg_conn_id = iceberg_conn_id
        self.branch = branch
        self.poll_interval = check_number(poll_interval, what="poll_interval", least=0)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as the triggerer stores them."""
        names = ("table", "iceberg_conn_id", "branch", "poll_interval")
        return (f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names})

    def shared_stream_key(self) -> Hashable:
        """Return what watchers have in common that share their polls."""
        return (type(self).__qualname__, self.iceberg_conn_id, self.table, self.poll_interval)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return what polls for all watchers that share a key, and is told by Airflow when their events are stored."""
        from airflow_incremental.triggers.iceberg_stream import LookProducer

        return LookProducer(kwargs["iceberg_conn_id"], kwargs["table"], kwargs["poll_interval"])

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll alone: where Airflow has no shared streams (before 3.3), and no state in which a place could be kept either."""
        async with aclosing(looks(self.iceberg_conn_id, self.table, self.poll_interval)) as seen:
            async for event in self.filter_shared_stream(Poll(look) async for look in seen):
                yield event

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Make this watcher's events of the polls. What cannot be found out for a moment is looked at again at the next poll."""
        stores, place, is_known = state_stores(self), None, False
        async for poll in shared_stream:
            if poll.look.table is None:
                log.debug("%s does not exist; waiting", self.table)
                continue
            try:
                if not is_known:
                    place, is_known = await self._kept(stores), True
                here, news = await poll.look.ask(_news_since, self.branch, place)
            except Exception:
                log.warning("could not find out what is new in %s; looking again later", self.table, exc_info=True)
                continue
            if news is not None:
                found = {**attrs.asdict(news), "operations": list(news.operations)}
                yield TriggerEvent({"table": self.table, "branch": self.branch, **found})  # type: ignore[no-untyped-call]
            if here != place:
                # After the event is out, so that a cancellation in between leaves the place; it is written down even later, when
                # the next poll was taken and Airflow has stored the event, see LookProducer.
                poll.keep(stores, self._key, here)
                place = here

    @property
    def _key(self) -> str:
        """Name of the place in the state of an asset, which may have other watchers."""
        return ".".join(
            ("incremental.place", *(quote(n, safe="") for n in (self.iceberg_conn_id, self.table, self.branch)))
        )

    async def _kept(self, stores: Sequence[Any]) -> SourcePosition | None:
        """Return the place that is kept; where those of several assets differ, because a crash came between, the one least far."""
        found = [await store.aget(self._key) for store in stores]
        places = [SourcePosition.from_json(value) for value in found if value is not None]
        return min(places, key=lambda p: (p.sequence_number or 0, p.committed_at or EPOCH), default=None)


def _news_since(table: Table, branch: str, place: SourcePosition | None) -> tuple[SourcePosition, News | None]:
    from airflow_incremental.iceberg.news import news_since  # in the look's thread: it takes time

    return news_since(table, branch, place)
