"""Reports: verdict, log lines, JSON, and the error that keeps data from being published."""

from __future__ import annotations

import json

import pytest

from airflow_incremental.core.audit import AuditIncomplete, AuditReport, AuditResult, Severity
from airflow_incremental.core.errors import AuditFailed, IncrementalError


def result(name: str, offending: int = 0, severity: Severity = "block", **more: object) -> AuditResult:
    return AuditResult(
        name=name,
        severity=severity,
        passed=not offending,
        offending=offending,
        checked=1200,
        message=f"{offending:,} of 1,200 rows are null",
        **more,  # type: ignore[arg-type]
    )


def report(*results: AuditResult) -> AuditReport:
    return AuditReport(snapshot_id=8128, rows=1200, results=results)


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ([], "passed"),
        ([result("a")], "passed"),
        ([result("a", 1, "warn"), result("b")], "warned"),
        ([result("a", 1, "warn"), result("b", 1)], "failed"),
        ([result("a", severity="warn")], "passed"),
    ],
)
def test_the_verdict(results: list[AuditResult], verdict: str) -> None:
    assert report(*results).verdict == verdict


def test_a_log_holds_one_aligned_line_per_audit() -> None:
    text = report(result("not_null(a)"), result("b", 3, "warn"), result("c", 1100)).describe()
    assert text.splitlines() == [
        "audits of snapshot 8128 over 1,200 rows: failed (1 passed, 1 warned, 1 failed)",
        "  ok    not_null(a)  block  0 of 1,200 rows are null",
        "  WARN  b            warn   3 of 1,200 rows are null",
        "  FAIL  c            block  1,100 of 1,200 rows are null",
    ]


def test_a_log_without_audits_says_so() -> None:
    assert "none were asked for" in AuditReport(snapshot_id=8128, rows=None).describe()


def test_sample_rows_follow_their_audit_in_the_log_and_stay_out_of_the_error() -> None:
    found = report(result("a", 2, samples=({"id": 1, "name": "Jane"}, {"id": 2, "name": "Joe"})), result("b"))
    lines = found.describe().splitlines()
    assert lines[2].endswith("offending row: {'id': 1, 'name': 'Jane'}")
    assert lines[4].startswith("  ok    b")
    with pytest.raises(AuditFailed) as caught:
        found.raise_if_failed()
    assert "Jane" not in str(caught.value)


def test_a_report_survives_json() -> None:
    for found in (
        report(result("a", 2, samples=({"id": 1, "tags": ["x"]},)), result("b", 1, "warn")),
        AuditReport(snapshot_id=2**62, rows=None),
    ):
        plain = json.loads(json.dumps(found.to_json()))
        assert AuditReport.from_json(plain) == found
        assert plain["verdict"] == found.verdict


def test_json_has_no_samples_unless_there_are_some() -> None:
    plain = report(result("a", 2)).to_json()
    assert plain["results"] == [
        {
            "name": "a",
            "severity": "block",
            "passed": False,
            "offending": 2,
            "checked": 1200,
            "message": "2 of 1,200 rows are null",
        }
    ]


def test_a_report_of_a_newer_version_is_read_without_what_it_added() -> None:
    plain = report(result("a")).to_json()
    plain["results"][0]["colour"] = "green"
    assert AuditReport.from_json({**plain, "took": 3}) == report(result("a"))


def test_twenty_audits_fit_well_into_an_xcom() -> None:
    found = report(*(result(f"not_null(column_{n})", n) for n in range(20)))
    assert len(json.dumps(found.to_json())) < 4096


def test_only_a_blocking_failure_raises() -> None:
    report(result("a"), result("b", 5, "warn")).raise_if_failed()


def test_the_error_lists_failed_audits_with_counts_and_says_what_to_do() -> None:
    found = report(result("a", 3), result("b", 5, "warn"), result("c", 7), result("d"))
    with pytest.raises(AuditFailed) as caught:
        found.raise_if_failed(inspect="The rows are kept on branch 'inc_failed_x' of db.t")
    error = caught.value
    assert error.found == (
        "2 of 4 audits failed over 1,200 rows of snapshot 8128: "
        "a: 3 of 1,200 rows are null; c: 7 of 1,200 rows are null"
    )
    assert error.hint.startswith("the data stays unpublished and readers see no change. The rows are kept on branch")
    assert "'inc_failed_x' of db.t. Correct the source" in error.hint
    assert not error.retryable


def test_an_audit_that_could_not_be_run_is_worth_a_retry_and_is_no_failed_audit() -> None:
    assert issubclass(AuditIncomplete, IncrementalError)
    assert not issubclass(AuditIncomplete, AuditFailed)
    assert AuditIncomplete("x").retryable
