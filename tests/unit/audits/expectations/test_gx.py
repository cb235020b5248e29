"""What Great Expectations itself judges: in parts as over the whole."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from great_expectations.core import ExpectationSuite
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from airflow_incremental.audits import Expectations
from airflow_incremental.audits.expectations import gx as runner
from airflow_incremental.audits.expectations.kinds import (
    NEEDS_ORDER,
    NEEDS_SQL,
    OBSERVES_NO_VALUE,
    OF_COLUMNS,
    OF_ROW_COUNT,
    ROW_BY_ROW,
    ROW_WISE,
)
from airflow_incremental.audits.expectations.quiet import quiet
from airflow_incremental.audits.run import check_queries
from tests.unit.audits.expectations.suites import expect, suite
from tests.unit.audits.rows import audit, only

RANDOM = random.Random(7)
ROWS = 200
PEOPLE = pa.table(
    {
        "id": pa.array([RANDOM.choice([*range(60), None]) for _ in range(ROWS)], pa.int64()),
        "other": pa.array([RANDOM.choice([*range(60), None]) for _ in range(ROWS)], pa.int64()),
        "name": [RANDOM.choice(["ab", "abc", "2024-01-01", '{"a": 1}', None]) for _ in range(ROWS)],
    }
)
IF = {"row_condition": {"type": "comparison", "column": {"name": "id"}, "operator": ">", "parameter": 30}}
IF_TEXT = {"row_condition": "id > 30 and other < 50", "condition_parser": "pandas"}
IN_PARTS = [
    expect("column_values_to_be_between", column="id", min_value=5, max_value=50, mostly=0.8),
    expect("column_values_to_be_between", column="id", min_value=5, mostly=0.5, **IF),
    expect("column_values_to_be_between", column="id", max_value=10, **IF_TEXT),
    expect("column_values_to_not_be_null", column="id", mostly=0.99),
    expect("column_values_to_not_be_null", column="name", **IF),
    expect("column_values_to_be_null", column="other", mostly=0.01),
    expect("column_values_to_be_in_set", column="name", value_set=["ab"]),
    expect("column_values_to_not_be_in_set", column="name", value_set=["ab"]),
    expect("column_value_lengths_to_be_between", column="name", min_value=3),
    expect("column_value_lengths_to_equal", column="name", value=2),
    expect("column_values_to_match_regex", column="name", regex="^a"),
    expect("column_values_to_not_match_regex", column="name", regex="c$"),
    expect("column_values_to_match_regex_list", column="name", regex_list=["^a", "^2"], match_on="any"),
    expect("column_values_to_not_match_regex_list", column="name", regex_list=["^b", "c$"]),
    expect("column_values_to_match_strftime_format", column="name", strftime_format="%Y-%m-%d"),
    expect("column_values_to_be_dateutil_parseable", column="name"),
    expect("column_values_to_be_json_parseable", column="name"),
    expect(
        "column_pair_values_a_to_be_greater_than_b",
        column_A="id",
        column_B="other",
        ignore_row_if="either_value_is_missing",
    ),
    expect("column_pair_values_to_be_equal", column_A="id", column_B="other", mostly=0.1),
    expect("column_pair_values_to_be_in_set", column_A="id", column_B="other", value_pairs_set=[[1, 2]]),
    expect("multicolumn_sum_to_equal", column_list=["id", "other"], sum_total=60, ignore_row_if="any_value_is_missing"),
    expect("multicolumn_values_to_be_equal", column_list=["id", "other"]),
    expect("select_column_values_to_be_unique_within_record", column_list=["id", "other"]),
]
NO_JSON = {"expect_column_values_to_match_json_schema"}


def whole(table: pa.Table, *expectations: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what Great Expectations says of the whole table as an ordinary data frame, in its own words."""
    frame = table.to_pandas()
    asset = runner._context().data_sources.add_pandas("p").add_dataframe_asset("a")
    batch = asset.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": frame})
    found = []
    for each in expectations:
        one = ExpectationSuite(name="s", expectations=[ExpectationConfiguration(**each).to_domain_obj()])
        (answer,) = batch.validate(one, result_format="BASIC").to_json_dict()["results"]
        found.append({"success": answer["success"], **answer["result"]})
    return found


