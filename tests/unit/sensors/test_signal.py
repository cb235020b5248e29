"""What a sensor refuses when the DAG file is imported, and what it leaves to the task."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_incremental.compat import AirflowSensorTimeout, AirflowSkipException, TaskDeferred
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signal_values import as_timestamp
from airflow_incremental.core.signals import SignalDependency, ge, lt
from airflow_incremental.sensors.signal import SignalSensor
from airflow_incremental.store.database import Store
from airflow_incremental.store.waits import find_waits
from tests.support.stores import say


def make(**arguments: Any) -> SignalSensor:
    return SignalSensor(task_id="gate", **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ["given no signal", "name and match for one signal, or signals for several"]),
        ({"name": "a", "signals": [{"name": "b"}]}, ["given name and signals"]),
        ({"match": {"x": 1}, "signals": [{"name": "b"}]}, ["given match and signals"]),
        ({"match": {"x": 1}}, ["given match"]),
        ({"name": ""}, ["the name of a signal is ''"]),
        ({"name": "a", "match": {"hour": {"~": 6}}}, ["operator '~'", "= > >= < <= in"]),
        ({"name": "a", "match": {"hour": {">": 6, "<": 9}}}, ["the conditions >, <", "one condition per parameter"]),
        ({"name": "a", "match": {"hour": ge(6), "day": lt(3)}}, ["ranges of 'hour', 'day'", "one range"]),
        ({"name": "a", "match": {"hour": {"in": []}}}, ["a list of 1 to 100 values"]),
        ({"name": "a", "match": {"hour": {"in": [6, "x"]}}}, ["of several kinds"]),
        ({"name": "a", "match": {"hour": ge(dt.datetime(2023, 9, 14))}}, ["without zone"]),  # noqa: DTZ001 (that is the point)
        ({"name": "a", "match": {"hour": None}}, ["NoneType"]),
        ({"name": "a", "match": "hour = 6"}, ["match of signal 'a' is 'hour = 6'"]),
        ({"signals": []}, ["0 signals", "a list of 1 to 4"]),
        ({"signals": [{"name": n} for n in "abcde"]}, ["5 signals", "a list of 1 to 4"]),
        ({"signals": "a"}, ["signals is 'a'", "a list of signals"]),
        ({"signals": {"name": "a"}}, ["a list of signals"]),
        ({"signals": ["a"]}, ["a signal that is waited for is 'a'"]),
        ({"signals": [{"name": "a", "after": 3}]}, ["waited for with ['after']"]),
        ({"signals": [{"name": "a", "join": ["day"]}, {"name": "b"}]}, ["'a': day; 'b': nothing"]),
    ],
)
def test_a_wrong_argument_fails_the_import(arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ArgumentError) as raised:
        make(**arguments)
    assert [word for word in words if word not in str(raised.value)] == []


def test_one_signal_is_short_for_a_list_of_one() -> None:
    match = {"hour": ge(as_timestamp("{{ ts }}")), "region": "{{ params.region }}"}
    one, listed = make(name="a", match=match), make(signals=[SignalDependency("a", match)])  # type: ignore[arg-type]
    assert one.signals == [{"name": "a", "match": match}]
    assert listed.signals == [{"name": "a", "match": match, "join": []}]


def test_what_other_tasks_say_is_left_to_the_task() -> None:
    @task
    def elsewhere() -> int:
        return 6

    with DAG("d", schedule=None):
        gate = make(name="a", match={"hour": ge(elsewhere())})
    assert gate.upstream_task_ids == {"elsewhere"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store, behind the default connection."""
    file = tmp_path / "signals.db"
    monkeypatch.setenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    opened = Store.open(f"sqlite:///{file}")
    yield opened
    opened.close()


def context() -> Any:
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="gate", map_index=-1, try_number=1, max_tries=2)
    return {"ti": ti, "dag_run": SimpleNamespace(clear_number=0)}


def deferred(gate: SignalSensor) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as raised:
        gate.execute(context())
    return raised.value


@pytest.mark.usefixtures("store")
def test_airflow_ends_a_wait_that_no_triggerer_does() -> None:
    gate = make(name="a", timeout=3600)
    first = deferred(gate)
    assert dt.timedelta(hours=1) < (first.timeout or dt.timedelta(0)) < dt.timedelta(hours=1, minutes=2)
    with pytest.raises(TaskDeferred) as again:  # what woke it is gone
        gate.resume(context(), {"until": (dt.datetime.now(dt.timezone.utc) - dt.timedelta(hours=1)).isoformat()})
    assert dt.timedelta(0) < (again.value.timeout or dt.timedelta(0)) < dt.timedelta(minutes=2)


#: What Airflow resumes a task with whose deferral lasted too long.
TOO_LONG = ("__fail__", {"error": "Trigger timeout"})


@pytest.mark.parametrize(
    ("arguments", "ends"), [({}, AirflowSensorTimeout), ({"soft_fail": True}, AirflowSkipException)]
)
def test_a_wait_that_airflow_has_ended_is_over(store: Store, arguments: dict[str, Any], ends: type[Exception]) -> None:
    gate = make(name="a", **arguments)
    deferred(gate)
    with pytest.raises(ends):
        gate.resume_execution(*TOO_LONG, context())
    with store.read() as conn:
        assert [wait.state for wait in find_waits(conn)] == ["timed_out"]


@pytest.mark.parametrize("arguments", [{}, {"soft_fail": True}])
def test_a_wait_that_airflow_has_ended_gets_a_last_look(store: Store, arguments: dict[str, Any]) -> None:
    gate = make(name="a", **arguments)
    deferred(gate)
    say(store, "a")
    (released,) = gate.resume_execution(*TOO_LONG, context())
    assert (released["name"], released["seq"]) == ("a", 1)


def test_a_trigger_that_failed_is_no_timeout() -> None:
    with pytest.raises(Exception, match="Trigger failure"):
        make(name="a").resume_execution("__fail__", {"error": "Trigger failure"}, context())


def test_it_waits_in_the_triggerer_every_five_seconds_and_in_a_worker_every_minute() -> None:
    assert (make(name="a").deferrable, make(name="a").poke_interval) == (True, 5)
    assert make(name="a", deferrable=False, mode="reschedule").poke_interval == 60
    assert make(name="a", poke_interval=dt.timedelta(seconds=2)).poke_interval == 2
