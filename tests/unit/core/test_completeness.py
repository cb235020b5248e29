"""The rules by which a source counts as complete: what is accepted, and that it stays the same through plain values."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.tables import IcebergSource


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("published", CompleteThrough.published()),
        ("latest_event", CompleteThrough.latest_event()),
        ({"rule": "arrival", "lateness": 60}, CompleteThrough.arrival(lateness=dt.timedelta(minutes=1))),
        (CompleteThrough.property("x"), CompleteThrough(rule="property", name="x")),
    ],
)
def test_what_is_read(given: Any, expected: CompleteThrough | None) -> None:
    source = IcebergSource("raw.events", event_time="ts", complete_through=given)
    assert source.complete_through == expected
    assert IcebergSource(**source.as_dict()) == source


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("newest", "has the rule 'newest'"),
        ("property", "has the rule 'property' and the property name None"),
        ({"rule": "arrival", "name": "x"}, "has the rule 'arrival' and the property name 'x'"),
        ({"rule": "arrival", "late": 1}, "complete_through is"),
        ({"rule": "arrival", "lateness": -1}, "the lateness of complete_through is -1"),
        ({"rule": "arrival", "lateness": "1 hour"}, "the lateness of complete_through is '1 hour'"),
        (7, "complete_through is 7"),
    ],
)
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        IcebergSource("raw.events", complete_through=given)
