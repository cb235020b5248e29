"""Loads that ask a person, as a DAG file makes them: the task between audit and publish, and what is refused."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_incremental import Expectations, IncrementalLoad, IncrementalLoadOperator, NotNull, Unique
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.operators.approve import SessionApprovalOperator
from tests.unit.task_groups.test_load import arguments, edges, new_dag

ASKS = [NotNull("id"), Unique("id", severity="ask")]


def group(**changes: Any) -> IncrementalLoad:
    with new_dag():
        return IncrementalLoad("fact", **arguments(**changes))


def approve(**changes: Any) -> SessionApprovalOperator:
    found = group(**{"approval": "always", **changes}).approve
    assert found is not None
    return found


def test_it_stands_between_audit_and_publish() -> None:
    with new_dag() as dag:
        made = IncrementalLoad("fact", **arguments(approval="on_warning", audits=ASKS))
    assert edges(dag) == {
        "fact.plan": set(),
        "fact.load": {"fact.plan"},
        "fact.audit": {"fact.load"},
        "fact.approve": {"fact.audit"},
        "fact.publish": {"fact.approve"},
    }
    assert isinstance(made.approve, ApprovalOperator)
    assert made.publish.stage_task_ids["approve"] == "fact.approve"
    assert made.approve.outlets == []


def test_a_dag_that_is_named() -> None:
    dag = new_dag()
    made = IncrementalLoad("fact", dag=dag, **arguments(approval="always"))
    assert made.approve is not None
    assert made.approve.dag is dag


def test_without_approval_nothing_is_asked() -> None:
    assert group().approve is None
    assert "approve" not in group().publish.stage_task_ids


def test_own_writes_stand_before_it() -> None:
    with new_dag() as dag, IncrementalLoad("fact", **arguments(transform=None, approval="always")):
        IncrementalLoadOperator(task_id="inner", **arguments(process="inner"))
    assert edges(dag)["fact.seal"] == {"fact.plan", "fact.inner"}
    assert edges(dag)["fact.approve"] == {"fact.audit"}


def test_who_answers_by_when_and_what_without() -> None:
    found = approve(
        approvers=["ann", {"id": "7", "name": "Bob"}],
        approval_timeout=dt.timedelta(hours=8),
        approval_default="approve",
        approval_on_reject="discard",
        when_pending="replace",
        iceberg_conn_id="lake",
        poll_interval=5,
    )
    assert found.assigned_users == [{"id": "ann", "name": "ann"}, {"id": "7", "name": "Bob"}]
    assert (found.response_timeout, found.defaults) == (dt.timedelta(hours=8), ["Approve"])
    assert (found.on_reject, found.when_pending, found.iceberg_conn_id) == ("discard", "replace", "lake")
    assert (approve().assigned_users, approve().response_timeout, approve().defaults) == (None, None, None)


@pytest.mark.parametrize(("given", "retries"), [({}, 2), ({"retries": 0}, 1), ({"retries": 5}, 5)])
def test_it_is_tried_again_at_least_once(given: dict[str, Any], retries: int) -> None:
    assert approve(operator_args={"*": given}).retries == retries


def test_arguments_of_the_task() -> None:
    found = approve(
        operator_args={
            "*": {"queue": "all", "memory_limit": "2GB", "execution_timeout": dt.timedelta(hours=1)},
            "approve": {"pool": "people", "queue": "small"},
        }
    )
    assert (found.pool, found.queue) == ("people", "small")
    assert found.execution_timeout == dt.timedelta(hours=1)
    assert found.response_timeout is None, "running is not waiting"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"approval": "sometimes"}, r"approval is 'sometimes'.*'always', 'on_warning', 'on_sensitive_data'"),
        ({"approval": "{{ params.approval }}"}, "approval is .*a literal"),
        ({"approval": "always", "approvers": []}, "no one allowed to answer"),
        ({"approval": "always", "approvers": "ann"}, "a list of user ids"),
        ({"approval": "always", "approval_timeout": dt.timedelta(0)}, r"approval_timeout is .*timedelta\(hours=8\)"),
        ({"approval": "always", "approval_timeout": 3600}, "approval_timeout is 3600"),
        ({"approval": "always", "approval_default": "maybe"}, "approval_default is 'maybe'"),
        ({"approval": "always", "approval_on_reject": "ignore"}, "approval_on_reject is 'ignore'"),
        ({"when_pending": "wait"}, "when_pending is 'wait'.*'skip', 'replace'"),
        ({"approvers": ["ann"]}, "approvers is given without approval"),
        (
            {"approval_timeout": dt.timedelta(1), "approval_on_reject": "discard"},
            "approval_timeout, approval_on_reject is",
        ),
        ({"audits": ASKS}, r"'ask' of 'unique\(id\)' leaves it to a person, and nobody is asked"),
        ({"operator_args": {"approve": {"pool": "p"}}}, "operator_args has the keys 'approve'"),
        ({"approval": "always", "operator_args": {"approve": {"body": "x"}}}, "operator_args sets 'body'"),
        ({"approval": "always", "operator_args": {"approve": {"task_id": "x"}}}, "operator_args sets 'task_id'"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        group(**changes)


@pytest.mark.parametrize("changes", [{"approval": "always"}, {"audits": ASKS}])
def test_one_task_cannot_ask(changes: dict[str, Any]) -> None:
    with new_dag(), pytest.raises(ArgumentError, match=r"use the task group IncrementalLoad"):
        IncrementalLoadOperator(task_id="load", **arguments(**changes))


SUITE = {
    "name": "flights",
    "expectations": [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "id"}, "meta": {"severity": "ask"}},
    ],
}


def test_a_suite_that_asks_is_seen_when_the_dag_is_parsed(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="'ask' of 'suite' leaves it to a person"):
        group(audits=[Expectations(SUITE, name="suite")])
    assert group(audits=[Expectations(SUITE, name="suite", severity="block")]).approve is None
    assert approve(audits=[Expectations(SUITE, name="suite")])
    (tmp_path / "suite.json").write_text(json.dumps(SUITE))
    made = group(audits=[Expectations(str(tmp_path / "suite.json"), name="suite")])
    with pytest.raises(ArgumentError, match="'ask' of 'suite' leaves it to a person"):
        made.audit.prepare_template()  # where files are read


def form() -> tuple[str, str]:
    with new_dag() as dag:
        IncrementalLoad(
            "fact",
            **arguments(approval="always", approvers=["ann"], approval_timeout=dt.timedelta(hours=1), audits=ASKS),
        )
    found = DagSerialization.to_dict(dag)
    DagSerialization.from_dict(json.loads(json.dumps(found)))
    return SerializedDagModel.hash(found), json.dumps(found)


def test_two_parses_are_one_dag() -> None:
    assert form() == form()
