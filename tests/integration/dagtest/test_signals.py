"""Tasks that emit signals and tasks that wait for them, run by Airflow."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.sdk import task
from airflow.utils.session import create_session
from sqlalchemy import update

from airflow_incremental.core.errors import StoreError, StoreMismatch
from airflow_incremental.core.signal_values import as_date, as_integer, as_timestamp
from airflow_incremental.core.signals import SignalDependency, ge
from airflow_incremental.operators.emit import EmitSignalOperator, emit_signal
from airflow_incremental.sensors.signal import SignalSensor
from airflow_incremental.store import emitting, searching, waits
from airflow_incremental.store.database import Store
from airflow_incremental.store.searching import list_signals
from airflow_incremental.store.waits import Wait, bypass, find_waits, signals_of_wait
from tests.integration.dagtest.loads import FailsOnce
from tests.integration.dagtest.runner import new_dag, run_again, run_dag
from tests.support.stores import say

#: For tests of gates that do not open.
SOON = {"poke_interval": 0.1, "timeout": 2}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store, behind the default connection."""
    file = tmp_path / "signals.db"
    monkeypatch.setenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    opened = Store.open(f"sqlite:///{file}")
    yield opened
    opened.close()


def waits_of(store: Store, dag_id: str) -> list[Wait]:
    """Return the waits of a DAG, oldest first."""
    with store.read() as conn:
        return find_waits(conn, dag_id=dag_id)[::-1]


def released_by(store: Store, wait: Wait) -> list[tuple[str, int]]:
    with store.read() as conn:
        return [(signal.name, signal.seq) for signal in signals_of_wait(conn, wait.id)]


@contextmanager
def once_it_waits(store: Store, dag_id: str, work: Callable[[Wait], object]) -> Iterator[None]:
    """Do work in a thread after a task of the DAG has opened its wait, and some time for it to be deferred."""

    def wait_and_work() -> None:
        until = time.monotonic() + 60
        while not (found := waits_of(store, dag_id)) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1)
        work(found[0])

    thread = threading.Thread(target=wait_and_work)
    thread.start()
    yield
    thread.join()


def test_a_gate_opens_on_history_and_says_which_signal_it_was(dag_id: str, store: Store) -> None:
    with new_dag(dag_id) as dag:
        emit = EmitSignalOperator(
            task_id="emit",
            name="signup_fact",
            parameters={"hour": as_integer("{{ params.hour }}"), "region": "eu"},
            payload={"run": "{{ run_id }}"},
        )
        gate = SignalSensor(task_id="gate", name="signup_fact", match={"hour": ge("{{ params.hour }}"), "region": "eu"})
        emit >> gate
    dag.params["hour"] = 6
    run = run_dag(dag)
    assert run.state == "success"
    emitted = run.xcom("emit")
    assert emitted["new"] is True
    assert (emitted["params"], emitted["payload"]) == ({"hour": 6, "region": "eu"}, {"run": run.run_id})
    assert (emitted["emitter"]["dag_id"], emitted["emitter"]["task_id"]) == (dag_id, "emit")
    assert run.xcom("gate") == [{key: value for key, value in emitted.items() if key != "new"}]
    (wait,) = waits_of(store, dag_id)
    assert (wait.state, wait.task.task_id, wait.task.run_id) == ("released", "gate", run.run_id)
    assert released_by(store, wait) == [("signup_fact", 1)]


def test_a_gate_waits_in_the_triggerer_for_signals_that_fit_each_other(dag_id: str, store: Store) -> None:
    with new_dag(dag_id) as dag:
        SignalSensor(
            task_id="gate",
            signals=[SignalDependency("a", join=("day",)), {"name": "b", "match": {"region": "eu"}, "join": ["date"]}],  # type: ignore[arg-type]
            poke_interval=0.1,
        )

    def emit(_: Wait) -> None:
        say(store, "a", day="mon")
        say(store, "b", date="tue", region="eu")
        say(store, "a", day="tue")

    with once_it_waits(store, dag_id, emit):
        run = run_dag(dag)
    assert run.state == "success"
    assert [(signal["name"], signal["seq"]) for signal in run.xcom("gate")] == [("a", 2), ("b", 1)]
    (wait,) = waits_of(store, dag_id)
    assert released_by(store, wait) == [("a", 2), ("b", 1)]


