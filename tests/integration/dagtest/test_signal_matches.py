"""The first task of a DAG that signals start: it takes what no task has taken, whatever became of the events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import task

from airflow_incremental.core.errors import ArgumentError, StoreError
from airflow_incremental.core.signals import SignalDependency
from airflow_incremental.operators.matches import ClaimMatchesOperator, claim_matches
from airflow_incremental.store import matches
from airflow_incremental.store.database import Store
from airflow_incremental.store.subscriptions import advance, subscribe
from tests.integration.dagtest.loads import FailsOnce
from tests.integration.dagtest.runner import Run, new_dag, run_again, run_dag
from tests.support.stores import say


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with the subscription ``s`` to the signal ``a``, behind the default connection."""
    file = tmp_path / "signals.db"
    monkeypatch.setenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    opened = Store.open(f"sqlite:///{file}")
    opened.writing(lambda conn: subscribe(conn, "s", [SignalDependency("a")]))
    yield opened
    opened.close()


def happen(store: Store, *hours: int) -> None:
    """Let signals come, and matches be found."""
    for hour in hours:
        say(store, "a", hour=hour)
    store.writing(lambda conn: advance(conn, "s"))


def claiming(dag_id: str, **arguments: Any) -> Any:
    with new_dag(dag_id) as dag:

        @task
        def work(matches: list[dict[str, Any]]) -> list[int]:
            return [match["signals"][0]["params"]["hour"] for match in matches]

        work(ClaimMatchesOperator(**{"task_id": "claim", "subscription": "s", "retry_delay": 0, **arguments}).output)
    return dag


def worked_on(run: Run) -> Any:
    return run.xcom("work")


def test_a_run_takes_all_matches_and_the_next_one_is_skipped(dag_id: str, store: Store) -> None:
    happen(store, 1, 2)
    dag = claiming(dag_id)
    run = run_dag(dag)
    assert (run.state, worked_on(run)) == ("success", [1, 2])
    assert [match["number"] for match in run.xcom("claim")] == [1, 2]
    assert run_dag(dag).tasks == {"claim": "skipped", "work": "skipped"}
    happen(store, 3)
    assert worked_on(run_dag(dag)) == [3]


def test_none_may_be_a_success(dag_id: str, store: Store) -> None:  # noqa: ARG001 (the subscription has to be there)
    run = run_dag(claiming(dag_id, on_none="succeed"))
    assert (run.state, worked_on(run)) == ("success", [])


def test_a_run_takes_no_more_than_it_may(dag_id: str, store: Store) -> None:
    happen(store, 1, 2, 3)
    dag = claiming(dag_id, limit=2)
    assert [worked_on(run_dag(dag)), worked_on(run_dag(dag))] == [[1, 2], [3]]


def test_a_try_finds_what_an_earlier_one_took(dag_id: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    happen(store, 1)
    writing = FailsOnce(Store.writing, StoreError("the answer was lost"), after=True)

    def commits_and_dies(self: Store, work: Any) -> Any:
        return writing(self, work)

    monkeypatch.setattr(Store, "writing", commits_and_dies)
    run = run_dag(claiming(dag_id))
    assert (run.state, run.tries["claim"], worked_on(run)) == ("success", 2, [1])


def test_a_cleared_run_works_on_the_same_again(dag_id: str, store: Store) -> None:
    happen(store, 1)
    dag = claiming(dag_id)
    run = run_dag(dag)
    happen(store, 2)
    again = run_again(dag, run)
    # What nobody has taken meanwhile comes with it.
    assert (again.run_id, worked_on(again)) == (run.run_id, [1, 2])


def test_a_subscription_that_is_not_there_is_not_tried_again(dag_id: str, store: Store) -> None:  # noqa: ARG001 (as above)
    run = run_dag(claiming(dag_id, subscription="t"))
    assert (run.tasks["claim"], run.tries["claim"]) == ("failed", 1)


def test_tasks_claim_by_a_function(dag_id: str, store: Store) -> None:
    happen(store, 1)
    with new_dag(dag_id) as dag:

        @task
        def work() -> Any:
            return [match["id"] for match in claim_matches("s")]

        work()
    (claimed,) = run_dag(dag).xcom("work")
    with store.read() as conn:
        (found,) = matches.unannounced(conn, "s", 10)
    assert found.claimed_by is not None
    assert (found.id, found.claimed_by.dag_id, found.claimed_by.task_id) == (claimed, dag_id, "work")


def test_nobody_claims_outside_a_task(store: Store) -> None:  # noqa: ARG001 (as above)
    with pytest.raises(ArgumentError, match="claimed outside a task"):
        claim_matches("s")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"subscription": ""}, "the name of a subscription is ''"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": True}, "limit is True"),
        ({"on_none": "fail"}, "on_none is 'fail'"),
    ],
)
def test_a_wrong_argument_fails_the_import(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        claiming("d", **changed)
