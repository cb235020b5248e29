"""The page of the documentation that says which expectations DuckDB judges, made from what makes them SQL.

``python -m airflow_incremental.audits.expectations.supported`` prints it.
"""

from __future__ import annotations

import sys

from airflow_incremental.audits.expectations.fast import FORMS, Form

_HEAD = """\
<!-- Written by `make docs-expectations` from airflow_incremental/audits/expectations/fast.py; do not edit. -->

# Expectations in the one pass

An `Expectations` audit has two ways to judge an expectation of a Great Expectations suite. Those below are part of the one DuckDB
pass over the rows where their arguments and columns are as the table says: verdict, counts, percents and observed values are then
those that Great Expectations 1.24 gives over a data frame backed by Arrow. Each run of the tests judges random tables and suites
both ways to say so; sums, means and standard deviations of floats may differ in the last digits, as they depend on the order of
the rows.

Everything else is left to Great Expectations itself. So is what only the rows can show: such an expectation is then judged a second
time. The result of each expectation says which way it took.

- **Arguments** other than those listed leave an expectation to Great Expectations.
- **Columns** are of the kinds listed: integer (32 or 64 bits), float, decimal, text, boolean, date, timestamp (microseconds,
  without zone or UTC), binary. "any" is any type.
- **Values** are of the column's kind. Dates are written as `2026-01-31`, times as `2026-01-31T12:00:00`, with `+00:00` if the
  column has a zone. Bounds are numbers that a float holds exactly.
- **Patterns** are those that RE2, DuckDB's engine, and Python's `re` read alike: no lookaround, back references, flags or rare
  syntax. Left over are also rows that end in a line break under `$`, and text beyond ASCII under `\\d`, `\\w`, `\\b`, `\\s`.
- **Row conditions** are comparisons with numbers or text, `IN`, `NOT_IN` and null checks, joined by `and` and `or`, as Great
  Expectations' own objects; a single one as `col("x") > 5` with its parser; comparisons joined by `and` as `DataFrame.query` takes
  them. Text by order, 32-bit floats, and whole numbers against others are left over.

| expectation | arguments | columns | also left to Great Expectations |
|---|---|---|---|
"""


def document() -> str:
    """Return the page."""
    return _HEAD + "".join(_row(name, form) for name, form in FORMS.items())


def _row(name: str, form: Form) -> str:
    arguments = ", ".join(f"`{a}`" for a in form.takes if a not in ("row_condition", "condition_parser"))
    arguments += ", row condition" if "row_condition" in form.takes else ""
    of_columns = any(a.startswith("column") for a in form.takes) and name.startswith(_ABOUT_VALUES)
    kinds = ", ".join(form.kinds) or ("any" if of_columns else "")
    return f"| `{name}` | {arguments} | {kinds} | {form.left} |\n"


#: Types of expectations that look at the values of columns, not at the columns.
_ABOUT_VALUES = ("expect_column_values", "expect_column_proportion")

if __name__ == "__main__":
    sys.stdout.write(document())
