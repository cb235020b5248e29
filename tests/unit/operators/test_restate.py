"""The form of a restatement: what Airflow itself refuses when it is sent, and what the plan says of the rest."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental import restate_params
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.requests import RestateRequest

TIMES = ("restate_from", "restate_to")


@pytest.mark.parametrize("name", TIMES)
def test_the_form_shows_a_date_picker_that_may_be_empty(name: str) -> None:
    param = restate_params()[name]
    # By these Airflow's page chooses the field; under anyOf it would be a plain text.
    assert (param.schema["type"], param.schema["format"]) == (["null", "string"], "date-time")
    assert param.resolve() is None


@pytest.mark.parametrize(
    "text", ["yesterday", "2024-01-01", "2024-01-01T00:00", "2024-01-01T00:00:00", "", "01/02/2024", "1704067200"]
)
def test_what_is_no_time_with_a_zone_is_refused_when_the_form_is_sent(text: str) -> None:
    for name in TIMES:
        with pytest.raises(Exception, match="does not match") as refused:
            restate_params()[name].resolve(text)
        assert "2024-01-31T06:00:00Z" in str(refused.value), "Airflow's message shows the schema, and so an example"


@given(st.datetimes(timezones=st.sampled_from([UTC, dt.timezone(dt.timedelta(hours=5, minutes=30))])), st.booleans())
def test_what_the_plan_takes_the_form_takes(moment: dt.datetime, zulu: bool) -> None:
    text = moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if zulu else moment.isoformat(sep=" ")
    assert restate_params()["restate_from"].resolve(text) == text


def test_the_picker_writes_what_is_taken() -> None:
    """As JavaScript's ``toISOString`` does."""
    text = "2024-01-01T05:30:00.000Z"
    assert restate_params()["restate_to"].resolve(text) == text
    asked = RestateRequest.read("2024-01-01T00:00:00Z", text, cause="form")
    assert str(asked.range) == "2024-01-01T00:00:00Z/2024-01-01T05:30:00Z"


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (None, "2024-01-02T00:00:00Z", ["has restate_to and no restate_from", "both", "leave both empty"]),
        ("2024-01-02T00:00:00Z", None, ["has restate_from and no restate_to", "both", "leave both empty"]),
        (
            "2024-01-02T00:00:00+01:00",
            "2024-01-01T00:00:00Z",
            ["restate_from is 2024-01-01T23:00:00Z", "restate_to is 2024-01-01T00:00:00Z", "before", "exchange them"],
        ),
        (
            "2024-01-02T00:00:00Z",
            "2024-01-02T01:00:00+01:00",
            [
                "restate_from and restate_to are both 2024-01-02T00:00:00Z",
                "exclusive",
                "a later end",
            ],
        ),
        ("2024-01-02", "2024-01-03", ["restate_from is '2024-01-02', which has no zone", "like 2024-01-02T00:00:00Z"]),
        ("2024-01-02T05:30", None, ["no restate_to"]),
        (
            "2024-01-01T00:00:00Z",
            "2024-01-02T05:30",
            ["restate_to is '2024-01-02T05:30', which has no zone", "like 2024-01-02T05:30:00Z"],
        ),
        (
            "2024-01-01T00:00:00Z",
            "9999-12-31T23:30:00-01:00",
            ["restate_to is 9999-12-31T23:30:00-01:00", "year 9999 of UTC"],
        ),
        ("2024-13-01T00:00:00Z", "2024-12-02T00:00:00Z", ["restate_from is '2024-13-01T00:00:00Z'", "ISO 8601"]),
    ],
)
def test_a_range_that_is_none_says_what_was_found_and_what_to_write(start: Any, end: Any, said: list[str]) -> None:
    with pytest.raises(ArgumentError) as refused:
        RestateRequest.read(start, end, cause="form")
    for words in said:
        assert re.search(re.escape(words), str(refused.value)), str(refused.value)
