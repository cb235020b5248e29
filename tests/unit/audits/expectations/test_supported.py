"""The page on what DuckDB judges says what the code does."""

from __future__ import annotations

from pathlib import Path

from airflow_incremental.audits.expectations.fast import FORMS
from airflow_incremental.audits.expectations.supported import document

PAGE = Path(__file__).parents[4] / "docs" / "expectations.md"


def test_the_page_is_the_one_that_the_code_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), "write it anew: make docs-expectations"


def test_each_expectation_that_becomes_sql_has_a_row() -> None:
    assert [line.split("`")[1] for line in document().splitlines() if line.startswith("| `")] == list(FORMS)
