from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from random import Random
from typing import Any

import pytest

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signal_values import STRING_LIMIT, as_timestamp
from airflow_incremental.core.signals import NAME_LIMIT, SignalDependency, ge, in_, lt, read_dependencies
from airflow_incremental.store.database import Store
from airflow_incremental.store.emitting import Emission, emit_on
from airflow_incremental.store.searching import find_gate, has_signal, list_signals, newest, since
from tests.support.stores import TASK, say

HOUR = dt.datetime(2023, 9, 14, 6, tzinfo=UTC)


def test_a_signal_is_read_as_it_was_emitted(store: Store) -> None:
    emitted = say(store, "fact", payload={"rows": [1, None]}, hour=HOUR, day=HOUR.date(), region="eu", batch=7)

    with store.read() as conn:
        (found,) = list_signals(conn, None, limit=10)

    assert emitted.new
    assert found == emitted.signal
    assert found.params == {"batch": 7, "day": HOUR.date(), "hour": HOUR, "region": "eu"}
    assert found.emitter == TASK


def test_the_same_fact_is_one_row_and_says_so(store: Store) -> None:
    first = say(store, "fact", hour=HOUR, region="eu")
    again = say(store, "fact", payload={"other": 1}, region="eu", hour=HOUR.isoformat())
    other = say(store, "fact", hour=HOUR, region="us")

    assert (first.new, again.new, other.new) == (True, False, True)
    assert again.signal == first.signal
    assert (first.signal.seq, other.signal.seq) == (1, 2)
    assert say(store, "elsewhere", hour=HOUR, region="eu").signal.seq == 1


def test_a_request_id_is_the_identity(store: Store) -> None:
    assert say(store, "fact", request_id="r1", n=1).new
    assert not say(store, "fact", request_id="r1", n=2).new
    assert say(store, "fact", request_id="r2", n=1).new
    with store.read() as conn:
        assert has_signal(conn, "fact", "r2")
        assert not has_signal(conn, "fact", "r3")
        assert not has_signal(conn, "other", "r2")