def test_a_signal_that_comes_right_after_the_look_is_not_missed(
    dag_id: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []

    def then_a_signal(*arguments: Any) -> Any:
        looks.append(find_gate(*arguments))
        if len(looks) == 1:
            say(store, "a", hour=6)
        return looks[-1]

    find_gate = searching.find_gate
    monkeypatch.setattr(searching, "find_gate", then_a_signal)
    with new_dag(dag_id) as dag:
        SignalSensor(task_id="gate", name="a", poke_interval=0.1, timeout=20)
    assert run_dag(dag).state == "success"
    assert looks[0] is None


def test_a_bypass_between_the_wait_and_the_look_is_not_missed(
    dag_id: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bypassed: list[Wait] = []

    def after_a_bypass(*arguments: Any) -> Any:
        if not bypassed:
            bypassed.append(bypass(store, waits_of(store, dag_id)[0].id, by="ann", reason="source is late"))
        return newest(*arguments)

    newest, timeout = searching.newest, 20
    monkeypatch.setattr(searching, "newest", after_a_bypass)
    with new_dag(dag_id) as dag:
        SignalSensor(task_id="gate", name="a", poke_interval=0.1, timeout=timeout)
    began = time.monotonic()
    assert run_dag(dag).state == "success"
    assert bypassed
    assert time.monotonic() - began < timeout / 2


@pytest.mark.parametrize("mode", ["deferred", "poke"])
@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
def test_a_gate_that_stays_shut_gives_up_for_good(
    dag_id: str, store: Store, mode: str, soft_fail: bool, state: str
) -> None:
    say(store, "a", region="us")
    with new_dag(dag_id) as dag:
        SignalSensor(
            task_id="gate",
            name="a",
            match={"region": "eu"},
            soft_fail=soft_fail,
            deferrable=mode == "deferred",
            retry_delay=0,
            **SOON,
        )
    run = run_dag(dag)
    assert run.tasks == {"gate": state}
    assert run.tries == {"gate": 1}
    assert [wait.state for wait in waits_of(store, dag_id)] == ["timed_out"]


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize(
    ("arguments", "state"), [({}, "failed"), ({"soft_fail": True}, "skipped"), ({"never_fail": True}, "skipped")]
)
def test_a_gate_that_can_never_open_is_not_waited_for(
    dag_id: str, store: Store, deferrable: bool, arguments: dict[str, Any], state: str
) -> None:
    say(store, "a", hour=6)
    with new_dag(dag_id) as dag:
        SignalSensor(task_id="gate", name="a", match={"hour": "six"}, deferrable=deferrable, **SOON, **arguments)
    run = run_dag(dag)
    assert (run.tasks, run.tries) == ({"gate": state}, {"gate": 1})
    assert [wait.state for wait in waits_of(store, dag_id)] == ["canceled"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_gate_that_never_fails_leaves_no_wait_behind_when_the_store_does(
    dag_id: str, store: Store, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    monkeypatch.setattr(searching, "find_gate", FailsOnce(searching.find_gate, StoreError("down")))
    with new_dag(dag_id) as dag:
        SignalSensor(task_id="gate", name="a", deferrable=deferrable, never_fail=True, **SOON)
    assert run_dag(dag).tasks == {"gate": "skipped"}
    assert [wait.state for wait in waits_of(store, dag_id)] == ["canceled"]


def test_a_triggerer_that_sees_another_store_cancels_the_wait(
    dag_id: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(_store: Store, _store_id: str) -> None:
        raise StoreMismatch("this process looks at store 1, but the other part of this work used store 2")

    monkeypatch.setattr(Store, "check", another)
    with new_dag(dag_id) as dag:
        SignalSensor(task_id="gate", name="a", **SOON)
    assert run_dag(dag).tasks == {"gate": "failed"}
    assert [wait.state for wait in waits_of(store, dag_id)] == ["canceled"]


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_gate_that_waits_in_a_worker_opens_and_keeps_its_lineage(dag_id: str, store: Store, mode: str) -> None:
    with new_dag(dag_id) as dag:
        SignalSensor(task_id="gate", name="a", deferrable=False, mode=mode, poke_interval=0.2, timeout=60)
    with once_it_waits(store, dag_id, lambda _: say(store, "a", hour=6)):
        run = run_dag(dag)
    assert run.state == "success"
    assert [signal["params"] for signal in run.xcom("gate")] == [{"hour": 6}]
    (wait,) = waits_of(store, dag_id)
    assert (wait.state, released_by(store, wait)) == ("released", [("a", 1)])


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_person_lets_a_step_go_on(dag_id: str, store: Store, deferrable: bool) -> None:
    with new_dag(dag_id) as dag:
        SignalSensor(task_id="gate", name="a", deferrable=deferrable, poke_interval=0.1, timeout=60)
    with once_it_waits(store, dag_id, lambda wait: bypass(store, wait.id, by="ann", reason="source is late")):
        run = run_dag(dag)
    assert run.state == "success"
    assert run.xcom("gate") == []
    assert run.xcom("gate", "bypassed") == {"by": "ann", "reason": "source is late"}
    (wait,) = waits_of(store, dag_id)
    assert (wait.state, released_by(store, wait)) == ("bypassed", [])


def test_tries_share_a_wait_and_its_outcome(dag_id: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "signals_of_wait", FailsOnce(waits.signals_of_wait))  # right after the release
    say(store, "a", hour=6)
    with new_dag(dag_id) as dag:
        SignalSensor(task_id="gate", name="a", retry_delay=0)
    run = run_dag(dag)
    assert (run.state, run.tries) == ("success", {"gate": 2})
    assert [signal["seq"] for signal in run.xcom("gate")] == [1]
    assert [wait.state for wait in waits_of(store, dag_id)] == ["released"]


def test_a_cleared_step_waits_anew_and_looks_into_history(dag_id: str, store: Store) -> None:
    say(store, "a", hour=6)
    with new_dag(dag_id) as dag:
        SignalSensor(task_id="gate", name="a")
    run = run_again(dag, run_dag(dag))
    assert run.state == "success"
    assert [(w.state, released_by(store, w)) for w in waits_of(store, dag_id)] == [("released", [("a", 1)])] * 2


def test_a_step_keeps_its_wait_when_another_task_of_the_run_is_cleared(dag_id: str, store: Store) -> None:
    def clear_another_and_bypass(wait: Wait) -> None:
        with create_session() as session:
            session.execute(update(DagRun).where(DagRun.dag_id == dag_id).values(clear_number=DagRun.clear_number + 1))
        bypass(store, wait.id, by="ann", reason="source is late")

    with new_dag(dag_id) as dag:
        SignalSensor(
            task_id="gate", name="a", deferrable=False, mode="reschedule", poke_interval=0.2, timeout=15, retries=0
        )
    with once_it_waits(store, dag_id, clear_another_and_bypass):
        run = run_dag(dag)
    assert run.state == "success"
    assert [wait.state for wait in waits_of(store, dag_id)] == ["bypassed"]


def test_a_store_that_is_down_is_tried_again(dag_id: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emitting, "emit", FailsOnce(emitting.emit, StoreError("down")))
    monkeypatch.setattr(waits, "open_wait", FailsOnce(waits.open_wait, StoreError("down")))
    with new_dag(dag_id) as dag:
        emit = EmitSignalOperator(task_id="emit", name="a", retry_delay=0)
        emit >> SignalSensor(task_id="gate", name="a", retry_delay=0)
    run = run_dag(dag)
    assert (run.state, run.tries) == ("success", {"emit": 2, "gate": 2})
    with store.read() as conn:
        assert len(list_signals(conn, None, limit=10)) == 1


def test_an_emit_whose_answer_was_lost_is_one_row_and_says_so(
    dag_id: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emitting, "emit", FailsOnce(emitting.emit, after=True))
    with new_dag(dag_id) as dag:
        EmitSignalOperator(task_id="emit", name="a", parameters={"hour": 6}, retry_delay=0)
    run = run_dag(dag)
    assert (run.state, run.tries) == ("success", {"emit": 2})
    assert (run.xcom("emit")["new"], run.xcom("emit")["seq"]) == (False, 1)
    with store.read() as conn:
        assert len(list_signals(conn, None, limit=10)) == 1


def test_a_parameter_of_another_kind_is_not_tried_again(dag_id: str, store: Store) -> None:
    say(store, "a", hour=6)
    with new_dag(dag_id) as dag:
        EmitSignalOperator(task_id="emit", name="a", parameters={"hour": "six"}, retry_delay=0)
        SignalSensor(task_id="gate", name="a", match={"hour": "six"}, retry_delay=0)
    run = run_dag(dag)
    assert (run.tasks, run.tries) == ({"emit": "failed", "gate": "failed"}, {"emit": 1, "gate": 1})


def test_tasks_emit_by_a_function(dag_id: str, store: Store) -> None:
    with new_dag(dag_id) as dag:

        @task
        def work(hour: int) -> Any:
            return emit_signal("a", {"hour": hour}, payload=["x"])

        SignalSensor.partial(task_id="gate").expand(match=[{"hour": 1}, {"hour": 2}], name=["a"]) << work.expand(
            hour=[1, 2]
        )
    run = run_dag(dag)
    assert run.state == "success"
    with store.read() as conn:
        found = list_signals(conn, SignalDependency("a"), limit=10)
    assert {(s.params["hour"], s.emitter.task_id, s.emitter.map_index, s.emitter.source) for s in found} == {
        (1, "work", 0, "task"),
        (2, "work", 1, "task"),
    }
    released = {released_by(store, wait)[0] for wait in waits_of(store, dag_id)}
    assert len(released) == len(waits_of(store, dag_id)) == 2


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("native", [True, False])
def test_values_are_marked_that_templates_and_other_tasks_say(dag_id: str, native: bool) -> None:
    with new_dag(dag_id, render_template_as_native_obj=native) as dag:

        @task
        def count() -> int:
            return 17

        @task
        def moment() -> dt.datetime:
            return dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)

        said = {
            "hour": as_integer("{{ params.hour }}"),
            "day": as_date("{{ dag_run.run_after.date() }}"),
            "until": as_timestamp("{{ dag_run.run_after }}"),
            "count": as_integer(count()),  # type: ignore[arg-type]
            "since": as_timestamp(moment()),  # type: ignore[arg-type]
        }
        emit = EmitSignalOperator(task_id="emit", name="a", parameters=said, retries=0)
        gate = SignalSensor(task_id="gate", name="a", match=said | {"hour": ge(said["hour"])}, retries=0, **SOON)
        emit >> gate
    assert emit.upstream_task_ids == {"count", "moment"}
    dag.params["hour"] = 6
    run = run_dag(dag)
    assert run.state == "success"
    params = run.xcom("gate")[0]["params"]
    assert (params["hour"], params["count"], params["since"]) == (6, 17, {"timestamp": "2026-01-01T00:00:00+00:00"})


def test_a_program_outside_airflow_emits_by_the_function(store: Store) -> None:
    assert emit_signal("a", {"hour": 6})["new"] is True
    again = emit_signal("a", {"hour": 6}, request_id=None)
    assert (again["new"], again["emitter"]["source"], again["emitter"]["dag_id"]) == (False, "function", "")
    with store.read() as conn:
        assert searching.newest(conn, ["a"]) == {"a": 1}
