from __future__ import annotations

import datetime as dt
import enum
import json
from http import HTTPStatus
from typing import Any

import pandas as pd
import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signal_values import (
    STRING_LIMIT,
    Value,
    as_date,
    as_integer,
    as_timestamp,
    decode,
    encode,
    plain_value,
    read_as,
    read_value,
)
from airflow_incremental.core.signals import (
    PARAMS_LIMIT,
    PAYLOAD_LIMIT,
    Condition,
    SignalDependency,
    check_name,
    dump_payload,
    eq,
    ge,
    gt,
    identity_of,
    in_,
    le,
    lt,
    read_dependencies,
    read_params,
)

EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))
STRINGS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=20)
MOMENTS = st.datetimes(timezones=st.sampled_from((UTC, EAST)))
KINDS = st.sampled_from((STRINGS, st.integers(-(2**63), 2**63 - 1), st.dates(), MOMENTS))


@given(st.data())
def test_encoded_values_sort_by_their_bytes_as_the_values_do(data: st.DataObject) -> None:
    values = data.draw(KINDS)
    one, other = data.draw(values), data.draw(values)

    first, second = encode(one).encode(), encode(other).encode()

    assert (first < second) == (one < other)
    assert (first == second) == (one == other)
    assert decode(encode(one)) == one


@given(KINDS.flatmap(lambda values: values))
def test_the_plain_form_is_read_again(value: Value) -> None:
    assert read_value(plain_value(read_value(value, what="x")), what="x") == value


def test_texts_are_read_as_what_they_are_compared_with() -> None:
    moment = dt.datetime(2023, 9, 14, 6, tzinfo=UTC)

    assert read_as("timestamp", "2023-09-14T08:00:00+02:00", what="x") == moment
    assert read_as("timestamp", "2023-09-14T06:00:00Z", what="x") == moment
    assert read_as("integer", " 7 ", what="x") == 7
    assert read_as("date", "2023-09-14", what="x") == dt.date(2023, 9, 14)
    assert read_value(as_timestamp("2023-09-14T06:00:00+00:00"), what="x") == moment
    assert read_value(as_date(dt.date(2023, 9, 14)), what="x") == dt.date(2023, 9, 14)
    assert read_value(as_integer("7"), what="x") == 7
    assert read_value({"integer": 7}, what="x") == 7
    assert read_value({"timestamp": moment}, what="x") == moment
    assert read_value({"date": dt.date(2023, 9, 14)}, what="x") == dt.date(2023, 9, 14)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "a bool"),
        (1.5, "a float"),
        (None, "a NoneType"),
        (dt.datetime(2023, 9, 14), "a timestamp without zone"),  # noqa: DTZ001  # that is the point
        ({"timestamp": "2023-09-14T06:00:00"}, "a timestamp without zone"),
        ({"timestamp": "soon"}, "not a timestamp"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "the years 1 to 9999 in UTC"),
        ({"float": "1"}, "under the name of its kind"),
        ({"date": 3}, "under the name of its kind"),
        ({"date": dt.datetime(2023, 9, 14, tzinfo=UTC)}, "under the name of its kind"),
        ({"integer": True}, "under the name of its kind"),
        ({"string": 3}, "under the name of its kind"),
        (2**63, "64 bits"),
        ("x" * (STRING_LIMIT + 1), "513 characters"),
        ("a\0b", "without NUL"),
        (dt.datetime(1, 1, 1, 4, tzinfo=EAST), "1 to 9999 in UTC"),
        (as_timestamp("9999-12-31T23:00:00-05:00"), "1 to 9999 in UTC"),
    ],
)
def test_what_is_no_value_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        read_value(value, what="parameter 'x'")


class _Region(str, enum.Enum):
    EUROPE = "eu"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (_Region.EUROPE, "eu"),
        (HTTPStatus.OK, 200),
        (pendulum.date(2023, 9, 14), dt.date(2023, 9, 14)),
        (pendulum.datetime(2023, 9, 14, 6, tz="Europe/Berlin"), dt.datetime(2023, 9, 14, 4, tzinfo=UTC)),
        (pd.Timestamp("2023-09-14T06:00:00.123456789Z"), dt.datetime(2023, 9, 14, 6, 0, 0, 123456, tzinfo=UTC)),
    ],
)
def test_of_a_subclass_the_plain_value_is_read(value: Any, plain: Value) -> None:
    read = read_value(value, what="parameter 'x'")

    assert (type(read), read) == (type(plain), plain)
    assert encode(read) == encode(plain)
    assert json.dumps(plain_value(read)) == json.dumps(plain_value(plain))


def test_values_of_another_kind_are_refused_with_both_kinds() -> None:
    with pytest.raises(ArgumentError, match="is 7, an integer, but this parameter is a date"):
        read_as("date", 7, what="parameter 'day'")
    with pytest.raises(ArgumentError, match="'7th', which is not an integer"):
        read_as("integer", "7th", what="parameter 'day'")


