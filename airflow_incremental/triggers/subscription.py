"""Start runs on signals: an asset's watcher that fires once per match."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.literals import is_template, one_of
from airflow_incremental.core.signal_literals import check_dependencies
from airflow_incremental.core.signals import SignalDependency, check_name, read_dependencies
from airflow_incremental.triggers.announcing import Announcer

if TYPE_CHECKING:
    from airflow_incremental.triggers.acknowledged import MatchProducer

Start = Literal["latest", "earliest"]

#: Without shared streams: seconds after which an event that was handed to the triggerer is taken to be in Airflow's database. It
#: takes about one.
STORED_AFTER = 30.0


class SignalMatchTrigger(BaseEventTrigger):
    """Fires once per match of one to four signals; for ``AssetWatcher``, which starts the DAGs that are scheduled on its asset.

    Of the signals that fit, the first of each dependency make the first match, the second ones the second, and so on; with ``join``
    so for each value that they are joined on. Each signal is used once. How far it has come is kept in the store under the name of
    the subscription, so a triggerer that is restarted, killed or doubled neither loses nor repeats a match.

    Its event, ``extra["payload"]`` of the asset's event, names the subscription and the match (``id``, ``number``) and holds its
    ``signals``. When Airflow has the event in its database (from 3.3 on it says so; before, half a minute later), the match is
    noted as announced. A triggerer that dies in between announces it again.

    What Airflow can still do to an event: events that come before a run has started are merged into one run; while the DAG is
    paused they start none; one that comes just after another may start none until the next one comes; one may come twice. So a run
    must not take its work from the event. A DAG whose first task is :class:`~airflow_incremental.ClaimMatchesOperator` is safe: it
    takes all matches that no task has taken, each exactly once; where an event was lost, the next one, or a run by hand or by
    schedule (``AssetOrTimeSchedule``), takes them.

    :param subscription: name under which the place is kept; one watcher each. It may not be given other signals later, unless it
        is closed first (``airflow-incremental subscriptions close``).
    :param signals: :class:`~airflow_incremental.SignalDependency` (or a mapping of its arguments), 4 at most. Not templated.
    :param start: which signals a new subscription gets: those from now on (``latest``) or all that the store has (``earliest``).
    :param poll_interval: seconds between two looks, at most; all who wait in a triggerer share a query per interval.
    :param incremental_conn_id: Airflow connection of the store; without it, a SQLite file in the Airflow home.
    """

    def __init__(
        self,
        *,
        subscription: str,
        signals: Sequence[SignalDependency | Mapping[str, Any]] | str,
        start: Start = "latest",
        poll_interval: float = 5.0,
        incremental_conn_id: str = "incremental_default",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.subscription = check_name(subscription, what="the name of a subscription")
        given: Any = json.loads(signals) if isinstance(signals, str) and signals.startswith("[") else signals
        check_dependencies(given)
        self.signals = [dependency.to_json() for dependency in read_dependencies(given)]
        if templates := [text for text in _texts([self.subscription, self.signals]) if is_template(text)]:
            raise ArgumentError(
                f"subscription {subscription!r} holds the template {templates[0]!r}",
                expected="literal values, because a watcher belongs to no run that could render it",
            )
        self.start = one_of(start, Start, what="start")
        if isinstance(poll_interval, bool) or not isinstance(poll_interval, (int, float)) or poll_interval <= 0:
            raise ArgumentError(f"poll_interval is {poll_interval!r}", expected="seconds, more than 0")
        self.poll_interval = float(poll_interval)
        self.incremental_conn_id = incremental_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, as Airflow stores them.

        The signals are JSON text: Airflow encodes arguments of watchers several times over, and a list of mappings is another one
        each time; it then leaves the watcher away without a word.
        """
        names = ("subscription", "start", "poll_interval", "incremental_conn_id")
        arguments = {name: getattr(self, name) for name in names}
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return (path, {**arguments, "signals": json.dumps(self.signals, sort_keys=True)})

    def shared_stream_key(self) -> Hashable | None:
        """Return a key of its own: the stream is not for sharing, but because only its producer hears that an event is stored."""
        if not hasattr(BaseEventTrigger, "create_shared_stream_producer"):
            return None
        path, arguments = self.serialize()
        return (path, json.dumps(arguments, sort_keys=True))

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> MatchProducer:
        """Return what hands the matches over and notes them."""
        from airflow_incremental.triggers.acknowledged import MatchProducer

        return MatchProducer(kwargs)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[dict[str, Any]]) -> AsyncIterator[TriggerEvent]:
        """Make each match an event."""
        async for payload in shared_stream:
            yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Make each match an event, where Airflow has no shared streams."""
        announcer = Announcer(**self.serialize()[1])
        out: deque[tuple[float, str]] = deque()
        noting = asyncio.create_task(_note_later(announcer, out))
        try:
            async with aclosing(announcer.matches()) as matches:
                async for match in matches:
                    yield TriggerEvent(match.to_json())  # type: ignore[no-untyped-call]
                    # Here the event is in the triggerer's memory, and dies with it.
                    out.append((time.monotonic() + STORED_AFTER, match.id))
        finally:
            noting.cancel()


async def _note_later(announcer: Announcer, out: deque[tuple[float, str]]) -> None:
    while True:
        await asyncio.sleep(1)
        due = []
        while out and out[0][0] <= time.monotonic():
            due.append(out.popleft()[1])
        if due:
            await announcer.note(due)


def _texts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in _texts(inner)]
    return [text for inner in value for text in _texts(inner)] if isinstance(value, list) else [value]
