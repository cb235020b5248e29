"""Functions of one's own as audits."""

from __future__ import annotations

import functools
from typing import Any

import pyarrow as pa
import pytest

from airflow_incremental import Finding, PythonCheck
from airflow_incremental.audits import validate_audits
from airflow_incremental.core.audit import AuditIncomplete, AuditReport
from airflow_incremental.core.errors import ArgumentError, AuditFailed
from tests.unit.audits.rows import SNAPSHOT, audit, only
from tests.unit.audits.test_failing import everything_said

ROWS = pa.table({"id": [1, 2, 3, 4], "name": ["a", "b", "SECRET", None]})


def test_offending_rows_are_counted_and_shown_only_when_asked_for() -> None:
    check = PythonCheck(lambda rows, _: rows.filter("id > 2"), name="small_ids")
    found = only(ROWS, check)
    assert (found.passed, found.offending, found.checked, found.path, found.samples) == (False, 2, 4, "python", ())
    assert [row["id"] for row in only(ROWS, check, samples=1).samples] == [3]
    assert only(ROWS, PythonCheck(lambda rows, _: rows.filter("id > 9").to_arrow_table(), name="none")).passed


def test_it_is_told_what_it_looks_at() -> None:
    def check(rows: Any, subject: Any) -> Finding:
        return Finding(passed=subject.snapshot_id == SNAPSHOT, message="seen", observed=rows.shape[0])

    found = only(ROWS, PythonCheck(check, severity="warn"))
    assert (found.name, found.passed, found.observed, found.message) == ("check", True, 4, "seen")


@pytest.mark.parametrize("said", [None, 1, "yes", [1, 2]])
def test_what_is_no_answer_is_no_pass(said: object) -> None:
    with pytest.raises(AuditFailed, match="returned a "):
        audit(ROWS, PythonCheck(lambda _rows, _subject: said, name="odd", severity="warn"))


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"passed": "no"}, "passed of type str"),
        ({"passed": None}, "passed of type NoneType"),
        ({"message": None}, "message of type NoneType"),
        ({"offending": -1}, "offending of type int"),
        ({"offending": 0.5, "observed": float("nan")}, "offending of type float, observed of type float"),
        ({"observed": b"SECRET"}, "observed of type bytes"),
    ],
)
def test_a_finding_that_is_none_does_not_pass_either(said: dict[str, Any], wrong: str) -> None:
    finding = Finding(**{"passed": True, "message": "fine", **said})
    with pytest.raises(AuditFailed, match=f"'odd' returned a Finding with {wrong}. Expected") as caught:
        audit(ROWS, PythonCheck(lambda _rows, _subject: finding, name="odd", severity="warn"))
    assert "SECRET" not in everything_said(caught.value)


def test_a_function_that_raises_fails_the_session_and_quotes_no_value() -> None:
    def check(rows: Any, _: Any) -> bool:
        raise ValueError(rows.fetchall())

    with pytest.raises(AuditFailed, match="stopped with ValueError at test_functions") as caught:
        audit(ROWS, PythonCheck(check, severity="warn"))
    assert "SECRET" not in everything_said(caught.value)

    def offline(_rows: Any, _subject: Any) -> bool:
        raise ConnectionError

    with pytest.raises(AuditIncomplete):
        audit(ROWS, PythonCheck(offline))


def no_negatives(rows: Any, _subject: Any, limit: int = 0) -> Any:
    return rows.filter(f"id < {limit}")


def test_bare_functions_and_plain_values() -> None:
    bare, partial = validate_audits([no_negatives, PythonCheck(functools.partial(no_negatives, limit=3), name="three")])
    report = audit(ROWS, bare, partial)
    assert [(r.name, r.offending) for r in report.results] == [("no_negatives", 0), ("three", 2)]
    assert AuditReport.from_json(report.to_json()) == report
    plain = partial.as_dict()
    assert plain["calls"].endswith("no_negatives()")
    (again,) = validate_audits([plain], functions={"three": no_negatives})
    assert again == partial
    with pytest.raises(ArgumentError, match="that is not there"):
        validate_audits([plain])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PythonCheck(lambda rows: True, name="one"), "two arguments"),  # noqa: ARG005
        (lambda: PythonCheck("text", name="text"), "'text'"),
        (lambda: PythonCheck(no_negatives, severity="quarantine"), "no single row offends"),
        (lambda: validate_audits([no_negatives, no_negatives]), "several audits are called"),
    ],
)
def test_mistakes_are_refused_at_once(make: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        make()