@pytest.mark.parametrize(
    ("condition", "matching"),
    [
        (5, {5}),
        (eq(5), {5}),
        (gt(5), {6}),
        (ge(5), {5, 6}),
        (lt(5), {4}),
        (le(5), {4, 5}),
        (in_([4, 6]), {4, 6}),
        (ge("5"), {5, 6}),
    ],
)
def test_conditions(condition: Any, matching: set[int]) -> None:
    read = Condition.of(condition, what="x")

    assert {n for n in (4, 5, 6) if read.matches(n, what="x")} == matching
    assert Condition.of(read.to_json(), what="x") == read


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ({"hour": {"~": 3}}, r"has the operator '~'.*one of = > >= < <= in"),
        ({"hour": {">=": 3, "<": 5}}, r"conditions >=, <.*one condition per parameter"),
        ({"hour": ge(3), "day": le(4)}, r"ranges of 'hour', 'day'.*one range"),
        ({"hour": in_([])}, r"in \[\].*1 to 100"),
        ({"hour": {"in": "abc"}}, "a list of 1 to 100 values"),
        ({"hour": in_([1, "a"])}, "of several kinds"),
        ({"hour": ge(dt.datetime(2023, 1, 1))}, "without zone"),  # noqa: DTZ001
        ({"": 3}, "a parameter of signal 'a' is ''"),
        ({f"p{n}": n for n in range(PARAMS_LIMIT + 1)}, "with 17 parameters.*at most 16"),
        ([3], r"match of signal 'a' is \[3\]"),
    ],
)
def test_what_cannot_be_matched_is_refused(match: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        SignalDependency.read({"name": "a", "match": match})


def test_a_signal_matches_with_all_conditions_and_all_join_parameters() -> None:
    dependency = SignalDependency.read({"name": "a", "match": {"hour": ge(5), "region": "eu"}, "join": ["day"]})

    assert dependency.matches({"hour": 5, "region": "eu", "day": "x"})
    assert not dependency.matches({"hour": 4, "region": "eu", "day": "x"})
    assert not dependency.matches({"hour": 5, "region": "us", "day": "x"})
    assert not dependency.matches({"hour": 5, "day": "x"})
    assert not dependency.matches({"hour": 5, "region": "eu"})
    assert SignalDependency.read(dependency.to_json()) == dependency


def test_signals_that_are_waited_for_together_are_few_and_joined_alike() -> None:
    with pytest.raises(ArgumentError, match=r"5 signals are waited for together.*1 to 4"):
        read_dependencies([{"name": f"s{n}"} for n in range(5)])
    with pytest.raises(ArgumentError, match="0 signals"):
        read_dependencies([])
    with pytest.raises(ArgumentError, match="'a': day; 'b': nothing"):
        read_dependencies([{"name": "a", "join": ["day"]}, {"name": "b"}])
    with pytest.raises(ArgumentError, match=r"waited for with \['matches'\]"):
        read_dependencies([{"name": "a", "matches": {}}])


@pytest.mark.parametrize("name", [None, "", " a", "a\n", "x" * 257, "airflow_incremental:bypass"])
def test_names_are_printable_and_the_packages_own_are_reserved(name: Any) -> None:
    with pytest.raises(ArgumentError, match="the name is"):
        check_name(name, what="the name")


def test_identity_is_of_name_and_parameters_in_any_order() -> None:
    one = identity_of("a", read_params({"x": 1, "y": "1"}, name="a"))

    assert one == identity_of("a", read_params({"y": "1", "x": 1}, name="a"))
    assert len({one, identity_of("b", {"x": 1, "y": "1"}), identity_of("a", {"x": "1", "y": "1"})}) == 3


@pytest.mark.parametrize("text", ["\0", "\\\0", '"\0', "🦆\0", "\ud800", "🦆\udc00"])
def test_what_a_database_takes_for_no_text_is_no_payload(text: str) -> None:
    for payload in (text, [text], {text: 1}):
        with pytest.raises(ArgumentError, match=r"holds a NUL|surrogates not allowed"):
            dump_payload(payload, name="a")


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "🦆", "\\🦆", "\n"])
def test_other_text_is(text: str) -> None:
    assert json.loads(str(dump_payload({text: text}, name="a"))) == {text: text}


def test_a_payload_without_end_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ArgumentError, match="is no JSON"):
        dump_payload(nested, name="a")


def test_parameters_and_payload_have_limits() -> None:
    with pytest.raises(ArgumentError, match="17 parameters"):
        read_params({f"p{n}": n for n in range(17)}, name="a")
    with pytest.raises(ArgumentError, match="65,538 bytes"):
        dump_payload("x" * PAYLOAD_LIMIT, name="a")
    with pytest.raises(ArgumentError, match="is no JSON"):
        dump_payload({"at": dt.date(2023, 1, 1)}, name="a")
    with pytest.raises(ArgumentError, match="is no JSON"):
        dump_payload(float("nan"), name="a")
