"""Results of suites: one for each expectation, alike however it was found, and without a value of a row."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest

from airflow_incremental.audits import Expectations, NotNull
from airflow_incremental.audits.compile import Counts, Measure
from airflow_incremental.audits.expectations import audit as running
from airflow_incremental.audits.expectations import docs
from airflow_incremental.audits.run import check_audits, check_queries
from airflow_incremental.core.errors import AuditFailed
from tests.unit.audits.expectations.suites import expect, suite
from tests.unit.audits.rows import audit, only

SECRET = "Aldonza Lorenzo"
PEOPLE = pa.table({"id": [1, 2, None], "name": [SECRET, SECRET, None]})


def test_no_value_of_a_row_is_in_a_result_unless_samples_are_asked_for() -> None:
    table = pa.table({"name": [SECRET, SECRET, None], "born": [dt.date(1547, 9, 29)] * 3})
    given = suite(
        expect("column_values_to_be_in_set", column="name", value_set=["x"]),
        expect("column_values_to_be_unique", column="name"),
        expect("column_distinct_values_to_equal_set", column="name", value_set=["x"]),
        expect("column_most_common_value_to_be_in_set", column="name", value_set=["x"]),
        expect("column_distinct_values_to_be_in_set", column="name", value_set=["x"]),
        expect("column_values_to_match_regex_list", column="name", regex_list=["x"]),
        expect("column_pair_values_to_be_in_set", column_A="name", column_B="born", value_pairs_set=[["x", "y"]]),
        expect("column_unique_value_count_to_be_between", column="name", max_value=0),
    )
    silent = audit(table, Expectations(given, engine="gx"))
    assert not any(r.passed for r in silent.results)
    assert "Aldonza" not in str(silent.to_json())
    assert "1547" not in str(silent.to_json())
    shown = audit(table, Expectations(given, engine="gx"), samples=1)
    assert "Aldonza" not in str(shown.brief().to_json())
    assert [r.brief() for r in shown.results] == [r.brief() for r in silent.results]
    assert shown.results[0].samples == ({"name": SECRET},)
    assert (shown.results[0].full or {})["result"]["partial_unexpected_list"] == [SECRET]
    assert shown.results[1].samples == ({"name": SECRET},)


def test_both_paths_stand_in_one_report_in_the_order_of_the_suite() -> None:
    given = suite(
        expect("column_values_to_be_dateutil_parseable", column="name", severity="warning"),
        expect("column_values_to_not_be_null", column="id", mostly=0.5, meta={"why": "late ones come"}),
        expect("column_kl_divergence_to_be_less_than", column="id", partition_object=None, threshold=None),
    )
    report = audit(
        PEOPLE, NotNull("name", severity="warn"), Expectations(given, name="s"), Expectations(given, over="table")
    )
    assert [(r.name, r.path, r.over) for r in report.results] == [
        ("not_null(name)", "duckdb", "rows"),
        ("s: column_values_to_be_dateutil_parseable(name)", "gx", "rows"),
        ("s: column_values_to_not_be_null(id)", "duckdb", "rows"),
        ("s: column_kl_divergence_to_be_less_than(id)", "gx", "rows"),
        ("people over table: column_values_to_be_dateutil_parseable(name)", "gx", "table"),
        ("people over table: column_values_to_not_be_null(id)", "duckdb", "table"),
        ("people over table: column_kl_divergence_to_be_less_than(id)", "gx", "table"),
    ]


def test_a_result_has_the_standard_form_of_great_expectations_whichever_way_it_was_found() -> None:
    given = expect("column_values_to_not_be_null", column="id", mostly=0.5, meta={"why": "late"}, severity="info")
    fast = only(PEOPLE, Expectations(suite(given)))
    itself = only(PEOPLE, Expectations(suite(given), engine="gx"))
    assert (fast.path, itself.path) == ("duckdb", "gx")
    assert fast.full == itself.full
    assert fast.full == {
        "success": True,
        "expectation_config": {
            "type": given["type"],
            "kwargs": given["kwargs"],
            "meta": {"why": "late"},
            "severity": "warning",
        },
        "result": {"element_count": 3, "unexpected_count": 1, "unexpected_percent": 1 / 3 * 100},
        "meta": {},
        "exception_info": {"raised_exception": False, "exception_traceback": None, "exception_message": None},
    }
    assert (fast.message, fast.kind) == ("1 of 3 rows are not as expected; at least 50% must be", given["type"])
    assert fast.message == itself.message


@pytest.mark.parametrize(
    ("given", "observed", "message"),
    [
        (expect("column_mean_to_be_between", column="id", min_value=2), 1.5, "observed 1.5; expected min_value 2"),
        (expect("column_to_exist", column="born"), None, "not as expected"),
        (
            expect("column_max_to_be_between", column="id", max_value=1),
            None,
            "observed what may be a row's own value, which is not shown; expected max_value 1",
        ),
        (
            expect(
                "column_values_to_be_in_set",
                column="id",
                value_set=[9],
                row_condition="id > 1",
                condition_parser="pandas",
            ),
            None,
            "1 of 1 rows where its row_condition holds are not as expected",
        ),
    ],
)
def test_messages(given: dict[str, Any], observed: Any, message: str) -> None:
    result = only(PEOPLE, Expectations(suite(given), engine="gx"), samples=2)
    assert (result.passed, result.observed, result.message) == (False, observed, message)


def test_data_docs_are_great_expectations_own_and_hold_no_value(tmp_path: Path) -> None:
    given = suite(
        expect("column_values_to_not_be_null", column="name"),
        expect("column_values_to_be_unique", column="name"),
        expect("column_distinct_values_to_be_in_set", column="name", value_set=["x"]),
    )
    audit(PEOPLE, Expectations(given, name="people/1", data_docs=tmp_path))
    site = tmp_path / "process" / "people_1"
    pages = {p: p.read_text("utf-8") for p in site.rglob("*.html")}
    assert "people_1" in pages[site / "index.html"]
    (validation,) = [text for path, text in pages.items() if path.is_relative_to(site / "validations")]
    assert "people_1" in validation
    assert "1 unexpected" in validation
    assert all("Aldonza" not in text for text in pages.values())
    audit(PEOPLE, Expectations(given, name="people/1", data_docs=tmp_path), samples=2)
    (again,) = (site / "validations").rglob("*.html")
    assert "Aldonza" in again.read_text("utf-8")


def test_data_docs_that_cannot_be_built_fail_no_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Path:
        raise OSError(SECRET)

    monkeypatch.setattr(docs, "build_docs", refuse)
    given = suite(expect("column_values_to_not_be_null", column="name", mostly=0.1))
    assert only(PEOPLE, Expectations(given, data_docs=tmp_path)).passed
    assert "could not build the data docs of audit 'people': OSError" in caplog.text
    assert SECRET not in caplog.text


def test_a_suite_of_a_context_is_looked_up_when_there_is_something_to_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from great_expectations import get_context
    from great_expectations.core import ExpectationSuite

    with running.quiet():
        context = get_context(mode="file", project_root_dir=tmp_path)
        context.suites.add(ExpectationSuite(name="people"))
    root = tmp_path / "gx"
    path = root / "expectations" / "people.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | suite(expect("column_values_to_not_be_null", column="id")))
    )
    named = Expectations("people", context_root_dir=root)
    (result,) = audit(PEOPLE, named).results
    assert (result.name, result.offending) == ("people: column_values_to_not_be_null(id)", 1)
    with pytest.raises(AuditFailed, match=r"has no suite 'peple'.*one of 'people'.*did you mean 'people'"):
        check_queries([Expectations("peple", context_root_dir=root)], PEOPLE.schema)
    with pytest.raises(AuditFailed, match="names the column 'id'"):
        check_queries([named], pa.schema({"name": pa.string()}))
    with pytest.raises(AuditFailed, match=r"is no Great Expectations context.*great_expectations\.yml"):
        check_queries([Expectations("people", context_root_dir=tmp_path)], PEOPLE.schema)
    assert not (tmp_path / "great_expectations.yml").exists()
    monkeypatch.setattr(running, "_gx", lambda: pytest.fail("a plan with nothing to do took seconds"))
    check_audits([Expectations("peple", context_root_dir=root)], PEOPLE.schema)


def test_what_duckdb_could_not_decide_is_judged_by_great_expectations(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsure(*given: Any) -> Any:
        found = running_compiled(*given)
        assert isinstance(found, Measure)
        return attrs.evolve(
            found, read=lambda *_: Counts(checked=9, offending=9, message="", passed=True, undecided="a NaN")
        )

    running_compiled = running.compiled
    monkeypatch.setattr(running, "compiled", unsure)
    result = only(PEOPLE, Expectations(suite(expect("column_values_to_not_be_null", column="id"))))
    assert (result.path, result.passed, result.offending, result.checked) == ("gx", False, 1, 3)