def test_the_longest_names_and_values_are_found_again(store: Store) -> None:
    """None of them is so regular that an index could compress it."""
    letters = [chr(code) for code in range(0x1F300, 0x1F600)]
    key, text = ("".join(Random(n).choices(letters, k=n)) for n in (NAME_LIMIT // 4, STRING_LIMIT))
    with pytest.raises(ArgumentError, match="printable characters, 256 bytes at most in UTF-8"):
        say(store, "fact", **{f"{key}x": text})
    with store.write() as conn:
        said = emit_on(conn, Emission.read(key, {key: text}, request_id=key, emitter=TASK)).signal
    with store.read() as conn:
        assert find_gate(conn, read_dependencies([{"name": key, "match": {key: text}, "join": [key]}])) == (said,)


def test_a_parameter_keeps_the_kind_of_its_first_signal(store: Store) -> None:
    say(store, "fact", hour=HOUR)
    with pytest.raises(ArgumentError, match="is 6, an integer, but this parameter is a timestamp"):
        say(store, "fact", hour=6)
    with pytest.raises(ArgumentError, match="'six', which is not a timestamp"):
        say(store, "fact", hour="six")
    assert say(store, "fact", hour="2023-09-14T07:00:00Z").signal.seq == 2, "what was refused left no gap"


def gate(store: Store, *dependencies: Any) -> tuple[int, ...] | None:
    with store.read() as conn:
        found = find_gate(conn, read_dependencies(dependencies))
    return None if found is None else tuple(signal.seq for signal in found)


def test_what_was_emitted_before_fixes_no_kind(store: Store) -> None:
    say(store, "fact", request_id="r1", n=1)
    assert not say(store, "fact", request_id="r1", batch="seven").new
    with store.read() as conn:
        assert find_gate(conn, read_dependencies([{"name": "fact", "match": {"batch": 7}}])) is None
    assert say(store, "fact", request_id="r2", batch=7, n="2").signal.params == {"batch": 7, "n": 2}


def test_a_gate_looks_into_all_of_history_and_takes_the_first(store: Store) -> None:
    wanted = {"name": "fact", "match": {"hour": ge(HOUR.isoformat()), "region": "eu"}}
    assert gate(store, wanted) is None
    say(store, "fact", hour=HOUR - dt.timedelta(hours=1), region="eu")
    say(store, "fact", hour=HOUR, region="us")
    assert gate(store, wanted) is None
    say(store, "fact", hour=HOUR + dt.timedelta(hours=2), region="eu")
    say(store, "fact", hour=HOUR, region="eu")
    assert gate(store, wanted) == (3,)
    assert gate(store, {"name": "fact", "match": {"region": in_(["us", "asia"])}}) == (2,)
    assert gate(store, {"name": "fact", "match": {"hour": lt(as_timestamp(HOUR))}}) == (1,)
    assert gate(store, {"name": "fact", "match": {"colour": "red"}}) is None
    assert gate(store, {"name": "fact"}) == (1,)


def test_signals_are_joined_on_parameters_of_other_names(store: Store) -> None:
    wanted = ({"name": "a", "join": ["day", "region"]}, {"name": "b", "join": ["date", "region"]})
    say(store, "a", day=1, region="eu")
    say(store, "b", date=2, region="eu")
    say(store, "b", date=1, region="us")
    assert gate(store, *wanted) is None
    assert gate(store, {"name": "a"}, {"name": "b"}) == (1, 1)
    say(store, "a", day=2, region="eu")
    assert gate(store, *wanted) == (2, 1)
    say(store, "b", date=1, region="eu")
    assert gate(store, *wanted) == (1, 3), "the oldest of the first that has a partner"


def test_a_condition_of_another_kind_is_refused(store: Store) -> None:
    say(store, "fact", hour=6)
    with pytest.raises(ArgumentError, match=r"6 o'clock.*, which is not an integer"):
        gate(store, {"name": "fact", "match": {"hour": "6 o'clock"}})


def test_who_follows_gets_what_is_beyond_his_places(store: Store) -> None:
    for n in range(3):
        say(store, "a", n=n)
    say(store, "b", n=0)
    with store.read() as conn:
        assert newest(conn) == {"a": 3, "b": 1}
        assert newest(conn, ["a", "c"]) == {"a": 3, "c": 0}
        assert [(s.name, s.seq) for s in since(conn, {"a": 1, "b": 0, "c": 0}, limit=10)] == [
            ("a", 2),
            ("a", 3),
            ("b", 1),
        ]
        assert [s.seq for s in since(conn, {"a": 0}, limit=2)] == [1, 2]
        assert len(since(conn, {f"n{n}": 0 for n in range(40_000)} | {"a": 0}, limit=10)) == 3


def test_who_follows_many_names_gets_all_and_no_more_than_asked_for(store: Store) -> None:
    with store.write() as conn:
        for n in range(250):
            emit_on(conn, Emission.read(f"n{n:03}", {}, emitter=TASK))
    places = {f"n{n:03}": 0 for n in range(250)}
    seen: list[str] = []
    with store.read() as conn:
        while found := since(conn, places, limit=120):
            assert len(found) == min(120, 250 - len(seen))
            seen += [each.name for each in found]
            places.update({each.name: each.seq for each in found})
    assert seen == sorted(places)


NASTY = (
    "'; DROP TABLE incremental_signal; --",
    '"%s" {0} %(x)s',
    "{{ 1/0 }}",
    "back\\slash",
    "ünï ☃",
    ":name",
    "$1",
    "a%b_c",
    "\\\\ \\u0000 \\x00 \\' ''",
    "?1 %% %n",
)


@pytest.mark.parametrize("text", NASTY)
def test_texts_are_only_texts(store: Store, text: str) -> None:
    emitted = say(store, text, payload={text: text}, **{text: text})

    with store.read() as conn:
        wanted = SignalDependency.read({"name": text, "match": {text: text}, "join": [text]})
        assert find_gate(conn, [wanted]) == (emitted.signal,)
        assert find_gate(conn, [SignalDependency.read({"name": text, "match": {text: ge(text)}})]) == (emitted.signal,)
    assert emitted.signal.params == {text: text}
    assert emitted.signal.payload == {text: text}


def test_many_at_once_are_in_order_without_gaps_and_no_follower_misses_one(store: Store) -> None:
    names, per_name, seen = ("a", "b"), 60, {"a": [], "b": []}  # type: ignore[var-annotated]
    done = threading.Event()

    def follow() -> None:
        places = dict.fromkeys(names, 0)
        while True:
            last = done.is_set()
            with store.read() as conn:
                for signal in since(conn, places, limit=7):
                    assert signal.seq == places[signal.name] + 1
                    places[signal.name] = signal.seq
                    seen[signal.name].append(signal.params["n"])
            if last and sum(map(len, seen.values())) == len(names) * per_name:
                return

    with ThreadPoolExecutor(5) as pool:
        follower = pool.submit(follow)
        # Every fact is said by two, in another order.
        said = [(name, n) for n in range(per_name) for name in names]
        halves = [
            pool.submit(lambda some: [say(store, name, n=n).new for name, n in some], some)
            for some in (said[::2], said[1::2], said[::-2], said[-2::-2])
        ]
        new = [flag for half in halves for flag in half.result()]
        done.set()
        follower.result(timeout=60)

    assert sum(new) == len(names) * per_name
    assert all(sorted(found) == list(range(per_name)) for found in seen.values())


@pytest.mark.parametrize(("first", "second"), [("six", 6), (6, "six")])
def test_who_has_to_wait_for_a_name_sees_what_was_fixed_meanwhile(store: Store, first: Any, second: Any) -> None:
    say(store, "fact", region="eu")
    with ThreadPoolExecutor(1) as pool:
        with store.write() as conn:
            emit_on(conn, Emission.read("fact", {"hour": first}, emitter=TASK))
            waiting = pool.submit(say, store, "fact", hour=second)
            assert not wait([waiting], timeout=0.5).done
        with pytest.raises(ArgumentError, match="hour"):
            waiting.result(timeout=30)
    assert say(store, "fact", region="us").signal.seq == 3, "what was refused left no gap"


def test_who_has_to_wait_for_a_name_is_dated_when_it_is_his_turn(store: Store) -> None:
    say(store, "fact", n=0)
    with ThreadPoolExecutor(1) as pool:
        with store.write() as conn:
            earlier = emit_on(conn, Emission.read("fact", {"n": 1}, emitter=TASK)).signal
            waiting = pool.submit(say, store, "fact", n=2)
            assert not wait([waiting], timeout=0.5).done
            over = dt.datetime.now(UTC)
        later = waiting.result(timeout=30).signal
    assert (earlier.seq, later.seq) == (2, 3)
    assert earlier.created_at < over < later.created_at
    with store.read() as conn:
        assert [s.created_at for s in since(conn, {"fact": 1}, limit=9)] == [earlier.created_at, later.created_at]
