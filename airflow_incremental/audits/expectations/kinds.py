"""What is known of Great Expectations' own expectations without loading it.

Anything not listed here, an expectation of the author's own above all, is given all rows it asks about at once.
"""

from __future__ import annotations

_VALUES = "expect_column_values_to_"

#: Judge each row by itself, so what they count over parts of the rows adds up to what they count over all.
ROW_BY_ROW = frozenset(
    {
        "expect_column_pair_values_a_to_be_greater_than_b",
        "expect_column_pair_values_to_be_equal",
        "expect_column_pair_values_to_be_in_set",
        "expect_column_value_lengths_to_be_between",
        "expect_column_value_lengths_to_equal",
        "expect_multicolumn_sum_to_equal",
        "expect_multicolumn_values_to_be_equal",
        "expect_select_column_values_to_be_unique_within_record",
        *(
            _VALUES + rest
            for rest in (
                "be_between",
                "be_dateutil_parseable",
                "be_in_set",
                "be_json_parseable",
                "be_null",
                "match_json_schema",
                "match_like_pattern",
                "match_like_pattern_list",
                "match_regex",
                "match_regex_list",
                "match_strftime_format",
                "not_be_in_set",
                "not_be_null",
                "not_match_like_pattern",
                "not_match_like_pattern_list",
                "not_match_regex",
                "not_match_regex_list",
            )
        ),
    }
)
#: Single rows offend, so that they can be told from the rest and put aside.
ROW_WISE = ROW_BY_ROW | {_VALUES + "be_unique", "expect_compound_columns_to_be_unique"}
#: What they observe is counted or computed over rows: no row's own value. All others may observe one, as a minimum is.
OBSERVES_NO_VALUE = frozenset(
    {
        "expect_column_mean_to_be_between",
        "expect_column_proportion_of_non_null_values_to_be_between",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_stdev_to_be_between",
        "expect_column_sum_to_be_between",
        "expect_column_to_exist",
        "expect_column_type_to_be",
        "expect_column_unique_value_count_to_be_between",
        "expect_column_values_to_be_in_type_list",
        "expect_column_values_to_be_of_type",
        "expect_table_column_count_to_be_between",
        "expect_table_column_count_to_equal",
        "expect_table_columns_to_match_ordered_list",
        "expect_table_columns_to_match_set",
        "expect_table_row_count_to_be_between",
        "expect_table_row_count_to_equal",
    }
)
#: Ask about the table's columns, so one that is not there is what they find, not a mistake in the suite.
OF_COLUMNS = frozenset(
    {
        "expect_column_to_exist",
        "expect_table_column_count_to_be_between",
        "expect_table_column_count_to_equal",
        "expect_table_columns_to_match_ordered_list",
        "expect_table_columns_to_match_set",
    }
)
#: Ask how many rows there are.
OF_ROW_COUNT = frozenset({"expect_table_row_count_to_be_between", "expect_table_row_count_to_equal"})
#: The rows of a table have no order.
NEEDS_ORDER = frozenset({_VALUES + "be_increasing", _VALUES + "be_decreasing"})
#: Are SQL, or have no implementation over data frames in Great Expectations.
NEEDS_SQL = frozenset(
    {
        "expect_query_results_to_match_comparison",
        "expect_table_row_count_to_equal_other_table",
        "unexpected_rows_expectation",
        *(f"{_VALUES}{no}match_like_pattern{several}" for no in ("", "not_") for several in ("", "_list")),
    }
)
