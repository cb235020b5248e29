"""Random expectations of random tables, from a seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa

from airflow_incremental.audits.expectations.expectation import Expectation
from tests.unit.audits.expectations.draws import COLUMNS, Draw, table_of
from tests.unit.audits.expectations.judges import expectation

_NUMBERS = ("i", "n", "f", "h", "d", "b")
_LISTED = ("i", "n", "s", "b", "day", "time", "utc")


def _map(kind: str, *names: str, **arguments: Callable[[Draw, str], Any]) -> Callable[[Draw], Expectation]:
    """Return what draws a row-wise expectation of one column."""

    def drawn(draw: Draw) -> Expectation:
        column = draw.any_of(*names)
        more = {k: v(draw, column) for k, v in arguments.items() if k != "bounds"}
        bounds = arguments["bounds"](draw, column) if "bounds" in arguments else {}
        return expectation(kind, column=column, **more, **bounds, **draw.mostly(), **draw.condition())

    return drawn


def _number(kind: str, *names: str, bounds: Callable[[Draw, str], dict[str, Any]]) -> Callable[[Draw], Expectation]:
    """Return what draws an expectation of a number of a column."""

    def drawn(draw: Draw) -> Expectation:
        column = draw.any_of(*names)
        return expectation(kind, column=column, **bounds(draw, column), **draw.condition())

    return drawn


def _pair(kind: str, **arguments: Callable[[Draw, str, str], Any]) -> Callable[[Draw], Expectation]:
    def drawn(draw: Draw) -> Expectation:
        a, b = draw.random.choice(
            (("i", "n"), ("n", "m"), ("f", "g"), ("f", "h"), ("s", "t"), ("i", "j"), ("day", "day"))
        )
        if draw.random.random() < 0.1:
            a = draw.any_of()
        more = {k: v(draw, a, b) for k, v in arguments.items()}
        ignored = draw.ignored("both_values_are_missing", "either_value_is_missing", "neither")
        return expectation(kind, column_A=a, column_B=b, **more, **ignored, **draw.mostly(), **draw.condition())

    return drawn


def _list(kind: str, *groups: tuple[str, ...], **arguments: Callable[[Draw], Any]) -> Callable[[Draw], Expectation]:
    def drawn(draw: Draw) -> Expectation:
        more = {k: v(draw) for k, v in arguments.items()}
        ignored = draw.ignored("all_values_are_missing", "any_value_is_missing", "never")
        names = list(draw.random.choice(groups))
        return expectation(kind, column_list=names, **more, **ignored, **draw.mostly(), **draw.condition())

    return drawn


def _bounds(draw: Draw, column: str) -> dict[str, Any]:
    return draw.bounds(column)


def _values(draw: Draw, column: str) -> list[Any]:
    return draw.values(column)


def _value_set(draw: Draw, column: str) -> dict[str, Any]:
    return {"value_set": draw.values(column)}


def _sum(draw: Draw) -> float:
    return draw.random.choice((0, 1, 2, 3, 2.5))


def _counts(draw: Draw, _column: str) -> dict[str, Any]:
    return draw.limits(draw.random.choice((0, 1, 2, 3)), draw.random.choice((2, 3, 5, 40, 150)))


def _parts(draw: Draw, _column: str) -> dict[str, Any]:
    return draw.limits(draw.random.choice((0, 0.1, 0.5)), draw.random.choice((0.5, 0.9, 1, 1.0)))


PATTERNS = (
    "a",
    "^a",
    "a$",
    "^a$",
    "^$",
    "",
    r"\d",
    r"^\d+$",
    r"\w",
    r"^\w*$",
    r"\s",
    r"^\S+$",
    r"\bab\b",
    "[a-z]",
    "^[^a-z]",
    "[^0-9]",
    "a|b",
    "(a|é)b?",
    "^(?:ab|A1)$",
    "日",
    ".",
    "^.$",
    "^.{2}$",
    "a{3,}",
    r"\.",
    r"^[A-Z]\d$",
    "(?i)a",
    "a(?=b)",
    r"(a)\1",
    "[[:alpha:]]",
    r"\Aa",
    r"a\Z",
    "[a-]",
    "x+ y*",
    r"\x61",
    "a{,2}",
    "$",
    "(",
    r"[\w-]+",
    r"[^\s]",
    "^N|n$",
)


def _regex(draw: Draw, _column: str) -> str:
    return draw.random.choice(PATTERNS)


def _regexes(draw: Draw, _column: str) -> list[str]:
    return [draw.random.choice(PATTERNS) for _ in range(draw.random.choice((1, 2, 3)))]


def _pairs(draw: Draw, a: str, b: str) -> list[list[Any]]:
    return [
        [x if draw.random.random() < 0.8 else None, y if draw.random.random() < 0.8 else None]
        for x, y in ((draw.value(a), draw.value(b)) for _ in range(3))
    ]


def _table(draw: Draw) -> Expectation:
    names = list(COLUMNS)
    draw.random.shuffle(names)
    some = names[: draw.random.choice((3, len(names)))] + draw.random.choice(([], ["other"]))
    rows = draw.random.choice((0, 1, 2, 3, 5, 40, 150))
    return draw.random.choice(
        (
            expectation("table_row_count_to_be_between", **draw.limits(0, rows), **draw.condition()),
            expectation("table_row_count_to_equal", value=rows, **draw.condition()),
            expectation("table_column_count_to_be_between", **draw.limits(1, 16)),
            expectation("table_column_count_to_equal", value=draw.random.choice((16, 15))),
            expectation("table_columns_to_match_ordered_list", column_list=draw.random.choice((some, list(COLUMNS)))),
            expectation("table_columns_to_match_set", column_set=some, exact_match=draw.random.random() < 0.5),
            expectation("column_to_exist", column=draw.random.choice((*COLUMNS, "other"))),
            expectation("column_to_exist", column="i", column_index=draw.random.choice((0, 1, 99))),
        )
    )


def _quantiles(draw: Draw) -> Expectation:
    asked = [draw.random.choice((0, 0.5, 1, 0.25)) for _ in range(draw.random.choice((1, 2)))]
    column = draw.any_of("i", "n", "f", "h")
    ranges = [
        [draw.random.choice((None, draw.value(column))), draw.random.choice((None, draw.value(column)))] for _ in asked
    ]
    quantile_ranges = {"quantiles": asked, "value_ranges": ranges}
    return expectation(
        "column_quantile_values_to_be_between", column=column, quantile_ranges=quantile_ranges, **draw.condition()
    )


#: Every type of expectation that has SQL, and some that have none.
DRAWS: tuple[Callable[[Draw], Expectation], ...] = (
    _map("column_values_to_not_be_null"),
    _map("column_values_to_be_null"),
    _map("column_values_to_be_unique"),
    _map("column_values_to_be_in_set", "i", "n", "f", "h", "s", "t", "b", "day", "time", "utc", value_set=_values),
    _map("column_values_to_not_be_in_set", "i", "n", "f", "h", "s", "t", "b", "day", "time", "utc", value_set=_values),
    _map("column_values_to_be_between", *_NUMBERS, "day", "time", "utc", bounds=_bounds),
    _map("column_values_to_be_between", *_NUMBERS, "day", "time", "utc", bounds=_bounds),
    _map("column_value_lengths_to_be_between", "s", "t", bounds=_counts),
    _map("column_value_lengths_to_equal", "s", "t", value=lambda draw, _: draw.random.choice((0, 1, 2, 1.0, 1.5))),
    _map("column_values_to_match_regex", "s", "t", regex=_regex),
    _map("column_values_to_not_match_regex", "s", "t", regex=_regex),
    _map(
        "column_values_to_match_regex_list",
        "s",
        "t",
        regex_list=_regexes,
        match_on=lambda d, _: d.random.choice(("any", "all")),
    ),
    _map("column_values_to_not_match_regex_list", "s", "t", regex_list=_regexes),
    _number("column_min_to_be_between", *_NUMBERS, "day", "time", "utc", "s", bounds=_bounds),
    _number("column_max_to_be_between", *_NUMBERS, "day", "time", "utc", "s", bounds=_bounds),
    _number("column_sum_to_be_between", *_NUMBERS, bounds=_bounds),
    _number("column_mean_to_be_between", *_NUMBERS, bounds=_bounds),
    _number("column_median_to_be_between", *_NUMBERS, bounds=_bounds),
    _number("column_stdev_to_be_between", *_NUMBERS, bounds=_bounds),
    _number("column_unique_value_count_to_be_between", bounds=_counts),
    _number("column_proportion_of_unique_values_to_be_between", bounds=_parts),
    _number("column_proportion_of_non_null_values_to_be_between", bounds=_parts),
    _number("column_distinct_values_to_be_in_set", *_LISTED, bounds=_value_set),
    _number("column_distinct_values_to_contain_set", *_LISTED, bounds=_value_set),
    _number("column_distinct_values_to_equal_set", *_LISTED, bounds=_value_set),
    _pair("column_pair_values_to_be_equal"),
    _pair("column_pair_values_a_to_be_greater_than_b", or_equal=lambda d, *_: d.random.random() < 0.5),
    _pair("column_pair_values_to_be_in_set", value_pairs_set=_pairs),
    _list(
        "compound_columns_to_be_unique",
        ("i", "s"),
        ("b", "day"),
        ("s", "t", "b"),
        ("f", "g"),
        ("time", "utc"),
        ("raw", "d"),
    ),
    _list(
        "select_column_values_to_be_unique_within_record", ("i", "j"), ("n", "m"), ("s", "t"), ("i", "n"), ("f", "g")
    ),
    _list(
        "multicolumn_sum_to_equal",
        ("i", "j"),
        ("n", "m"),
        ("i", "n"),
        ("f", "g"),
        sum_total=_sum,
    ),
    _table,
    _table,
    _quantiles,
)


def case(seed: int, count: int) -> tuple[pa.Table, list[Expectation]]:
    """Return a table and ``count`` expectations of it, of as many types."""
    random = Random(seed)
    table = table_of(random)
    draw = Draw(random)
    return table, [make(draw) for make in random.sample(DRAWS * 2, count)]
