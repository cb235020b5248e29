"""What an author writes: suites as objects, JSON and files, and what is refused before anything runs."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental.audits import Expectations, NotNull, audit_from_dict, validate_audits
from airflow_incremental.core.errors import ArgumentError
from tests.unit.audits.expectations.suites import expect, suite

NULLS = expect("column_values_to_not_be_null", column="id")
OLD = {
    "expectation_suite_name": "people",
    "data_asset_type": "Dataset",
    "expectations": [{"expectation_type": "expect_column_values_to_not_be_null", "kwargs": {"column": "id"}}],
}


class Suite:
    """Stands for an ExpectationSuite, which takes seconds to import."""

    def to_json_dict(self) -> dict[str, Any]:
        return {**suite(NULLS), "id": None, "notes": None}


def test_each_expectation_has_a_name_of_its_own_that_can_be_read() -> None:
    between = expect("column_values_to_be_between", column="age", min_value=0)
    pair = expect("column_pair_values_to_be_equal", column_A="a", column_B="b")
    audit = Expectations(
        suite(NULLS, between, between, pair, expect("compound_columns_to_be_unique", column_list=["a", "b"]))
    )
    assert [e.name for e in audit.expectations] == [
        "people: column_values_to_not_be_null(id)",
        "people: column_values_to_be_between(age) #1",
        "people: column_values_to_be_between(age) #2",
        "people: column_pair_values_to_be_equal(a, b)",
        "people: compound_columns_to_be_unique(a, b)",
    ]


def test_a_suite_object_is_its_json_at_once(tmp_path: Path) -> None:
    audit = Expectations(Suite())
    assert audit.suite == {**suite(NULLS), "notes": None}
    path = tmp_path / "people.json"
    path.write_text(json.dumps(Suite().to_json_dict()))
    assert Expectations(path, name="people").with_file([]) == audit
    assert Expectations("people.json").with_file([tmp_path / "not", tmp_path]) == audit


def test_the_plain_form_is_json_and_comes_back_the_same() -> None:
    audit = Expectations(
        suite(NULLS),
        name="n",
        severity="warn",
        over="table",
        context_root_dir=None,
        engine="gx",
        data_docs=Path("docs"),
    )
    plain = json.loads(json.dumps(audit.as_dict()))
    assert plain == audit.as_dict()
    assert audit_from_dict(plain) == audit
    plain["suite"]["expectations"].clear()
    assert audit.expectations != ()


@pytest.mark.parametrize(
    ("given", "severity", "becomes"),
    [
        (NULLS, None, "block"),
        ({**NULLS, "severity": None}, None, "block"),
        ({**NULLS, "severity": "critical"}, None, "block"),
        ({**NULLS, "severity": "warning"}, None, "warn"),
        ({**NULLS, "severity": "info"}, None, "warn"),
        ({**NULLS, "severity": "info", "meta": {"severity": "ask"}}, None, "ask"),
        ({**NULLS, "meta": {"severity": "quarantine"}}, None, "quarantine"),
        ({**NULLS, "meta": {"severity": "ask"}}, "warn", "warn"),
        (NULLS, "quarantine", "quarantine"),
    ],
)
def test_severities(given: dict[str, Any], severity: Any, becomes: str) -> None:
    (found,) = Expectations(suite(given), severity=severity).expectations
    assert found.severity == becomes


@pytest.mark.parametrize(
    ("over", "kind", "why"),
    [
        ("rows", "column_mean_to_be_between", "no single row"),
        ("table", "column_values_to_not_be_null", "over the table"),
    ],
)
def test_rows_are_put_aside_only_where_single_rows_of_the_session_offend(over: Any, kind: str, why: str) -> None:
    with pytest.raises(ArgumentError, match=f"is 'quarantine', and it looks .*{why}.*meta: "):
        Expectations(suite(expect(kind, column="id")), severity="quarantine", over=over)


def test_names_of_results_are_unique_in_a_load() -> None:
    twice = [Expectations(suite(NULLS)), Expectations(suite(expect("table_row_count_to_equal", value=1)))]
    with pytest.raises(ArgumentError, match="several audits are called 'people'"):
        validate_audits(twice)
    taken = NotNull("id", name="people: column_values_to_not_be_null(id)")
    with pytest.raises(ArgumentError, match=r"several audits are called 'people: column_values_to_not_be_null\(id\)'"):
        validate_audits([taken, Expectations(suite(NULLS))])
    assert len(validate_audits([Expectations(suite(NULLS)), Expectations(suite(NULLS), over="table")])) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "the suite of an Expectations audit is 3.*ExpectationSuite, its JSON as a mapping, the path"),
        ("people", "is 'people'.*ends in '.json', or, with context_root_dir, the name of a suite"),
        ({"name": "people"}, "the suite 'people' has no list of 'expectations'.*Great Expectations 1.x"),
        ({"name": "people", "expectations": []}, "has no expectation.*Great Expectations 1.x"),
        (suite({"kwargs": {}}), "expectation 1 of the suite 'people' is .* 'type' of an expectation"),
        (suite({"type": "expect_x", "kwargs": [1]}), r"\(expect_x\) has the kwargs \[1\]"),
        (suite({**NULLS, "meta": "x"}), "has the meta 'x'"),
        (suite({**NULLS, "severity": "high"}), "has the severity 'high'.*'critical', 'warning', 'info'"),
        (suite({**NULLS, "meta": {"severity": "quarantin"}}), "meta.severity 'quarantin'.*'block', 'warn', 'ask'"),
        (suite(expect("column_max_to_be_between", column="t", max_value=dt.date(2024, 1, 1))), "is no JSON.*ISO text"),
        (
            OLD,
            (
                "the suite 'people' is in the format of Great Expectations 0.x: it has 'expectation_suite_name', "
                "'data_asset_type', "
                "'expectation_type'.*rename 'expectation_suite_name' to 'name' and each 'expectation_type' to 'type'"
                '.*it then begins {"name": "people", "expectations": .{"type": "expect_column_values_to_not_be_null", '
                '"kwargs": {"column": "id"}}'
            ),
        ),
    ],
)
def test_what_is_no_suite_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Expectations(given)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("severity", "critical"), ("over", "session"), ("engine", "spark"), ("data_docs", 3), ("context_root_dir", 3)],
)
def test_other_arguments_are_checked(argument: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{argument} .*is {value!r}"):
        Expectations(suite(NULLS), **{argument: value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"the suite 'people.json' is not there.*a file at .*people.json.*template_searchpath"),
        ("{'name': 1}", r"the suite 'people.json' is no JSON \(line 1: .*json.dump"),
        ("[]", "the suite 'people.json' is a JSON value of type list"),
        (json.dumps(OLD), "the suite 'people.json' is in the format of Great Expectations 0.x"),
    ],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "people.json").write_text(text)
    with pytest.raises(ArgumentError, match=message):
        Expectations("people.json").with_file([tmp_path])


def test_a_file_is_not_read_before_its_folder_is_known() -> None:
    named = Expectations("suites/people.json")
    assert (named.name, named.file, named.expectations) == ("people", "suites/people.json", ())
    assert Expectations("{{ params.suite }}").file is None
    assert Expectations("people.json", context_root_dir="gx").file is None


def test_reading_a_suite_loads_no_engine(tmp_path: Path) -> None:
    (tmp_path / "people.json").write_text(json.dumps(suite(NULLS)))
    code = (
        "import sys; from airflow_incremental.audits import Expectations\n"
        f"assert Expectations('people.json').with_file([{str(tmp_path)!r}]).expectations\n"
        "print([m for m in ('great_expectations', 'pandas', 'pyarrow', 'duckdb', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
