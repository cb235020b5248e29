"""A suite of 45 expectations, in the file that Great Expectations writes, over the flights of a week, both ways."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental.audits import Expectations
from airflow_incremental.core.audit import AuditReport, AuditResult
from demo.flights import departing, load_flights
from tests.unit.audits.expectations.judges import alike
from tests.unit.audits.rows import audit

SUITE = Path(__file__).with_name("flights.json")
START = dt.datetime(2013, 1, 7, tzinfo=dt.timezone.utc)


@pytest.fixture(scope="module")
def reports() -> tuple[AuditReport, AuditReport]:
    """Return what was found with DuckDB where it can, and by Great Expectations alone; with what is observed."""
    rows = departing(load_flights(), START, START + dt.timedelta(days=7))
    suite: dict[str, Any] = json.loads(SUITE.read_text())
    auto, alone = (audit(rows, Expectations(suite, engine=engine), samples=1) for engine in ("auto", "gx"))
    return auto, alone


def test_both_ways_find_the_same(reports: tuple[AuditReport, AuditReport]) -> None:
    auto, alone = reports
    assert len(auto.results) == 45
    for one, other in zip(auto.results, alone.results, strict=True):
        same = ("name", "kind", "severity", "passed", "offending", "checked")
        assert [getattr(one, field) for field in same] == [getattr(other, field) for field in same]
        assert alike(_result(one), _result(other)), one.name
    assert auto.verdict == alone.verdict


def _result(result: AuditResult) -> dict[str, Any]:
    """Return Great Expectations' result, without the sample values."""
    assert result.full is not None
    return {k: v for k, v in result.full["result"].items() if not k.startswith("partial_")}


def test_duckdb_finds_what_it_is_proven_to_find(reports: tuple[AuditReport, AuditReport]) -> None:
    auto, alone = reports
    assert [r.name.split(": ")[1] for r in auto.results if r.path == "gx"] == [
        "column_most_common_value_to_be_in_set(carrier)",
        "column_quantile_values_to_be_between(air_time)",
        "column_value_z_scores_to_be_less_than(distance)",
    ]
    assert {r.path for r in alone.results} == {"gx"}


def test_some_planes_bear_a_number_that_is_not_as_expected(reports: tuple[AuditReport, AuditReport]) -> None:
    (failed,) = reports[0].failed
    assert failed.name == "flights: column_values_to_match_regex_list(tailnum)"
    assert 0 < failed.offending < failed.checked
