"""Suites that do not fit: refused as early as can be, in words that say what to do and quote no value of a row."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from airflow_incremental.audits import Audit, Expectations, NotNull
from airflow_incremental.audits.expectations import gx as runner
from airflow_incremental.audits.run import check_audits, check_queries
from airflow_incremental.core.audit import AuditIncomplete
from airflow_incremental.core.errors import ArgumentError, AuditFailed
from tests.unit.audits.expectations.suites import expect, suite
from tests.unit.audits.rows import audit

SECRET = "Aldonza Lorenzo"
PEOPLE = pa.table({"id": [1, 2, None], "name": ["a", "b", None]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            expect("column_values_to_be_betwen", column="id", min_value=1),
            (
                "'expect_column_values_to_be_betwen', which Great Expectations does not know.*imported where the task runs"
                ".*did you mean 'expect_column_values_to_be_between'"
            ),
        ),
        (expect("column_median_to_be_between", colum="id"), "'colum' is no argument of it .did you mean 'column'"),
        (expect("column_median_to_be_between", min_value=1), "wrong arguments: 'column' is missing"),
        (
            expect("column_values_to_match_regex", column="name", regex="a", mostly=3),
            "'mostly' ensure this value is less",
        ),
        (
            expect("column_median_to_be_between", column="id", min_value={"$PARAMETER": "low"}),
            "takes 'min_value' from a parameter of the suite.*'{{ params.max_delay }}'",
        ),
        (expect("column_median_to_be_between", column="idd"), "names the column 'idd', which .*did you mean 'id'"),
        (
            expect(
                "column_median_to_be_between", column="id", row_condition={"type": "nullity", "column": {"name": "no"}}
            ),
            "names the column 'no', which the written rows do not have",
        ),
        (
            expect(
                "column_median_to_be_between",
                column="id",
                row_condition={"type": "comparison", "column": {"name": "id"}},
            ),
            "has the row_condition .*, which Great Expectations cannot read.*nullity",
        ),
        (
            expect("column_median_to_be_between", column="id", row_condition="id >", condition_parser="pandas"),
            "the row_condition of expectation 'people: column_median_to_be_between.id.' cannot be applied.*DataFrame.query",
        ),
        (expect("column_median_to_be_between", column="id", row_condition="no > 1"), "names the column 'no'"),
        (
            expect("column_median_to_be_between", column="id", row_condition="no + 1 > 1"),
            "cannot be applied to the rows",
        ),
        (
            expect("column_values_to_be_increasing", column="id"),
            "the rows of a table have no order.*SqlCheck that orders them",
        ),
        ({"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": "SELECT 1"}}, "databases only"),
        (
            expect("column_values_to_be_dateutil_parseable", column="name", meta={"severity": "quarantine"}),
            "is to put rows aside, and only those found in DuckDB can be",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_loaded(given: dict[str, Any], message: str) -> None:
    with pytest.raises(AuditFailed, match=message):
        check_queries([Expectations(suite(given))], PEOPLE.schema)


def test_columns_and_what_no_session_could_run_are_refused_without_great_expectations() -> None:
    for given in (
        expect("column_median_to_be_between", column="idd"),
        expect("column_values_to_be_increasing", column="id"),
    ):
        with pytest.raises(AuditFailed):
            check_audits([Expectations(suite(given))], PEOPLE.schema)
    missing = [expect("column_to_exist", column="idd"), expect("table_columns_to_match_set", column_set=["idd"])]
    check_audits([Expectations(suite(*missing))], PEOPLE.schema)
    assert not any(r.passed for r in audit(PEOPLE, Expectations(suite(*missing), engine="gx")).results)


def test_an_expectation_that_does_not_fit_its_column_is_no_finding_and_quotes_no_value() -> None:
    table = pa.table({"name": [SECRET, None]})
    given = expect("column_mean_to_be_between", column="name", min_value=1)
    with pytest.raises(
        AuditFailed, match=r"could not judge expectation 'people: column_mean.*it stopped with "
    ) as raised:
        audit(table, Expectations(suite(given), engine="gx"), samples=3)
    error: BaseException | None = raised.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("kind", [MemoryError, OSError, pa.lib.ArrowMemoryError])
def test_want_of_memory_says_nothing_about_the_rows(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise kind(SECRET)

    median = runner.get_expectation_impl("expect_column_median_to_be_between")
    monkeypatch.setattr(median, "_validate", stop)
    given = Expectations(suite(expect("column_median_to_be_between", column="id", min_value=1)), engine="gx")
    with pytest.raises(AuditIncomplete, match=r"could not judge expectation .*Error") as raised:
        audit(PEOPLE, given)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "given",
    [
        NotNull("id", severity="{{ params.severity }}"),  # type: ignore[arg-type]
        NotNull("id", over="{{ params.over }}"),  # type: ignore[arg-type]
        Expectations("{{ params.suite }}", severity="block"),
    ],
)
def test_a_template_that_nobody_rendered_lets_nothing_pass(given: Audit) -> None:
    message = "a template that nobody has rendered"
    with pytest.raises(ArgumentError, match=message):
        check_audits([given], PEOPLE.schema)
    with pytest.raises(ArgumentError, match=message):
        audit(PEOPLE, given)
