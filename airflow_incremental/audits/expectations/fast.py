"""Which expectations are run in the one DuckDB pass, and how: only where verdict and numbers are those of GX itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import pyarrow as pa

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations import aggregates, distinct, pairs, patterns, quantiles, rowwise, tables
from airflow_incremental.audits.expectations.expectation import Expectation
from airflow_incremental.audits.expectations.given import Given, Kind, Left
from airflow_incremental.audits.expectations.where import condition
from airflow_incremental.audits.sql import Inexact, Sql


@attrs.frozen
class Form:
    """How expectations of one type become SQL.

    :param build: makes the measure, or raises ``Left``.
    :param takes: the arguments it reads; one with another argument is left to Great Expectations.
    :param kinds: the kinds of columns for which the SQL is proven equal; none where the kind does not matter.
    :param left: for people: what more is left to Great Expectations.
    """

    build: Callable[[Given], Measure]
    takes: tuple[str, ...]
    kinds: tuple[Kind, ...] = ()
    left: str = ""


_ROWS = ("row_condition", "condition_parser")
_BOUNDS = ("min_value", "max_value", "strict_min", "strict_max")
_COLUMN = ("column", *_ROWS)
_MAP = ("column", "mostly", *_ROWS)
_NUMBER = ("column", *_BOUNDS, *_ROWS)
_PAIR = ("column_A", "column_B", "ignore_row_if", "mostly", *_ROWS)
_LIST = ("column_list", "ignore_row_if", "mostly", *_ROWS)

_TEXT: tuple[Kind, ...] = ("text",)
_WHOLE: tuple[Kind, ...] = ("integer",)
_NUMERIC: tuple[Kind, ...] = ("integer", "float")
_ADDED: tuple[Kind, ...] = ("integer", "float", "decimal", "boolean")
_ORDERED: tuple[Kind, ...] = (*_ADDED, "date", "timestamp")
_LISTED: tuple[Kind, ...] = ("integer", "text", "boolean", "date", "timestamp")
#: Kinds whose equal values are equal to SQL, to Arrow and to Python alike; of floats, zeros and NaN are not.
_DISCRETE: tuple[Kind, ...] = ("integer", "decimal", "text", "boolean", "date", "timestamp", "binary")

_ZERO = "a float column with zeros, which Arrow tells from minus zeros"
_ROUNDED = "a bound within rounding error of the result of a float column; infinite values"
_NULLS = "rows with one null that `ignore_row_if` keeps: Arrow-backed frames cannot compare them"
_PATTERNS = "what the two engines may judge differently (patterns, above)"

FORMS: Mapping[str, Form] = {
    "expect_column_values_to_not_be_null": Form(rowwise.not_null, _MAP),
    "expect_column_values_to_be_null": Form(rowwise.null, _MAP),
    "expect_column_values_to_be_unique": Form(rowwise.unique, _MAP, _DISCRETE),
    "expect_column_values_to_be_in_set": Form(rowwise.in_set, (*_MAP, "value_set"), (*_LISTED, "float"), _ZERO),
    "expect_column_values_to_not_be_in_set": Form(rowwise.not_in_set, (*_MAP, "value_set"), (*_LISTED, "float"), _ZERO),
    "expect_column_values_to_be_between": Form(rowwise.between, (*_MAP, *_BOUNDS), _ORDERED),
    "expect_column_value_lengths_to_be_between": Form(rowwise.lengths_between, (*_MAP, *_BOUNDS), _TEXT),
    "expect_column_value_lengths_to_equal": Form(rowwise.lengths_equal, (*_MAP, "value"), _TEXT),
    "expect_column_values_to_match_regex": Form(patterns.match, (*_MAP, "regex"), _TEXT, _PATTERNS),
    "expect_column_values_to_not_match_regex": Form(patterns.not_match, (*_MAP, "regex"), _TEXT, _PATTERNS),
    "expect_column_values_to_match_regex_list": Form(
        patterns.match_list, (*_MAP, "regex_list", "match_on"), _TEXT, _PATTERNS
    ),
    "expect_column_values_to_not_match_regex_list": Form(
        patterns.not_match_list, (*_MAP, "regex_list"), _TEXT, _PATTERNS
    ),
    "expect_column_min_to_be_between": Form(
        aggregates.minimum, _NUMBER, (*_ORDERED, "text"), "a float column of NaN only; text with bounds"
    ),
    "expect_column_max_to_be_between": Form(
        aggregates.maximum, _NUMBER, (*_ORDERED, "text"), "a float column of NaN only; text with bounds"
    ),
    "expect_column_sum_to_be_between": Form(
        aggregates.total,
        _NUMBER,
        _ADDED,
        f"{_ROUNDED}; a sum of integers beyond 64 bits; decimals under a row condition",
    ),
    "expect_column_mean_to_be_between": Form(
        aggregates.mean, _NUMBER, (*_NUMERIC, "boolean"), f"{_ROUNDED}; a sum of integers beyond 64 bits"
    ),
    "expect_column_median_to_be_between": Form(quantiles.median, _NUMBER, _NUMERIC),
    "expect_column_stdev_to_be_between": Form(aggregates.deviation, _NUMBER, _NUMERIC, _ROUNDED),
    "expect_column_quantile_values_to_be_between": Form(
        quantiles.quantiles,
        (*_COLUMN, "quantile_ranges", "allow_relative_error"),
        _NUMERIC,
        "quantiles other than 0, 0.5 and 1; no value at all",
    ),
    "expect_column_unique_value_count_to_be_between": Form(distinct.unique_count, _NUMBER, _DISCRETE),
    "expect_column_proportion_of_unique_values_to_be_between": Form(distinct.unique_proportion, _NUMBER, _DISCRETE),
    "expect_column_proportion_of_non_null_values_to_be_between": Form(distinct.non_null_proportion, _NUMBER),
    "expect_column_distinct_values_to_be_in_set": Form(distinct.distinct_in_set, (*_COLUMN, "value_set"), _LISTED),
    "expect_column_distinct_values_to_contain_set": Form(
        distinct.distinct_contains_set, (*_COLUMN, "value_set"), _LISTED
    ),
    "expect_column_distinct_values_to_equal_set": Form(distinct.distinct_equals_set, (*_COLUMN, "value_set"), _LISTED),
    "expect_column_pair_values_to_be_equal": Form(pairs.pair_equal, _PAIR, (*_ORDERED, "text"), _NULLS),
    "expect_column_pair_values_a_to_be_greater_than_b": Form(
        pairs.pair_greater, (*_PAIR, "or_equal"), (*_NUMERIC, "decimal", "date", "timestamp", "text"), _NULLS
    ),
    "expect_column_pair_values_to_be_in_set": Form(
        pairs.pair_in_set,
        ("column_A", "column_B", "ignore_row_if", "mostly", "value_pairs_set"),
        ("integer", "text"),
        "more than 100 pairs; a row condition, of which Great Expectations heeds a part",
    ),
    "expect_compound_columns_to_be_unique": Form(pairs.compound_unique, _LIST, _DISCRETE),
    "expect_select_column_values_to_be_unique_within_record": Form(
        pairs.within_record_unique, _LIST, _DISCRETE, "columns of different types"
    ),
    "expect_multicolumn_sum_to_equal": Form(
        pairs.sum_equal, (*_LIST, "sum_total"), _WHOLE, f"{_NULLS}; a sum beyond its columns' type"
    ),
    "expect_table_row_count_to_be_between": Form(tables.row_count_between, (*_BOUNDS, *_ROWS)),
    "expect_table_row_count_to_equal": Form(tables.row_count_equal, ("value", *_ROWS)),
    "expect_table_column_count_to_be_between": Form(tables.column_count_between, ("min_value", "max_value")),
    "expect_table_column_count_to_equal": Form(tables.column_count_equal, ("value",)),
    "expect_table_columns_to_match_ordered_list": Form(tables.columns_in_order, ("column_list",)),
    "expect_table_columns_to_match_set": Form(tables.columns_in_set, ("column_set", "exact_match")),
    "expect_column_to_exist": Form(tables.column_exists, ("column", "column_index")),
}


def compiled(expectation: Expectation, schema: pa.Schema, sql: Sql) -> Measure | str:
    """Return an expectation as SQL, or the reason why it is left to Great Expectations.

    :param schema: of the rows.
    :param sql: writes it.
    :raises AuditFailed: if it names a column the rows do not have.
    """
    form = FORMS.get(expectation.type)
    if form is None:
        return f"there is no SQL for {expectation.type} that is proven equal"
    more = [name for name, value in expectation.kwargs.items() if name not in form.takes and value is not None]
    if more:
        return f"the argument {more[0]} has no SQL that is proven equal"
    given = Given(expectation, schema, sql, form.kinds)
    try:
        given.where = condition(given)
        return form.build(given)
    except (Left, Inexact) as left:
        return left.reason
