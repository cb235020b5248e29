"""Which waits a signal concerns."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core import signals
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signal_index import SignalIndex
from airflow_incremental.core.signals import SignalDependency, ge, in_, lt

HOUR = dt.datetime(2023, 9, 14, 6, tzinfo=UTC)


def waiting(*dependencies: dict[str, Any]) -> SignalIndex[int]:
    """An index of dependencies by their number."""
    index: SignalIndex[int] = SignalIndex()
    for key, plain in enumerate(dependencies):
        index.add(key, SignalDependency.read(plain))
    return index


def found(index: SignalIndex[int], name: str, **params: Any) -> list[int]:
    return sorted(index.find(name, signals.read_params(params, name=name)))


def test_a_signal_concerns_those_that_wait_for_its_name_and_values() -> None:
    index = waiting(
        {"name": "a"},
        {"name": "b"},
        {"name": "a", "match": {"region": "eu"}},
        {"name": "a", "match": {"region": "us"}},
        {"name": "a", "match": {"region": "eu", "hour": ge(6)}},
        {"name": "a", "match": {"region": "eu", "hour": lt(6)}},
        {"name": "a", "match": {"region": in_(["eu", "us"])}},
        {"name": "a", "match": {"region": "eu", "hour": 6}},
    )
    assert found(index, "a", region="eu", hour=6) == [0, 2, 4, 6, 7]
    assert found(index, "a", region="us") == [0, 3, 6]
    assert found(index, "b") == [1]
    assert found(index, "c") == []


def test_a_signal_without_the_join_parameter_concerns_nobody() -> None:
    index = waiting({"name": "a", "join": ["day"]})
    assert found(index, "a", hour=6) == []
    assert found(index, "a", day="2023-09-14") == [0]


def test_rendered_text_is_read_as_the_kind_of_the_signals_whichever_came_first() -> None:
    index = waiting({"name": "a", "match": {"hour": "2023-09-14T08:00:00+02:00"}})
    assert found(index, "a", hour=HOUR) == [0]
    index.add(1, SignalDependency.read({"name": "a", "match": {"hour": "2023-09-14T06:00:00Z"}}))
    assert found(index, "a", hour=HOUR) == [0, 1]
    assert found(index, "a", hour=HOUR + dt.timedelta(hours=1)) == []


def test_who_asks_for_another_kind_hears_of_it() -> None:
    index = waiting(
        {"name": "a", "match": {"hour": "noon"}},
        {"name": "a", "match": {"hour": 6}},
        {"name": "a", "match": {"hour": 7}},
        {"name": "a", "match": {"hour": ge("noon")}},
    )
    assert found(index, "a", hour=6) == [0, 1, 3]


def test_what_was_removed_is_not_found_and_leaves_nothing_behind() -> None:
    dependencies = [{"name": "a", "match": {"hour": hour}} for hour in (6, 6, "noon")]
    index = waiting(*dependencies)
    assert found(index, "a", hour=6) == [0, 1, 2]
    index.remove(0, SignalDependency.read(dependencies[0]))
    assert found(index, "a", hour=6) == [1, 2]
    index.remove(2, SignalDependency.read(dependencies[2]))
    assert found(index, "a", hour=6) == [1]
    index.remove(1, SignalDependency.read(dependencies[1]))
    assert found(index, "a", hour=6) == []
    assert vars(index) == vars(SignalIndex())


CONDITIONS = st.one_of(
    st.integers(0, 2),
    st.integers(0, 2).map(str),
    st.builds(lambda sign, value: {sign: value}, st.sampled_from(["=", ">", ">=", "<", "<="]), st.integers(0, 2)),
    st.lists(st.integers(0, 2), min_size=1, max_size=2).map(in_),
)
DEPENDENCIES = st.fixed_dictionaries(
    {"name": st.sampled_from("ab"), "match": st.dictionaries(st.sampled_from("xy"), CONDITIONS, max_size=2)}
).filter(
    lambda d: (
        sum(isinstance(c, dict) and next(iter(c)) in "<=>=" and next(iter(c)) != "=" for c in d["match"].values()) < 2
    )
)
SIGNALS = st.tuples(st.sampled_from("ab"), st.dictionaries(st.sampled_from("xy"), st.integers(0, 2), max_size=2))


@given(st.lists(DEPENDENCIES, max_size=12), st.sets(st.integers(0, 11)), st.lists(SIGNALS, max_size=6))
def test_it_finds_what_asking_each_of_them_would(
    dependencies: list[dict[str, Any]], removed: set[int], emitted: list[tuple[str, dict[str, Any]]]
) -> None:
    read = [SignalDependency.read(plain) for plain in dependencies]
    index = waiting(*dependencies)
    for name, params in emitted[:3]:
        index.find(name, params)  # builds tables, which the changes after it have to keep right
    for key in removed & set(range(len(read))):
        index.remove(key, read[key])
    left = [key for key in range(len(read)) if key not in removed]
    for name, params in emitted:
        assert found(index, name, **params) == [k for k in left if read[k].name == name and read[k].matches(params)]
