"""The sensor that waits until a table is complete through an event time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferralTimeout

from airflow_incremental.compat import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow_incremental.core.completeness import CompleteThrough
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.iceberg import naming
from airflow_incremental.sensors import watermark
from airflow_incremental.sensors.watermark import WatermarkSensor
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from tests.support.tables import roll_back
from tests.support.world import SOURCE, TARGET, World, hour

TWO = "2024-01-01T02:00:00Z"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world without rows, whose catalog stands behind every connection."""
    found = World(home=tmp_path).set_up()
    monkeypatch.setattr(watermark, "catalog_of", lambda _conn_id: found.catalog)
    return found


def sensor(**arguments: Any) -> WatermarkSensor:
    return WatermarkSensor(**{"task_id": "wait", "table": TARGET, "complete_through": TWO, **arguments})


def look(**arguments: Any) -> dict[str, Any] | None:
    """Look once, as the sensor does before it waits; None is a table that is not complete."""
    try:
        found: dict[str, Any] = sensor(**arguments).execute({})
    except TaskDeferred:
        return None
    return found


def test_it_opens_exactly_when_the_table_is_complete(world: World) -> None:
    assert look() is None, "nobody has published yet"
    world.land(0, 1.99)
    steps.run(world.process())
    assert look() is None, "hour 1 may still get rows"
    world.land(2)
    assert look() is None, "what is not published is not there"
    steps.run(world.process())
    head = world.target.current_snapshot()
    assert head is not None
    expected = {"table": TARGET, "process": "proc", "complete_through": TWO, "snapshot_id": head.snapshot_id}
    assert look() == expected
    assert look(complete_through=hour(2)) == expected, "the end is not part of what has to be complete"
    assert look(complete_through=hour(2) + dt.timedelta(microseconds=1)) is None
    assert look(complete_through=hour(2).astimezone(dt.timezone(dt.timedelta(hours=-7)))) == expected
    assert look(complete_through="2024-01-01 04:00:00+02:00") == expected, "as Jinja writes times"


def test_of_several_processes_each_has_to_be_complete_unless_one_is_named(world: World) -> None:
    world.land(2)
    steps.run(world.process())
    other = World(home=world.home, name="other", policies={"initial": {"adopt": "all"}})
    world.land(3)
    steps.run(other.process())
    assert look(complete_through=hour(3)) is None
    assert (look() or {})["process"] == "proc", "the one that is least far decides"
    assert (look(process="other", complete_through=hour(3)) or {})["complete_through"] == "2024-01-01T03:00:00Z"
    assert look(process="proc", complete_through=hour(3)) is None


