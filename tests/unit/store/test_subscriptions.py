from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from sqlalchemy import Connection, Engine, event, select

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signal_values import STRING_LIMIT
from airflow_incremental.core.signals import PARAMS_LIMIT, Emitter, SignalDependency, ge
from airflow_incremental.store.matches import claim, mark_announced, unannounced
from airflow_incremental.store.schema import candidate, match
from airflow_incremental.store.subscriptions import advance, close_subscription, list_subscriptions, subscribe
from tests.support.signal_store import a_run, put


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as conn:
        yield conn


JOINED = [SignalDependency("a", join=("day",)), SignalDependency("b", join=("date",))]


def test_a_subscription_starts_at_the_present_or_with_all_of_history(conn: Connection) -> None:
    put(conn, "a", {"day": 1})
    subscribe(conn, "late", [SignalDependency("a")])
    subscribe(conn, "all", [SignalDependency("a")], start="earliest")
    put(conn, "a", {"day": 2})
    assert (advance(conn, "late"), advance(conn, "all")) == (1, 2)
    assert (advance(conn, "late"), advance(conn, "all")) == (0, 0)


def test_a_name_that_was_never_emitted_can_be_waited_for(conn: Connection) -> None:
    subscribe(conn, "s", [SignalDependency("new")])
    assert advance(conn, "s") == 0
    put(conn, "new")
    assert advance(conn, "s") == 1


def test_signals_are_joined_in_order_and_each_is_used_once(conn: Connection) -> None:
    subscribe(conn, "s", JOINED)
    for n, day in enumerate([1, 2, 1, 1]):
        put(conn, "a", {"day": day, "n": n})
    assert advance(conn, "s") == 0
    for n, day in enumerate([1, 1, 3, 2]):
        put(conn, "b", {"date": day, "n": n})
    assert advance(conn, "s") == 3
    found = unannounced(conn, "s", 10)
    assert [tuple(signal.seq for signal in m.signals) for m in found] == [(1, 1), (2, 4), (3, 2)]
    assert [m.number for m in found] == [1, 2, 3]
    assert conn.execute(select(candidate.c.position, candidate.c.seq).order_by(candidate.c.position)).all() == [
        (0, 4),
        (1, 3),
    ]


def test_one_signal_may_serve_two_dependencies_on_its_name(conn: Connection) -> None:
    subscribe(conn, "s", [SignalDependency("a"), SignalDependency("a")])
    put(conn, "a")
    assert advance(conn, "s") == 1


def test_long_values_are_joined(conn: Connection) -> None:
    """An index of PostgreSQL takes some 2,700 bytes, and 512 letters of Chinese are more as JSON."""
    keys = tuple(f"k{i}" for i in range(PARAMS_LIMIT))
    random = Random(1)
    values = {key: "".join(chr(random.randrange(0x4E00, 0x9FA5)) for _ in range(STRING_LIMIT)) for key in keys}
    subscribe(conn, "s", [SignalDependency("a", join=keys), SignalDependency("b", join=keys)])
    put(conn, "a", values)
    put(conn, "b", values | {"k15": values["k15"][:-1]})
    assert advance(conn, "s") == 0
    put(conn, "b", values)
    assert advance(conn, "s") == 1


def test_a_match_is_announced_until_that_is_marked(conn: Connection) -> None:
    subscribe(conn, "s", [SignalDependency("a")])
    put(conn, "a", {"day": 1})
    advance(conn, "s")
    (first,) = unannounced(conn, "s", 10)
    assert unannounced(conn, "s", 10) == [first]
    mark_announced(conn, [first.id])
    assert unannounced(conn, "s", 10) == []
    assert first.to_json()["signals"][0]["params"] == {"day": 1}


def test_a_run_claims_all_there_is_and_its_retry_gets_the_same(conn: Connection) -> None:
    subscribe(conn, "s", [SignalDependency("a")])
    put(conn, "a", {"day": 1})
    put(conn, "a", {"day": 2})
    advance(conn, "s")
    first = claim(conn, "s", a_run("one"))
    assert [m.number for m in first] == [1, 2]
    assert claim(conn, "s", a_run("two")) == []
    assert [m.id for m in claim(conn, "s", a_run("one", try_number=2))] == [m.id for m in first]


