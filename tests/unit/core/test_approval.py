"""When a person is asked, what a decision covers, and what is read and refused of an author's arguments."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import attrs
import pytest

from airflow_incremental.core.approval import (
    Approval,
    ApprovalPolicy,
    Decision,
    asked_about,
    check_timeout,
    must_ask,
    users,
)
from airflow_incremental.core.audit import AuditReport, AuditResult, Severity
from airflow_incremental.core.errors import ArgumentError

NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.timezone.utc)


def result(name: str, severity: Severity, *, offending: int = 2, kind: str = "unique") -> AuditResult:
    return AuditResult(
        name=name,
        severity=severity,
        passed=not offending,
        offending=offending,
        checked=9,
        message=f"{offending} of 9 rows",
        kind=kind,
    )


def report(*results: AuditResult) -> AuditReport:
    return AuditReport(snapshot_id=7, rows=9, results=results)


ASKS = result("asks", "ask")
WARNS = result("warns", "warn")
FINDS = result("finds", "warn", kind="sensitive_data")
CLEAN = (result("ok", "ask", offending=0), result("fine", "warn", offending=0, kind="sensitive_data"))


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (None, ["asks"]),
        ("always", ["asks"]),
        ("on_warning", ["asks", "warns", "finds"]),
        ("on_sensitive_data", ["asks", "finds"]),
    ],
)
def test_which_findings_a_person_decides_on(policy: ApprovalPolicy | None, found: list[str]) -> None:
    assert [r.name for r in asked_about(report(ASKS, WARNS, FINDS, *CLEAN), policy)] == found


def test_what_blocks_is_no_question() -> None:
    blocking = (result("b", "block", kind="sensitive_data"), result("q", "quarantine"))
    assert asked_about(report(*blocking), "on_warning") == ()


@pytest.mark.parametrize(
    ("policy", "results", "asks"),
    [
        (None, CLEAN, False),
        (None, (WARNS, FINDS), False),
        (None, (ASKS,), True),
        ("always", (), True),
        ("on_warning", CLEAN, False),
        ("on_warning", (WARNS,), True),
        ("on_sensitive_data", (WARNS,), False),
        ("on_sensitive_data", (FINDS,), True),
        ("on_sensitive_data", (ASKS,), True),
    ],
)
def test_when_a_person_is_asked(policy: ApprovalPolicy | None, results: tuple[AuditResult, ...], asks: bool) -> None:
    assert must_ask(report(*results), policy) == asks


def decision(**changes: Any) -> Decision:
    values: dict[str, Any] = {
        "session": "s",
        "write_id": "w",
        "snapshot_id": 7,
        "approved": True,
        "by": "ann",
        "name": "Ann A.",
        "at": NOON,
        "about": {"asks": 2},
    }
    return Decision(**{**values, **changes})


def approval(**changes: Any) -> Approval:
    values: dict[str, Any] = {
        "since": NOON,
        "deadline": NOON + dt.timedelta(hours=1),
        "task": "fact.approve",
        "task_instance": "018f",
        "clear_number": 0,
        "snapshot_id": 7,
        "write_id": "w",
        "about": {"asks": 2},
    }
    return Approval(**{**values, **changes})


def test_a_decision_covers_what_was_seen_and_nothing_worse() -> None:
    made = decision()
    assert made.covers((ASKS,))
    assert made.covers((result("asks", "ask", offending=1),))
    assert made.covers(())
    assert not made.covers((result("asks", "ask", offending=3),))
    assert not made.covers((ASKS, WARNS))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "approved by Ann A. (ann) at 2024-01-01 12:00:00 UTC"),
        ({"name": "ann", "approved": False}, "rejected by ann at 2024-01-01 12:00:00 UTC"),
        (
            {"by": None, "name": None, "approved": False},
            "rejected at 2024-01-01 12:00:00 UTC, because nobody answered in time",
        ),
    ],
)
def test_a_decision_says_who_and_when(changes: dict[str, Any], text: str) -> None:
    assert str(decision(**changes)) == text


@pytest.mark.parametrize("deadline", [None, NOON])
@pytest.mark.parametrize("made", [None, decision(), decision(by=None, name=None)])
def test_they_come_back_from_the_table_as_they_were(deadline: dt.datetime | None, made: Decision | None) -> None:
    stored = approval(deadline=deadline, decision=made)
    assert Approval.from_json(json.loads(json.dumps({**stored.to_json(), "of a newer version": 1}))) == stored
    assert stored.is_pending == (made is None)


def test_what_is_the_same_question() -> None:
    asked = approval()
    later = approval(since=NOON + dt.timedelta(1), deadline=None, task_instance="018e", decision=decision())
    assert asked.same_question(later)
    for changes in ({"clear_number": 1}, {"snapshot_id": 8}, {"write_id": "x"}, {"about": {"asks": 3}}):
        assert not asked.same_question(attrs.evolve(asked, **changes))


def test_how_long_it_waits_is_said() -> None:
    since = "waits for a person's approval since 2024-01-01 12:00:00 UTC (task 'fact.approve')"
    assert str(approval(deadline=None)) == since
    assert str(approval()) == f"{since}, until 2024-01-01 13:00:00 UTC"


def test_who_may_answer() -> None:
    assert users(None) is None
    assert users(["ann", {"id": "7", "name": "Bob"}]) == [{"id": "ann", "name": "ann"}, {"id": "7", "name": "Bob"}]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "no one allowed to answer.*What to do: name somebody"),
        ("ann", r"approvers is 'ann'.*a list of user ids"),
        ([""], "approvers has {'id': ''"),
        ([7], r"approvers has 7"),
        ([{"id": "ann"}], "approvers has"),
        ([None], "approvers has None"),
    ],
)
def test_who_may_not(value: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        users(value)


@pytest.mark.parametrize("value", [dt.timedelta(0), dt.timedelta(seconds=-1), 60, "1h"])
def test_bad_times_to_wait(value: Any) -> None:
    with pytest.raises(ArgumentError, match="approval_timeout is"):
        check_timeout(value)
    check_timeout(None)
    check_timeout(dt.timedelta(hours=1))
