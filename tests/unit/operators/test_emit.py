"""What a DAG file with tasks that emit is, before anything runs: errors, templates, and a form that is the same in every parse."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG, Asset, task
from airflow.serialization.serialized_objects import DagSerialization

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signal_values import as_date, as_integer, as_timestamp
from airflow_incremental.core.signals import SignalDependency, ge, in_
from airflow_incremental.operators.emit import EmitSignalOperator
from airflow_incremental.sensors.signal import SignalSensor

NOON = dt.datetime(2023, 9, 14, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))


def make(**changes: Any) -> EmitSignalOperator:
    return EmitSignalOperator(**{"task_id": "emit", "name": "signup_fact", **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, ["the name of a signal is ''"]),
        ({"name": 7}, ["the name of a signal is 7"]),
        ({"name": "airflow_incremental:bypass"}, ["one that does not start with"]),
        ({"parameters": ["hour"]}, ["params of signal 'signup_fact' are ['hour']"]),
        ({"parameters": {"hour": 1.5}}, ["parameter 'hour'", "a float", "put other things into the payload"]),
        ({"parameters": {"hour": None}}, ["parameter 'hour'", "NoneType"]),
        ({"parameters": {"hour": dt.datetime(2023, 9, 14)}}, ["a timestamp without zone"]),  # noqa: DTZ001 (that is the point)
        ({"parameters": {"hour": as_timestamp("noon")}}, ["'noon'", "not a timestamp"]),
        ({"parameters": {"hour": {"time": "12"}}}, ["one text under the name of its kind"]),
        ({"parameters": {f"p{n}": n for n in range(17)}}, ["has 17 parameters", "at most 16"]),
        ({"payload": {"when": NOON}}, ["the payload of signal 'signup_fact' is no JSON"]),
        ({"payload": "x" * 70_000}, ["70,002 bytes", "at most 65,536"]),
        ({"request_id": ""}, ["request_id of signal 'signup_fact' is ''"]),
        ({"request_id": 7}, ["request_id of signal 'signup_fact' is 7"]),
    ],
)
def test_a_wrong_argument_fails_the_import(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ArgumentError) as raised:
        make(**changes)
    assert [word for word in words if word not in str(raised.value)] == []


def test_times_become_plain_values_in_utc() -> None:
    made = make(parameters={"hour": NOON, "day": NOON.date(), "batch": 3, "region": "eu"})
    assert made.parameters == {
        "hour": {"timestamp": "2023-09-14T10:00:00+00:00"},
        "day": {"date": "2023-09-14"},
        "batch": 3,
        "region": "eu",
    }


def test_templates_and_results_of_tasks_are_left_to_the_task() -> None:
    @task
    def elsewhere() -> dict[str, int]:
        return {"hour": 6}

    with DAG("d", schedule=None):
        found: Any = elsewhere()
        made = make(
            name="{{ params.name }}",
            parameters={
                "hour": as_timestamp("{{ data_interval_end }}"),
                "day": as_date("{{ ds }}"),
                "batch": as_integer("{{ params.batch }}"),
                "region": "{% if true %}eu{% endif %}",
            },
            request_id="{{ run_id }}",
        )
        assert made.parameters["hour"] == {"timestamp": "{{ data_interval_end }}"}
        follows = make(task_id="follows", name="a", parameters=found, payload={"from": found})
    assert follows.upstream_task_ids == {"elsewhere"}


def test_what_is_literal_beside_a_template_is_checked() -> None:
    with pytest.raises(ArgumentError, match="a float"):
        make(parameters={"hour": as_timestamp("{{ ts }}"), "size": 1.5})


def test_it_is_tried_again_unless_the_author_says_otherwise() -> None:
    assert make().retries == 2
    with DAG("d", schedule=None, default_args={"retries": 5}):
        assert make().retries == 5


def whole_dag() -> DAG:
    """A DAG with every kind of argument."""
    with DAG("signals", schedule=None, start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)) as dag:
        gate = SignalSensor(
            task_id="gate",
            signals=[
                SignalDependency("a", {"hour": ge(NOON), "region": in_(["eu", "us"])}, ("day",)),  # type: ignore[dict-item]
                {"name": "b", "match": {"hour": as_timestamp("{{ ts }}")}, "join": ["day"]},
            ],
        )
        emit = make(
            parameters={"hour": NOON, "day": as_date("{{ ds }}")}, payload={"rows": [1, 2]}, outlets=[Asset("x")]
        )
        gate >> emit
        EmitSignalOperator.partial(task_id="each", name="c").expand(parameters=[{"hour": NOON}, {"hour": NOON}])
        SignalSensor.partial(task_id="gates").expand(name=["a", "b"])
    return dag


def stored() -> str:
    """Return the hash by which Airflow tells versions of a DAG apart."""
    return SerializedDagModel.hash(DagSerialization.to_dict(whole_dag()))


def test_two_parses_give_one_form() -> None:
    here = stored()
    assert stored() == here
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", f"from {__name__} import stored; print(stored())"],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split()[-1] == here


def test_the_stored_form_comes_back() -> None:
    dag = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(whole_dag()))))
    assert dag.get_task("emit").parameters == whole_dag().get_task("emit").parameters
    assert dag.get_task("gate").signals == [
        {
            "name": "a",
            "match": {"hour": {">=": {"timestamp": "2023-09-14T10:00:00+00:00"}}, "region": {"in": ["eu", "us"]}},
            "join": ["day"],
        },
        {"name": "b", "match": {"hour": {"timestamp": "{{ ts }}"}}, "join": ["day"]},
    ]
