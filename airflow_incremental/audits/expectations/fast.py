"""Which expectations are run in the one DuckDB pass, and how: only where verdict and numbers are those of GX itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.audits.compile import Measure
from airflow_incremental.audits.expectations import rowwise, tables
from airflow_incremental.audits.expectations.expectation import Expectation
from airflow_incremental.audits.expectations.given import Given, Left


@attrs.frozen
class Form:
    """How expectations of one type become SQL.

    :param build: makes the measure, or raises ``Left``.
    :param takes: the arguments it reads; one with another argument is left to Great Expectations.
    """

    build: Callable[[Given], Measure]
    takes: tuple[str, ...] = ()


FORMS: Mapping[str, Form] = {
    "expect_column_values_to_not_be_null": Form(rowwise.not_null, ("column", "mostly")),
    "expect_column_values_to_be_null": Form(rowwise.null, ("column", "mostly")),
    "expect_table_row_count_to_be_between": Form(
        tables.row_count_between, ("min_value", "max_value", "strict_min", "strict_max")
    ),
    "expect_table_row_count_to_equal": Form(tables.row_count_equal, ("value",)),
}


def compiled(expectation: Expectation, schema: pa.Schema, prefix: str) -> Measure | str:
    """Return an expectation as SQL, or the reason why it is left to Great Expectations.

    :param schema: of the rows.
    :param prefix: what the names of its parameters start with.
    :raises AuditFailed: if it names a column the rows do not have.
    """
    form = FORMS.get(expectation.type)
    if form is None:
        return f"there is no SQL for {expectation.type} that is proven equal"
    more = [k for k, v in expectation.kwargs.items() if k not in form.takes and _says_something(v)]
    if more:
        return f"the argument {more[0]} has no SQL that is proven equal"
    try:
        return form.build(Given(expectation, schema, prefix))
    except Left as left:
        return left.reason


def _says_something(value: Any) -> bool:
    return value is not None
