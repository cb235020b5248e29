"""What a DAG author may write, what is refused with which words, and how audits serialise."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental import audits as module
from airflow_incremental.audits import (
    AcceptedValues,
    Audit,
    Between,
    NotNull,
    RowCount,
    SqlCheck,
    Unique,
    audit_from_dict,
    validate_audits,
)
from airflow_incremental.core.errors import ArgumentError

#: The audits without their types, to be called wrongly.
untyped: Any = module

UTC = dt.timezone.utc
NOON = dt.datetime(2024, 1, 1, 12, tzinfo=UTC)
NAIVE = dt.datetime(2024, 1, 1)  # noqa: DTZ001

ALL: list[Audit] = [
    NotNull("a", "b.c", severity="warn", name="ids are there"),
    Unique('odd "name"', "é"),
    AcceptedValues("a", ["x", "y"], allow_null=False),
    AcceptedValues("a", [Decimal("1.20"), 3, 0.5], name="numbers"),
    AcceptedValues("a", [True], name="flags"),
    AcceptedValues("a", [dt.date(2024, 1, 31), dt.date(2024, 1, 1)], name="days"),
    AcceptedValues("a", [NOON], name="moments"),
    Between("a", 0, 1.5, inclusive="left"),
    Between("b", max=Decimal("9.99")),
    Between("c", dt.date(2024, 1, 1), dt.date(2024, 2, 1)),
    Between("d", NOON, severity="warn"),
    RowCount(1, 10),
    RowCount(max=5, name="few"),
    SqlCheck("own", "SELECT * FROM rows WHERE a < {{ params.least }}", severity="warn"),
]


@pytest.mark.parametrize("audit", ALL, ids=lambda a: a.name)
def test_an_audit_survives_json_and_rebuilds_equal(audit: Audit) -> None:
    text = json.dumps(audit.as_dict())
    again = audit_from_dict(json.loads(text))
    assert again == audit
    assert hash(again) == hash(audit)
    assert json.dumps(again.as_dict()) == text


def test_audits_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        NotNull("a").name = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("audit", "name"),
    [
        (NotNull("carrier"), "not_null(carrier)"),
        (Unique("a", "b.c"), "unique(a, b.c)"),
        (AcceptedValues("a", [1]), "accepted_values(a)"),
        (Between("a", 1), "between(a)"),
        (RowCount(1), "row_count"),
        (NotNull("two\nlines"), "not_null('two\\nlines')"),
        (NotNull("a", name="mine"), "mine"),
    ],
)
def test_default_names_say_what_is_checked(audit: Audit, name: str) -> None:
    assert audit.name == name


@given(st.permutations(["b", "a", "ä", "Z", ""]))
def test_accepted_values_do_not_depend_on_their_order(values: list[str]) -> None:
    assert AcceptedValues("c", values).as_dict() == AcceptedValues("c", set(values)).as_dict()
    assert AcceptedValues("c", [*values, *values]) == AcceptedValues("c", values)


def test_a_set_serialises_alike_in_every_process() -> None:
    code = "from airflow_incremental.audits import *; print(AcceptedValues('c', {'a', 'b', 'c', 'd'}).as_dict())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


def test_importing_audits_loads_no_engine() -> None:
    code = "import sys, airflow_incremental.audits; print([m for m in sys.modules if m in sys.argv])"
    heavy = ["duckdb", "pyarrow", "pyiceberg", "pandas", "numpy", "airflow_incremental.audits.run"]
    found = subprocess.run([sys.executable, "-c", code, *heavy], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_times_are_kept_in_utc_and_as_plain_values() -> None:
    class Moment(dt.datetime):
        pass

    class Word(str):
        __slots__ = ()

    east = dt.timezone(dt.timedelta(hours=2))
    check = Between("a", Moment(2024, 1, 1, 14, tzinfo=east))
    assert check == Between("a", NOON)
    assert type(check.min) is dt.datetime
    assert check.as_dict()["min"] == {"time": "2024-01-01T12:00:00Z"}
    assert [type(v) for v in AcceptedValues("a", [Word("x")]).values] == [str]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (untyped.NotNull, ["no column", "NotNull('a', 'b')"]),
        (lambda: untyped.NotNull(["a", "b"]), ["['a', 'b']", "one after the other"]),
        (lambda: untyped.Unique("a", "a"), ["twice", "different columns"]),
        (lambda: untyped.Unique("a", ""), ["''", "column names"]),
        (lambda: untyped.NotNull("a", severity="error"), ["'error'", "'block', 'warn'", "not_null(a)"]),
        (lambda: untyped.NotNull("a", severity=None), ["None", "'block'"]),
        (lambda: untyped.NotNull("a", name="  "), ["'  '", "printable"]),
        (lambda: untyped.NotNull("a", name="x\ny"), ["printable"]),
        (lambda: untyped.NotNull("a", name="x" * 201), ["at most 200"]),
        (lambda: untyped.AcceptedValues("a", []), ["no value", "one or more"]),
        (lambda: untyped.AcceptedValues("a", "AB"), ["'AB'", "a list", "['value']"]),
        (lambda: untyped.AcceptedValues("a", 3), ["3", "a list"]),
        (lambda: untyped.AcceptedValues("a", ["x", None]), ["None", "allow_null"]),
        (lambda: untyped.AcceptedValues("a", ["x", 1]), ["numbers and strings", "one kind"]),
        (lambda: untyped.AcceptedValues("a", [True, 1]), ["booleans and numbers"]),
        (lambda: untyped.AcceptedValues("a", [float("nan")]), ["nan", "finite"]),
        (lambda: untyped.AcceptedValues("a", [b"x"]), ["b'x' (bytes)", "a string"]),
        (lambda: untyped.AcceptedValues("a", ["\ud800"]), ["UTF-8"]),
        (lambda: untyped.AcceptedValues("a", [NAIVE]), ["naive datetime 2024-01-01T00:00:00", "timezone-aware"]),
        (lambda: untyped.AcceptedValues("a", [1], allow_null="no"), ["allow_null", "'no'"]),
        (lambda: untyped.Between("a"), ["neither min nor max"]),
        (lambda: untyped.Between("a", NAIVE), ["min of audit 'between(a)'", "naive", "tzinfo=timezone.utc"]),
        (lambda: untyped.Between("a", max=NAIVE), ["max of audit 'between(a)'", "naive"]),
        (lambda: untyped.Between("a", "x"), ["'x'", "numbers, dates", "AcceptedValues"]),
        (lambda: untyped.Between("a", min=True), ["True", "numbers, dates"]),
        (lambda: untyped.Between("a", 2, 1), ["min 2 and max 1", "min below max"]),
        (lambda: untyped.Between("a", 1, 1, inclusive="left"), ["nothing"]),
        (lambda: untyped.Between("a", 1, NOON), ["numbers and times", "one kind"]),
        (lambda: untyped.Between("a", dt.date(2024, 1, 1), NOON), ["dates and times"]),
        (lambda: untyped.Between("a", max=float("inf")), ["inf", "leave a bound out"]),
        (lambda: untyped.Between("a", max=Decimal("1E+999999999")), ["1E+999999999", "a float can hold"]),
        (lambda: untyped.Between("a", min=Decimal("1E-999999999")), ["1E-999999999", "a float can hold"]),
        (lambda: untyped.Between("a", max=10**400), ["more than 308 digits"]),
        (lambda: untyped.Between("a", 1, inclusive=True), ["True", "'both', 'left'"]),
        (untyped.RowCount, ["neither min nor max", "RowCount(min=1)"]),
        (lambda: untyped.RowCount(-1), ["-1", "0 or more"]),
        (lambda: untyped.RowCount(max=True), ["True", "number of rows"]),
        (lambda: untyped.RowCount(1.5), ["1.5"]),
        (lambda: untyped.RowCount(3, 2), ["at least 3 and at most 2"]),
        (lambda: untyped.SqlCheck("x", " "), ["' '", "SELECT * FROM rows"]),
        (lambda: untyped.SqlCheck("", "SELECT 1"), ["''", "printable"]),
        (lambda: untyped.SqlCheck(None, "SELECT 1"), ["the name of an audit", "printable"]),
    ],
)
def test_wrong_arguments_say_what_was_found_expected_and_what_to_do(build: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(ArgumentError) as caught:
        build()
    assert [w for w in words if w not in str(caught.value)] == []
    assert caught.value.expected
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("not_null", ["'not_null' (str)", "as_dict()"]),
        ({"columns": ["a"]}, ["type None", "'not_null'"]),
        ({"type": ["not_null"], "columns": ["a"]}, ["type ['not_null']"]),
        ({"type": "not_null"}, ["lacks 'columns'", "'severity'"]),
        ({"type": "not_null", "columns": ["a"], "column": "b"}, ["does not know 'column'"]),
        ({"type": "not_null", "columns": "a"}, ["'a'", "a list of column names"]),
        ({"type": "between", "column": "a", "min": {"date": "soon"}}, ["{'date': 'soon'}", "{'date': '2024-01-31'}"]),
        ({"type": "between", "column": "a", "min": {"decimal": "x"}}, ["{'decimal': 'x'}"]),
        ({"type": "between", "column": "a", "min": {"decimal": "1", "date": "2"}}, ["{'decimal': '1'"]),
        ({"type": "between", "column": "a", "max": {"time": "2024-01-01T00:00:00"}}, ["max of an audit", "{'time'"]),
        ({"type": "accepted_values", "column": "a", "values": "x"}, ["'x'", "a list of values"]),
        ({"type": "not_null", "columns": ["a"], "severity": "fatal"}, ["'fatal'"]),
    ],
)
def test_wrong_plain_values_are_refused_like_wrong_arguments(value: Any, words: list[str]) -> None:
    with pytest.raises(ArgumentError) as caught:
        audit_from_dict(value)
    assert [w for w in words if w not in str(caught.value)] == []


def test_plain_values_may_leave_out_what_has_a_default() -> None:
    assert audit_from_dict({"type": "between", "column": "a", "min": 1}) == Between("a", 1)
    assert audit_from_dict({"type": "sql", "name": "x", "sql": "FROM rows"}) == SqlCheck("x", "FROM rows")


def test_a_severity_may_be_a_template_until_it_is_rendered() -> None:
    assert NotNull("a", severity="{{ params.severity }}").as_dict()["severity"] == "{{ params.severity }}"  # type: ignore[arg-type]


def test_a_list_of_audits_is_built_and_has_no_name_twice() -> None:
    assert validate_audits([NotNull("a"), Between("a", 1).as_dict()]) == (NotNull("a"), Between("a", 1))
    with pytest.raises(ArgumentError, match=r"called 'between\(a\)'.*name=") as caught:
        validate_audits([Between("a", 1), Between("a", max=5), NotNull("a")])
    assert "not_null" not in str(caught.value)
    assert validate_audits([Between("a", 1), Between("a", max=5, name="most")])


@pytest.mark.parametrize("audits", [NotNull("a"), NotNull("a").as_dict(), "not_null", 5, None])
def test_a_list_of_audits_is_a_list(audits: Any) -> None:
    with pytest.raises(ArgumentError, match="a list of audits"):
        validate_audits(audits)