def test_a_process_that_publishes_nothing_yet_is_waited_for(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.land(2)
    steps.run(world.process())
    with caplog.at_level("INFO"):
        assert look(process="to_come") is None
    assert "process 'to_come' says nothing yet" in caplog.text


def test_the_first_session_of_a_table_is_waited_for(world: World) -> None:
    world.land(2)
    session: Any = plan(world.process())
    assert world.target.current_snapshot() is not None, "the lock needs a snapshot to stand on"
    assert look() is None
    steps.publish(session, steps.audit(session, steps.load(session)))
    assert look() is not None


def test_a_table_that_is_not_there_is_waited_for(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert look(table="mart.to_come") is None
        assert look(table="nowhere.to_come") is None
    assert caplog.text.count("the table does not exist yet") == 2
    assert world.catalog.table_exists(TARGET)


def test_the_table_of_a_process_is_the_one_it_is_named_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(home=tmp_path, name=TARGET).set_up()
    monkeypatch.setattr(watermark, "catalog_of", lambda _conn_id: world.catalog)
    world.land(2)
    steps.run(world.process())
    assert (look(table=None, process=TARGET) or {})["table"] == TARGET


def test_a_table_without_processes_needs_a_rule(world: World) -> None:
    world.land(5)
    with pytest.raises(AirflowFailException, match=r"no process publishes to the table raw\.events.*give rule="):
        look(table=SOURCE)
    by_property = {"table": SOURCE, "rule": CompleteThrough.property("landing.complete-through")}
    assert look(**by_property) is None, "it does not say yet"
    with world.source.transaction() as change:
        change.set_properties(**{"landing.complete-through": TWO})
    found = look(**by_property)
    assert found is not None
    assert (found["process"], found["complete_through"]) == (None, TWO)
    with world.source.transaction() as change:
        change.set_properties(**{"landing.complete-through": "soon"})
    with pytest.raises(AirflowFailException, match=r"the property 'landing\.complete-through' .* is 'soon'"):
        look(**by_property)
    arrival = {"rule": "arrival", "lateness": 3600.0}
    now = dt.datetime.now(dt.timezone.utc)
    assert look(table=SOURCE, rule=arrival, complete_through=now - dt.timedelta(hours=2)) is not None
    assert look(table=SOURCE, rule=arrival, complete_through=now) is None


def test_a_pin_of_a_load_that_reads_a_table_makes_it_no_table_that_is_loaded(world: World) -> None:
    world.land(5)
    head = world.source.current_snapshot()
    assert head is not None
    world.source.manage_snapshots().create_tag(head.snapshot_id, naming.pin_tag("proc", "events")).commit()
    with pytest.raises(AirflowFailException, match="no process publishes"):
        look(table=SOURCE)


def test_a_lost_watermark_fails_for_good(world: World) -> None:
    world.land(1)
    steps.run(world.process())
    first = world.target.history()[0].snapshot_id
    world.land(2)
    steps.run(world.process())
    table = world.target
    for tag in [name for name in table.metadata.refs if name != "main"]:
        table.manage_snapshots().remove_tag(tag).commit()
    roll_back(table, first)
    with pytest.raises(AirflowFailException, match=r"the watermark of process 'proc' on mart\..* names snapshot"):
        look()


def test_soft_fail_skips_where_waiting_is_no_help(world: World) -> None:
    world.land(5)
    with pytest.raises(AirflowSkipException):
        look(table=SOURCE, soft_fail=True)


def test_it_waits_in_the_triggerer_with_what_was_rendered(world: World) -> None:
    assert world.target.current_snapshot() is None
    waits = sensor(process="proc", complete_through=hour(2), poke_interval=7, timeout=60)
    with pytest.raises(TaskDeferred) as deferred:
        waits.execute({})
    trigger = deferred.value.trigger
    assert trigger.serialize() == (
        "airflow_incremental.triggers.watermark.WatermarkTrigger",
        {
            "iceberg_conn_id": "iceberg_default",
            "table": TARGET,
            "process": "proc",
            "rule": None,
            "complete_through": TWO,
            "poll_interval": 7,
        },
    )
    assert deferred.value.timeout == dt.timedelta(seconds=60)
    assert waits.execute_complete({}, {"result": {"table": TARGET}}) == {"table": TARGET}
    with pytest.raises(AirflowFailException, match="lost"):
        waits.execute_complete({}, {"error": "lost"})


def test_a_timeout_in_the_triggerer_is_a_soft_fail_too(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = sensor(soft_fail=True)

    def time_out(_context: Any, event: Any) -> None:
        raise TaskDeferralTimeout(str(event))

    monkeypatch.setattr(waits, "execute_complete", time_out)
    with pytest.raises(AirflowSkipException):
        waits.resume_execution("execute_complete", {"event": {}}, {})  # type: ignore[typeddict-item]


@pytest.mark.parametrize("soft_fail", [True, False])
def test_it_can_wait_in_a_worker(world: World, soft_fail: bool) -> None:
    from airflow.sdk.exceptions import AirflowSensorTimeout

    arguments = {"deferrable": False, "poke_interval": 0.01, "timeout": 0.05, "soft_fail": soft_fail}
    with pytest.raises(AirflowSkipException if soft_fail else AirflowSensorTimeout):
        look(**arguments)
    world.land(2)
    steps.run(world.process())
    assert (look(**arguments) or {})["complete_through"] == TWO


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": None}, "neither table nor process"),
        ({"table": "events"}, "names no namespace"),
        ({"process": "my load"}, "the process name is 'my load'"),
        ({"complete_through": "2024-01-01T00:00:00"}, "complete_through is '2024-01-01T00:00:00', which has no zone"),
        ({"complete_through": dt.datetime(2024, 1, 1)}, "complete_through is the naive datetime"),  # noqa: DTZ001
        ({"complete_through": "yesterday"}, "complete_through is 'yesterday'"),
        ({"complete_through": dt.date(2024, 1, 1)}, r"complete_through is datetime\.date\(2024, 1, 1\)"),
        ({"rule": "latest_event"}, "would read the rows of the table at every look"),
        ({"rule": "arrival", "process": "p"}, "has process='p' and the rule 'arrival'"),
        ({"rule": "sometimes"}, "complete_through has the rule 'sometimes'"),
        ({"mode": "reschedule"}, "has mode='reschedule' and is deferrable"),
    ],
)
def test_what_is_wrong_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        sensor(**arguments)


@pytest.mark.parametrize(("name", "value"), [("complete_through", "2024-01-01"), ("table", "events"), ("process", "")])
def test_what_is_rendered_is_checked_in_the_task(world: World, name: str, value: str) -> None:
    assert world.catalog.table_exists(TARGET)
    waits = sensor(**{name: "{{ params.x }}"})
    setattr(waits, name, value)
    with pytest.raises(AirflowFailException, match="Expected"):
        waits.execute({})
