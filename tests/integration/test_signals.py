"""Signals in a real Airflow: a gate that opens, a DAG that two signals start, a triggerer that is killed in between."""

from __future__ import annotations

import datetime as dt
import os
import signal
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg.state import published
from airflow_incremental.store.database import Store
from airflow_incremental.store.schema import match, subscription
from airflow_incremental.store.searching import since
from airflow_incremental.store.waits import bypass, find_waits, signals_of_wait
from demo.landing import Lakehouse
from demo.stack import AirflowStack
from tests.support.stores import say
from tests.support.world import EVENTS, create, hour, rows_table


@pytest.fixture(scope="session")
def signal_store(airflow_signals: str) -> Store:
    """The store behind the stack's connection ``incremental_default``."""
    return Store.open(airflow_signals)


def start_gate(stack: AirflowStack, store: Store, hour: int) -> tuple[str, str]:
    """Start a run, wait until its gate waits in the triggerer, and return the run and the wait."""
    stack.client.unpause("signals_gate")
    run_id = stack.client.trigger("signals_gate", {"hour": hour})
    stack.client.wait_for_task("signals_gate", run_id, "gate", states={"deferred"}, timeout=120)
    with store.read() as conn:
        (wait,) = find_waits(conn, dag_id="signals_gate", run_id=run_id)
    assert wait.state == "open"
    return run_id, wait.id


def test_a_gate_opens_soon_after_the_signal(airflow_stack: AirflowStack, signal_store: Store) -> None:
    say(signal_store, "it.facts", hour=6, region="us")
    run_id, wait_id = start_gate(airflow_stack, signal_store, 6)
    say(signal_store, "it.facts", hour=5, region="eu")
    emitted = say(signal_store, "it.facts", hour=7, region="eu").signal

    assert airflow_stack.client.wait_for_run("signals_gate", run_id) == "success"

    (found,) = airflow_stack.client.xcom("signals_gate", run_id, "gate")
    assert (found["name"], found["seq"]) == ("it.facts", emitted.seq)
    with signal_store.read() as conn:
        (wait,) = find_waits(conn, identity=wait_id)
        assert signals_of_wait(conn, wait_id) == [emitted]
    assert wait.state == "released"
    assert wait.closed_at is not None
    assert wait.closed_at - emitted.created_at < dt.timedelta(seconds=2 * 5)
    # Another run finds it in history, without waiting.
    again = airflow_stack.client.trigger("signals_gate", {"hour": 7})
    assert airflow_stack.client.wait_for_run("signals_gate", again) == "success"
    assert airflow_stack.client.xcom("signals_gate", again, "gate")[0]["seq"] == emitted.seq


def test_a_person_lets_a_step_go(airflow_stack: AirflowStack, signal_store: Store) -> None:
    run_id, wait_id = start_gate(airflow_stack, signal_store, 1000)

    bypass(signal_store, wait_id, by="anna", reason="known to be late")

    assert airflow_stack.client.wait_for_run("signals_gate", run_id) == "success"
    assert airflow_stack.client.xcom("signals_gate", run_id, "gate") == []


def test_two_signals_start_a_dag_once_although_the_triggerer_is_killed(
    airflow_stack: AirflowStack, signal_store: Store
) -> None:
    client = airflow_stack.client
    client.unpause("signals_started")

    def subscribed() -> bool:
        with signal_store.read() as conn:
            return (
                conn.execute(sa.select(subscription.c.id).where(subscription.c.name == "it_both")).first() is not None
            )

    client.wait_until(subscribed, timeout=120, what="the triggerer to subscribe")
    say(signal_store, "it.orders", day=1, region="eu")
    say(signal_store, "it.orders", day=9, region="us")
    airflow_stack.kill("triggerer")
    for day in (2, 1):
        say(signal_store, "it.payments", date=day)
    airflow_stack.restart("triggerer")
    say(signal_store, "it.orders", day=2, region="eu")

    def claimed() -> list[Any] | None:
        with signal_store.read() as conn:
            rows = conn.execute(sa.select(match).where(match.c.claimed_at.is_not(None)).order_by(match.c.number)).all()
        return list(rows) if len(rows) == 2 else None

    found = client.wait_until(claimed, timeout=180, every=0.5, what="both matches to be claimed")

    for run_id in {row.run_id for row in found}:
        assert client.wait_for_run("signals_started", run_id) == "success"
    runs = client.call("GET", "/dags/signals_started/dagRuns")["dag_runs"]
    counted: Counter[int] = Counter()
    for run in runs:
        client.wait_for_run("signals_started", run["dag_run_id"])
        if client.task("signals_started", run["dag_run_id"], "claim").state == "success":
            for one in client.xcom("signals_started", run["dag_run_id"], "claim"):
                counted[next(s["params"]["day"] for s in one["signals"] if s["name"] == "it.orders")] += 1
    assert counted == {1: 1, 2: 1}


def test_a_publish_that_was_killed_before_it_was_announced_is_announced_by_the_next_plan(
    airflow_stack: AirflowStack, airflow_lakehouse: Lakehouse, signal_store: Store
) -> None:
    client, catalog, dag_id, target = airflow_stack.client, airflow_lakehouse.catalog(), "signals_load", "mart.said"
    for namespace in ("raw", "mart"):
        catalog.create_namespace_if_not_exists(namespace)
    for table in ("raw.said", target):
        create(catalog, table, EVENTS, (("day", "ts"),))
    catalog.load_table("raw.said").append(rows_table([(1, hour(1), "eu", 1)]))
    client.unpause(dag_id)

    def is_published() -> Published | None:
        return published(catalog.load_table(target), target)

    # Nobody can emit, so the task hangs between its publish and its signal: there it is killed.
    with signal_store.write() as conn:
        conn.execute(sa.text("LOCK TABLE incremental_signal IN EXCLUSIVE MODE"))
        run_id = client.trigger(dag_id)
        said = client.wait_until(is_published, timeout=120, what="the load to publish")
        os.kill(airflow_stack.task_pid(dag_id, run_id, "load"), signal.SIGKILL)
        assert client.wait_for_run(dag_id, run_id) == "failed"
    with signal_store.read() as conn:
        assert since(conn, {target: 0}, limit=10) == []

    for _ in range(2):
        assert client.wait_for_run(dag_id, client.trigger(dag_id)) == "success"

    with signal_store.read() as conn:
        (announced,) = since(conn, {target: 0}, limit=10)
    assert said is not None
    assert (announced.params["process"], announced.params["snapshot_id"]) == (target, said.snapshot_id)
    assert catalog.load_table(target).scan().to_arrow().num_rows == 1