def test_a_limit_counts_what_earlier_tries_took(conn: Connection) -> None:
    subscribe(conn, "s", [SignalDependency("a")])
    for day in range(3):
        put(conn, "a", {"day": day})
    advance(conn, "s")
    assert [m.number for m in claim(conn, "s", a_run("one"), limit=2)] == [1, 2]
    assert [m.number for m in claim(conn, "s", a_run("one"), limit=2)] == [1, 2]
    assert [m.number for m in claim(conn, "s", a_run("two"), limit=2)] == [3]


def test_a_claim_says_which_run_it_is_of(conn: Connection) -> None:
    subscribe(conn, "s", [SignalDependency("a")])
    with pytest.raises(ArgumentError, match="its DAG and its run"):
        claim(conn, "s", Emitter(source="task"))


def test_other_dependencies_under_an_open_name_are_refused(conn: Connection) -> None:
    made = subscribe(conn, "s", JOINED)
    assert subscribe(conn, "s", JOINED) == made
    with pytest.raises(ArgumentError, match="close the subscription first"):
        subscribe(conn, "s", [SignalDependency("a")])


def test_closing_drops_what_nobody_claimed_and_the_name_can_be_opened_anew(conn: Connection) -> None:
    subscribe(conn, "s", [SignalDependency("a")])
    put(conn, "a", {"day": 1})
    advance(conn, "s")
    claim(conn, "s", a_run("one"))
    put(conn, "a", {"day": 2})
    advance(conn, "s")
    close_subscription(conn, "s")
    put(conn, "a", {"day": 3})
    assert advance(conn, "s") == 0
    assert conn.execute(select(match.c.number)).scalars().all() == [1]
    assert subscribe(conn, "s", [SignalDependency("b")]).state == "open"
    put(conn, "b")
    assert advance(conn, "s") == 1
    assert [m.number for m in claim(conn, "s", a_run("two"))] == [3]
    assert [s.name for s in list_subscriptions(conn)] == ["s"]


def test_a_condition_of_another_kind_is_refused_when_it_is_known(conn: Connection) -> None:
    put(conn, "a", {"day": "monday"})
    with pytest.raises(ArgumentError, match="'day' of signal 'a' in subscription 's'"):
        subscribe(conn, "s", [SignalDependency.read({"name": "a", "match": {"day": ge(1)}})])


def test_a_condition_of_another_kind_stops_its_own_subscription_and_loses_nothing(engine: Engine) -> None:
    with engine.begin() as conn:
        subscribe(conn, "bad", [SignalDependency.read({"name": "a", "match": {"day": ge(1)}})])
        subscribe(conn, "good", [SignalDependency("a")])
        put(conn, "a", {"day": "monday"})
    for _ in range(2):
        with pytest.raises(ArgumentError, match="parameter 'day' of signal 'a'"), engine.begin() as conn:
            advance(conn, "bad")
    with engine.begin() as conn:
        assert advance(conn, "good") == 1


@pytest.mark.parametrize("call", [advance, close_subscription])
def test_what_is_not_there_is_said_so(conn: Connection, call: object) -> None:
    assert callable(call)
    with pytest.raises(ArgumentError, match="no subscription 'nobody'"):
        call(conn, "nobody")


def test_an_unknown_start_is_refused(conn: Connection) -> None:
    with pytest.raises(ArgumentError, match="latest or earliest"):
        subscribe(conn, "s", [SignalDependency("a")], start="now")  # type: ignore[arg-type]


def test_many_signals_take_few_statements(engine: Engine) -> None:
    statements: list[str] = []
    with engine.begin() as conn:
        subscribe(conn, "s", JOINED)
        for n in range(300):
            put(conn, "a", {"day": n % 70, "n": n})
            put(conn, "b", {"date": n % 70, "n": n})
        event.listen(conn, "before_cursor_execute", lambda *given: statements.append(given[2]))
        assert advance(conn, "s") == 300
    assert len(statements) < 20
