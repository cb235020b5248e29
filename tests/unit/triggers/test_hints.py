"""LISTEN and NOTIFY of PostgreSQL: a signal is heard of before the next poll, and polling goes on without them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import make_url, text

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signals import SignalDependency
from airflow_incremental.store.database import Store
from airflow_incremental.store.hints import Listener, is_asked_for
from airflow_incremental.triggers import polling
from airflow_incremental.triggers.polling import Poller
from tests.support.stores import say

NEVER = 3600


@pytest.fixture
def hinted(postgresql_store: Store) -> Iterator[Store]:
    """A store whose address asks for hints, and says of connections what we would say ourselves."""
    more = {"notify": "true", "connect_timeout": "20", "application_name": "mine"}
    url = postgresql_store.engine.url.update_query_dict(more)
    opened = Store.open(url)
    yield opened
    opened.close()


async def woken(store: Store, *, interval: float, after: Callable[[], object]) -> float:
    """Do something when a wait has been looked at once, and return the seconds until it is woken."""
    with Poller.of(store).waiting([SignalDependency("a")], {}, interval=interval) as one:
        await asyncio.sleep(1)
        started = time.monotonic()
        await asyncio.to_thread(after)
        await asyncio.wait_for(one.fitted(), 20)
        return time.monotonic() - started


def lose_listeners(store: Store) -> int:
    """Cut the connections that listen, and return how many there were."""
    with store.write() as conn:
        rows = conn.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN incremental%'")
        )
        return len(rows.all())


def test_an_address_may_say_how_to_connect(hinted: Store) -> None:
    with hinted.read() as conn:
        assert (
            conn.execute(text("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")).scalar()
            == "mine"
        )
    listener = Listener.open(hinted.engine)
    assert listener is not None
    assert listener.is_alive()
    listener.close()


def test_a_signal_is_heard_of_long_before_the_next_poll(hinted: Store) -> None:
    assert asyncio.run(woken(hinted, interval=NEVER, after=lambda: say(hinted, "a"))) < 10


def test_a_store_without_hints_is_polled_and_its_emits_give_none(postgresql_store: Store, hinted: Store) -> None:
    async def scene() -> None:
        with Poller.of(hinted).waiting([SignalDependency("a")], {}, interval=NEVER) as one:
            await asyncio.sleep(1)
            await asyncio.to_thread(say, postgresql_store, "a")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(one.fitted(), 1)

    asyncio.run(scene())
    assert asyncio.run(woken(postgresql_store, interval=0.1, after=lambda: None)) < 10
    assert lose_listeners(postgresql_store) == 0


def test_a_lost_listener_is_made_anew(hinted: Store) -> None:
    def cut_and_say() -> None:
        assert lose_listeners(hinted) == 1
        time.sleep(1)  # by now the poller has looked, and listens again
        say(hinted, "a")

    assert asyncio.run(woken(hinted, interval=NEVER, after=cut_and_say)) < 15
    assert lose_listeners(hinted) == 0  # the last wait is over


def test_polling_goes_on_where_nobody_can_listen(hinted: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Listener, "open", classmethod(lambda _cls, _engine: None))
    assert asyncio.run(woken(hinted, interval=0.1, after=lambda: say(hinted, "a"))) < 10


def test_many_hints_do_not_make_many_looks(hinted: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    poller_look = Poller._look

    async def counted(self: Poller) -> bool:
        nonlocal looks
        looks += 1
        return await poller_look(self)

    monkeypatch.setattr(Poller, "_look", counted)
    monkeypatch.setattr(polling, "PAUSE", 0.1)

    def say_often() -> None:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            say(hinted, "b", n=time.monotonic_ns())
        say(hinted, "a")

    asyncio.run(woken(hinted, interval=NEVER, after=say_often))
    assert 2 <= looks <= 30  # a tenth of a second between two


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(ArgumentError, match="notify of the store's address is 'maybe'"):
        Store.open("postgresql+psycopg2://host/database?notify=maybe")
    with pytest.raises(ArgumentError, match="its driver is pg8000"):
        is_asked_for(make_url("postgresql+pg8000://host/database?notify=true"))
    assert not is_asked_for(make_url("postgresql+pg8000://host/database?notify=false"))