@pytest.mark.parametrize("rows", [ROWS, 3, 0])
def test_counts_of_parts_add_up_to_what_great_expectations_finds_in_the_whole(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(runner, "_PART", 37)
    table = PEOPLE.slice(0, rows)
    found = audit(table, Expectations(suite(*IN_PARTS), engine="gx")).results
    with quiet():
        expected = whole(table, *IN_PARTS)
    assert {r.path for r in found} == {"gx"}
    for result, truth in zip(found, expected, strict=True):
        truth.pop("partial_unexpected_list", None)
        assert {"success": result.passed, **(result.full or {})["result"]} == truth, result.name


def test_parts_are_tried_for_all_that_is_said_to_judge_each_row_by_itself() -> None:
    assert {e["type"] for e in IN_PARTS} == ROW_BY_ROW - NEEDS_SQL - NO_JSON


def test_the_lists_of_kinds_name_expectations_that_there_are() -> None:
    known = set(runner.list_registered_expectation_implementations())
    assert known >= ROW_BY_ROW | ROW_WISE | OBSERVES_NO_VALUE | OF_COLUMNS | OF_ROW_COUNT | NEEDS_ORDER | NEEDS_SQL


def test_a_condition_that_looks_beyond_a_row_sees_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_PART", 50)
    beyond = expect("column_values_to_not_be_null", column="id", row_condition="index < 60 and id > 3 or id.isnull()")
    result = only(PEOPLE.append_column("at", pa.array(range(ROWS))), Expectations(suite(beyond)))
    nulls = PEOPLE["id"].null_count
    assert (result.path, result.offending) == ("gx", nulls)
    assert result.checked < ROWS


def test_what_cannot_be_added_up_sees_all_rows_of_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_PART", 2)
    seen: list[tuple[list[str], int]] = []
    validate = runner._validate
    monkeypatch.setattr(
        runner,
        "_validate",
        lambda definition, table, *rest: (
            seen.append((table.column_names, table.num_rows)) or validate(definition, table, *rest)
        ),
    )
    table = pa.table({"id": [1, 2, 3, 1, None], "other": [1, 2, 3, 4, 5], "name": ["a", "b", "c", "d", "e"]})
    found = audit(
        table,
        Expectations(
            suite(
                expect("column_values_to_be_unique", column="id"),
                expect("column_median_to_be_between", column="other", min_value=3, max_value=3),
                expect("compound_columns_to_be_unique", column_list=["id", "other"]),
                expect("column_values_to_be_between", column="other", min_value=2),
                expect("table_column_count_to_equal", value=3),
                expect("table_row_count_to_equal", value=5),
            ),
            engine="gx",
        ),
    ).results
    assert [(r.passed, r.offending, r.checked) for r in found] == [
        (False, 2, 4),
        (True, 0, 5),
        (True, 0, 5),
        (False, 1, 5),
        (True, 0, 5),
        (True, 0, 5),
    ]
    assert sorted(seen) == sorted(
        [
            (["other"], 2),
            (["other"], 2),
            (["other"], 1),
            (["id"], 5),
            (["other"], 5),
            (["id", "other"], 5),
            (["id", "other", "name"], 0),
            (["id"], 5),
        ]
    )


def test_a_field_of_a_struct_is_a_column_under_its_path() -> None:
    table = pa.table({"address": [{"city": "Lyon"}, {"city": None}, {"city": "Oslo"}]})
    inside = expect("column_values_to_be_in_set", column="address.city", value_set=["Lyon"])
    result = only(table, Expectations(suite(inside), engine="gx"))
    assert (result.offending, result.checked) == (1, 2)


def test_large_whole_numbers_are_not_rounded() -> None:
    table = pa.table({"a": [2**60 + 1, None], "b": [2**60, None]})
    equal = expect("column_pair_values_to_be_equal", column_A="a", column_B="b", ignore_row_if="neither")
    assert only(table, Expectations(suite(equal), engine="gx")).offending == 2


def define_above_their_mean() -> None:
    """Register an expectation of one's own that looks beyond the single row."""
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import ColumnMapExpectation
    from great_expectations.expectations.metrics import ColumnMapMetricProvider, column_condition_partial

    class ColumnValuesAboveTheirMean(ColumnMapMetricProvider):
        condition_metric_name = "column_values.above_their_mean"

        @column_condition_partial(engine=PandasExecutionEngine)
        def _pandas(cls, column: Any, **_: Any) -> Any:  # noqa: N805
            return column >= column.mean()

    class ExpectColumnValuesToBeAboveTheirMean(ColumnMapExpectation):
        map_metric = ColumnValuesAboveTheirMean.condition_metric_name


def test_an_expectation_of_ones_own_runs_over_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_PART", 2)
    with quiet():
        define_above_their_mean()
    mine = Expectations(suite(expect("column_values_to_be_above_their_mean", column="v", mostly=0.5)))
    check_queries([mine], pa.schema({"v": pa.int64()}))
    result = only(pa.table({"v": [1, 2, 3, 10]}), mine)
    assert (result.passed, result.offending, result.checked) == (False, 3, 4)
