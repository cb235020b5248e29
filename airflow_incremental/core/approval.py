"""A person's approval of a session: when one is asked for, what is kept while the session waits, and what was decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from airflow_incremental.core.audit import AuditReport, AuditResult
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import format_time, parse_time

#: When a person is asked, besides for audits of severity ``ask``, which always ask: ``always``; when an audit warned; when an
#: audit of the kind ``sensitive_data`` found something.
ApprovalPolicy = Literal["always", "on_warning", "on_sensitive_data"]
#: What is answered for a person who does not answer in time.
ApprovalDefault = Literal["deny", "approve"]
#: What a rejected session leads to: the task fails; the rows are discarded and the run goes on; they are put into quarantine.
OnReject = Literal["fail", "discard", "quarantine"]

SENSITIVE_DATA = "sensitive_data"


def asked_about(report: AuditReport, policy: ApprovalPolicy | None) -> tuple[AuditResult, ...]:
    """Return the findings a person has to decide on; a blocking one is none, because nobody can let it pass."""

    def asks(result: AuditResult) -> bool:
        return (
            result.asks or policy == "on_warning" or (policy == "on_sensitive_data" and result.kind == SENSITIVE_DATA)
        )

    return tuple(r for r in report.warnings if asks(r))


def must_ask(report: AuditReport, policy: ApprovalPolicy | None) -> bool:
    """Say whether a person has to decide before the session is published."""
    return policy == "always" or bool(asked_about(report, policy))


@attrs.frozen(kw_only=True)
class Decision:
    """What was decided on a session, by whom, and on what.

    :param session: the session it is about.
    :param write_id: which rows of the session; they keep it when they are sealed again on another ``main``.
    :param snapshot_id: the sealed snapshot that was looked at.
    :param approved: whether it may be published.
    :param by: id of the user who answered; None where nobody did in time and the default was taken.
    :param name: the user's name.
    :param at: when, aware.
    :param about: audit -> offending rows, of the findings that were decided on.
    """

    session: str
    write_id: str
    snapshot_id: int
    approved: bool
    by: str | None
    name: str | None
    at: dt.datetime
    about: Mapping[str, int] = attrs.field(factory=dict)

    def covers(self, findings: tuple[AuditResult, ...]) -> bool:
        """Say whether these findings, or worse ones of the same audits, were decided on."""
        return all(r.offending <= self.about.get(r.name, -1) for r in findings)

    def __str__(self) -> str:
        what = "approved" if self.approved else "rejected"
        at = f"{self.at:%Y-%m-%d %H:%M:%S} UTC"
        if self.by is None:
            return f"{what} at {at}, because nobody answered in time"
        who = self.by if self.name in (None, "", self.by) else f"{self.name} ({self.by})"
        return f"{what} by {who} at {at}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**attrs.asdict(self, recurse=False), "at": format_time(self.at), "about": dict(self.about)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Decision:
        """Read what ``to_json`` wrote; unknown keys of a newer version are left out."""
        plain = {f.name: value[f.name] for f in attrs.fields(cls) if f.name in value}
        return cls(**{**plain, "at": parse_time(plain["at"])})


@attrs.frozen(kw_only=True)
class Approval:
    """What the lock of a session says about its approval: that it waits for a person, or what was decided.

    :param since: when the person was asked, aware.
    :param deadline: when the default is taken; None waits for good.
    :param task: the task that asks.
    :param task_instance: id of its try in Airflow.
    :param clear_number: of the run when it asked; a run that was cleared since may be asked again.
    :param snapshot_id: the sealed snapshot the question is about.
    :param write_id: the rows it is about.
    :param about: audit -> offending rows, of the findings it is about.
    :param decision: the answer, once there is one.
    """

    since: dt.datetime
    deadline: dt.datetime | None
    task: str
    task_instance: str
    clear_number: int
    snapshot_id: int
    write_id: str
    about: Mapping[str, int] = attrs.field(factory=dict)
    decision: Decision | None = None

    @property
    def is_pending(self) -> bool:
        """Whether a person is still to answer."""
        return self.decision is None

    def same_question(self, other: Approval) -> bool:
        """Say whether both ask the same: about the same rows, snapshot and findings, in the same clear of a run."""
        return (self.clear_number, self.snapshot_id, self.write_id, dict(self.about)) == (
            other.clear_number,
            other.snapshot_id,
            other.write_id,
            dict(other.about),
        )

    def __str__(self) -> str:
        text = f"waits for a person's approval since {self.since:%Y-%m-%d %H:%M:%S} UTC (task {self.task!r})"
        return text if self.deadline is None else f"{text}, until {self.deadline:%Y-%m-%d %H:%M:%S} UTC"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **attrs.asdict(self, recurse=False),
            "since": format_time(self.since),
            "deadline": None if self.deadline is None else format_time(self.deadline),
            "about": dict(self.about),
            "decision": None if self.decision is None else self.decision.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Approval:
        """Read what ``to_json`` wrote; unknown keys of a newer version are left out."""
        plain = {f.name: value[f.name] for f in attrs.fields(cls) if f.name in value}
        deadline, decision = plain["deadline"], plain["decision"]
        return cls(
            **{
                **plain,
                "since": parse_time(plain["since"]),
                "deadline": None if deadline is None else parse_time(deadline),
                "decision": None if decision is None else Decision.from_json(decision),
            }
        )


def users(value: Any) -> list[dict[str, str]] | None:
    """Read who may answer: user ids, or mappings with ``id`` and ``name``; None for everybody who may in Airflow.

    :raises ArgumentError: nobody could answer, or it is something else.
    """
    if value is None:
        return None
    if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
        raise ArgumentError(f"approvers is {value!r}", expected="a list of user ids", hint="write approvers=['ann']")
    found = [{"id": item, "name": item} if isinstance(item, str) else item for item in value]
    if not found:
        raise ArgumentError(
            "approvers is empty: an approval with no one allowed to answer would wait for good",
            expected="at least one user id, or None for everybody who may answer in Airflow",
            hint="name somebody, leave approvers out, or, if nobody is to be asked, leave approval out",
        )
    for item in found:
        names = (item.get("id"), item.get("name")) if isinstance(item, Mapping) else ()
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ArgumentError(
                f"approvers has {item!r}",
                expected="the id of a user, as text, or a mapping with its 'id' and 'name'",
                hint="write approvers=['ann'], with ids as Airflow's auth manager has them",
            )
    return [{"id": item["id"], "name": item["name"]} for item in found]


def check_timeout(value: Any) -> None:
    """Refuse what is no time to wait.

    :raises ArgumentError: it is neither None nor a positive timedelta.
    """
    if value is None or (isinstance(value, dt.timedelta) and value > dt.timedelta(0)):
        return
    raise ArgumentError(
        f"approval_timeout is {value!r}",
        expected="a timedelta above zero, or None to wait for good",
        hint="write approval_timeout=timedelta(hours=8)",
    )
