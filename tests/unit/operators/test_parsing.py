"""What a DAG file with loads is, before anything runs: errors, defaults, assets, and a form that is the same in every parse."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG, task
from airflow.serialization.serialized_objects import DagSerialization

from airflow_incremental import (
    AcceptedValues,
    Audit,
    Between,
    IcebergSource,
    IcebergTarget,
    IncrementalLoad,
    IncrementalLoadOperator,
    NotNull,
    PythonCheck,
    SqlCheck,
    Trend,
    iceberg_asset,
)
from airflow_incremental.core.errors import ArgumentError, ScopeOverlap
from airflow_incremental.operators.arguments import SPEC_FIELDS, build_spec

SOURCES = {"events": IcebergSource("raw.events", event_time="ts")}
TARGET = IcebergTarget("mart.result", event_time="ts")


def new_dag(name: str = "loads", **arguments: Any) -> DAG:
    return DAG(name, schedule="@hourly", start_date=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc), **arguments)


def arguments(**changes: Any) -> dict[str, Any]:
    return {"sources": SOURCES, "target": TARGET, "mode": "append", "transform": "SELECT * FROM events", **changes}


def make(**changes: Any) -> IncrementalLoadOperator:
    with new_dag():
        return IncrementalLoadOperator(task_id="load", **arguments(**changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "upsert"}, ["mode is 'upsert'", "'append', 'overwrite'"]),
        ({"on_rewrite": "maybe"}, ["on_rewrite is 'maybe'"]),
        ({"on_null_event_time": "drop"}, ["on_null_event_time is 'drop'"]),
        ({"on_lost_watermark": "guess"}, ["on_lost_watermark is 'guess'"]),
        ({"on_missing_bounds": "guess"}, ["on_missing_bounds is 'guess'"]),
        ({"mode": "stateful", "catch_up": "some"}, ["catch_up is 'some'", "'whole_range', 'missed'"]),
        ({"budget": 3}, ["mode='append' and budget='3'"]),
        ({"mode": "overwrite", "budget": 0}, ["budget is 0"]),
        ({"mode": "overwrite", "max_lookback": "a day"}, ["max_lookback is 'a day'"]),
        ({"mode": "overwrite", "on_skipped": "ignore"}, ["on_skipped is 'ignore'", "'fail', 'keep'"]),
        ({"mode": "stateful", "state": "latest"}, ["state is 'latest'", "'previous_step'"]),
        ({"mode": "stateful", "step": "week"}, ["step is 'week'", "'hour', 'day'"]),
        ({"when_busy": "shout"}, ["when_busy is 'shout'", "'wait', 'skip', 'fail'"]),
        ({"on_no_change": "fail"}, ["on_no_change is 'fail'"]),
        ({"poll_interval": "1m"}, ["poll_interval is '1m'"]),
        ({"samples": -1}, ["samples is -1"]),
        ({"quarantine_table": "aside"}, ["quarantine_table is 'aside'", "names no namespace"]),
        ({"quarantine_table": "mart.result"}, ["a table it reads or writes", "'mart.result__quarantine'"]),
        ({"quarantine_table": "mart.sql"}, ["a table is named 'mart.sql'"]),
        (
            {"mode": "stateful", "state": "previous_step", "audits": [NotNull("id", severity="quarantine", name="n")]},
            ["has state='previous_step'", "audit 'n' has severity='quarantine'"],
        ),
        ({"samples": 1000}, ["samples is 1000", "from 0 to 100"]),
        ({"memory_limit": "lots"}, ["memory_limit is 'lots'", "'2GB'"]),
        ({"memory_limit": 5}, ["memory_limit is 5"]),
        ({"threads": 0}, ["threads is 0"]),
        ({"iceberg_conn_id": ""}, ["iceberg_conn_id is ''", "the type 'iceberg'"]),
        ({"process": "no good"}, ["the process name is 'no good'", "letters, digits"]),
        ({"process": "wm_x"}, ["'wm_x'"]),
        ({"process": 7}, ["the process name is 7"]),
        ({"initial": dt.datetime(2024, 1, 1)}, ["naive datetime", "add a time zone"]),  # noqa: DTZ001
        ({"initial": "2024-01-01"}, ["initial is '2024-01-01', which has no zone", "2024-01-01T00:00:00Z"]),
        ({"initial": "soon"}, ["initial is 'soon'"]),
        ({"sources": {}}, ["no sources"]),
        ({"sources": SOURCES["events"]}, ["sources is IcebergSource", "a mapping from the name"]),
        ({"sources": {"events": "raw.events"}}, ["source 'events' is 'raw.events'", "an IcebergSource"]),
        ({"sources": {"events": {"tabel": "raw.events"}}}, ["source 'events'", "tabel"]),
        ({"sources": {"my events": SOURCES["events"]}}, ["'my events'", "without quotes"]),
        ({"target": "mart.result"}, ["target is 'mart.result'", "an IcebergTarget"]),
        ({"target": {}}, ["target is {}", "table"]),
        ({"target": IcebergTarget("raw.events")}, ["reads and writes 'raw.events'"]),
        ({"target": IcebergTarget("mart.sql")}, ["'mart.sql'", "the name of a file"]),
        ({"mode": "overwrite", "target": IcebergTarget("mart.result")}, ["no event_time", "mode='overwrite'"]),
        ({"mode": "merge"}, ["mode='merge' and no keys", "keys=['customer_id']"]),
        ({"keys": ["id"]}, ["mode='append' and keys"]),
        ({"mode": "merge", "keys": ["id"], "key_horizon": "soon"}, ["key_horizon is 'soon'"]),
        ({"transform": None}, ["transform is None", "IncrementalLoad(..., transform=None)"]),
        ({"transform": ""}, ["transform is ''"]),
        ({"transform": 3}, ["transform is 3"]),
        ({"transform": lambda relations: relations}, ["takes (relations)", "f(relations, plan)"]),
        ({"audits": NotNull("id")}, ["a list of audits"]),
        ({"audits": [NotNull("id"), NotNull("id")]}, ["several audits are called 'not_null(id)'"]),
        ({"audits": [{"type": "not_nul", "columns": ["id"]}]}, ["'not_nul'"]),
        ({"audits": [Trend("row_count", max_change=1)]}, ["'row_count', which no other audit"]),
        ({"audit_table": "audits"}, ["names no namespace"]),
        ({"audit_table": True}, ["audit_table is True", "or False"]),
        ({"audit_table": "mart.result"}, ["which the load reads or writes"]),
        ({"audit_table": "mart.audits.sql"}, ["a table is named 'mart.audits.sql'"]),
    ],
)
def test_a_mistake_fails_the_import_of_the_dag_file(changes: Mapping[str, Any], words: list[str]) -> None:
    with pytest.raises(ArgumentError) as caught:
        make(**changes)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "{{ params.mode }}"},
        {"mode": "{{ params.mode }}", "state": "latest_by(region)", "step": "hour"},
        {"mode": "stateful", "state": "{{ params.state }}", "step": "{{ params.step }}"},
        {"mode": "stateful", "catch_up": "{{ params.catch_up }}"},
        {"mode": "overwrite", "max_lookback": "{{ params.seconds }}", "budget": "{{ params.most }}"},
        {"mode": "overwrite", "on_skipped": "{{ params.skipped }}"},
        {"on_lost_watermark": "{{ params.policy }}"},
        {"mode": "merge", "keys": "{{ params.keys }}", "key_horizon": "{{ params.horizon }}"},
        {"process": "load_{{ params.region }}"},
        {"initial": "{{ params.start }}"},
        {"sources": {"events": {"table": "{{ params.source }}"}}},
        {"target": {"table": "{{ params.target }}"}},
        {"audits": [SqlCheck("rule", "SELECT * FROM rows WHERE v > {{ params.most }}")]},
        {"audit_table": "{{ params.namespace }}.audits"},
        {"transform": "{% if params.all %}SELECT 1{% endif %}"},
    ],
)
def test_a_template_waits_until_it_is_rendered(changes: Mapping[str, Any]) -> None:
    assert make(**changes).task_id == "load"


def test_keys_and_their_horizon_are_plain_values() -> None:
    load = make(mode="merge", keys=("id", "region"), key_horizon=dt.timedelta(hours=1))
    assert (load.keys, load.key_horizon) == (["id", "region"], 3600.0)
    assert load.declared is not None
    assert load.declared.key_horizon == dt.timedelta(hours=1)


def test_what_a_template_is_rendered_to_is_read() -> None:
    """All of it is text, as Airflow renders it."""
    given = {"state": "latest_by({{ params.key }})", "step": "{{ params.step }}", "on_skipped": "{{ params.skipped }}"}
    numbers = {"max_lookback": "{{ params.seconds }}", "budget": "{{ params.most }}"}
    load = make(mode="{{ params.mode }}", **given, **numbers)
    params = {"mode": "stateful", "key": "region", "step": "hour", "skipped": "keep", "seconds": 90, "most": 7}
    load.render_template_fields({"params": params})
    spec = build_spec({name: getattr(load, name) for name in SPEC_FIELDS})
    assert (str(spec.state), spec.step, spec.on_skipped) == ("latest_by(region)", "hour", "keep")
    assert (spec.max_lookback, spec.budget) == (dt.timedelta(seconds=90), 7)
    wrong = make(mode="stateful", state="{{ params.state }}")
    wrong.render_template_fields({"params": {"state": "latest"}})
    with pytest.raises(ArgumentError, match="state is 'latest'"):
        build_spec({name: getattr(wrong, name) for name in SPEC_FIELDS})


def test_what_another_task_returns_waits_too_and_makes_the_load_wait() -> None:
    with new_dag():

        @task
        def choose() -> dict[str, Any]:
            return {}

        chosen = choose()
        whole = IncrementalLoadOperator(task_id="whole", **arguments(target=chosen, process="a"))
        nested = IncrementalLoadOperator(task_id="nested", **arguments(target={"table": chosen["table"]}))
    assert whole.upstream_task_ids == nested.upstream_task_ids == {"choose"}
    with new_dag("other"), pytest.raises(ArgumentError, match="mode is 'upsert'"):
        IncrementalLoadOperator(task_id="load", **arguments(target=choose(), process="a", mode="upsert"))


def test_two_loads_of_one_process_in_a_dag_are_refused() -> None:
    with new_dag():
        IncrementalLoadOperator(task_id="first", **arguments(process="p"))
        IncrementalLoad("group", **arguments())
        with pytest.raises(ArgumentError, match="'first' and 'second' of DAG 'loads' are both the process 'p'"):
            IncrementalLoadOperator(task_id="second", **arguments(process="p", target=IcebergTarget("mart.other")))
        with pytest.raises(ArgumentError, match=r"'group' and 'third' .* both the process 'mart\.result'"):
            IncrementalLoadOperator(task_id="third", **arguments())
    with new_dag("another"):
        IncrementalLoadOperator(task_id="first", **arguments(process="p"))


def scoped(scope: Any, **changes: Any) -> dict[str, Any]:
    target = IcebergTarget("mart.shared", event_time="ts", scope=scope)
    return arguments(target=target, process=f"p{scope}".translate(str.maketrans(" {}'[]:,", "_" * 8)), **changes)


@pytest.mark.parametrize(
    "modes", [("overwrite", "overwrite"), ("append", "overwrite"), ("overwrite", "append"), ("append", "stateful")]
)
def test_loads_of_a_dag_that_replace_each_others_rows_are_refused(modes: tuple[str, str]) -> None:
    with new_dag():
        IncrementalLoad("group", **scoped({"region": ["eu", "us"]}, mode=modes[0]))
        IncrementalLoadOperator(task_id="apart", **scoped({"region": "ap"}, mode=modes[1]))
        IncrementalLoadOperator(task_id="elsewhere", **scoped(None, mode=modes[1], iceberg_conn_id="other"))
        with pytest.raises(
            ScopeOverlap, match=r"'group' and 'second' of DAG 'loads' write 'mart\.shared'.*'us'\); region"
        ):
            IncrementalLoadOperator(task_id="second", **scoped({"region": "us"}, mode=modes[1]))


def test_loads_of_a_dag_that_only_append_may_share_a_target() -> None:
    with new_dag() as dag:
        IncrementalLoadOperator(task_id="first", **scoped(None))
        IncrementalLoadOperator(task_id="second", **scoped({"region": "us"}))
    assert len(dag.tasks) == 2


def test_the_process_is_the_target_unless_it_is_named() -> None:
    assert make().process == "mart.result"
    assert make(process="p").process == "p"
    assert make(target={"table": "{{ params.t }}"}).process == "{{ params.t }}"


def test_retries_are_two_unless_somebody_says_otherwise() -> None:
    assert (make().retries, make().retry_delay) == (2, dt.timedelta(seconds=30))
    assert make(retries=0).retries == 0
    with new_dag(default_args={"retries": 5, "retry_delay": dt.timedelta(minutes=3)}):
        told = IncrementalLoadOperator(task_id="load", **arguments())
        mapped = IncrementalLoadOperator.partial(task_id="mapped", mode="append").expand_kwargs([{"process": "p"}])
    assert (told.retries, told.retry_delay) == (5, dt.timedelta(minutes=3))
    assert mapped.retries == 5


def test_assets() -> None:
    load = make(sources={**SOURCES, "same": SOURCES["events"]}, mode="overwrite", iceberg_conn_id="lake")
    assert load.outlets == [load.asset]
    assert load.asset == iceberg_asset("mart.result", "lake")
    assert load.asset.uri == load.asset.name == "iceberg://lake/mart/result"
    assert load.inlets == [iceberg_asset("raw.events", "lake")]
    assert iceberg_asset("a.b.c d", "my lake").uri == "iceberg://my%20lake/a/b/c%20d"


def test_the_asset_of_a_templated_target_is_not_known_yet() -> None:
    load = make(target={"table": "{{ params.t }}"})
    assert load.outlets == []
    with pytest.raises(ArgumentError, match="is templated"):
        _ = load.asset


def test_outlets_of_the_author_stay() -> None:
    other = iceberg_asset("mart.other")
    assert make(outlets=[other]).outlets == [other, iceberg_asset("mart.result")]
    assert make(outlets=[iceberg_asset("mart.result")]).outlets == [iceberg_asset("mart.result")]


def _function(relations: Any, plan: Any) -> Any:
    raise NotImplementedError


def test_a_callable_is_shown_by_name_and_not_called_when_fields_are_rendered() -> None:
    load = make(transform=_function)
    assert load.transform_callable is _function
    assert load.transform == f"{__name__}:_function()"
    assert not callable(load.transform)


ALL_AUDITS: list[Audit] = [
    PythonCheck(_function),
    NotNull("id"),
    AcceptedValues("region", ["us", "eu"]),
    Between("ts", dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc), None),
    SqlCheck("rule", "SELECT * FROM rows WHERE v < 0"),
]


def test_a_lookback_is_stored_as_seconds() -> None:
    load = make(mode="overwrite", max_lookback=dt.timedelta(hours=3))
    assert load.max_lookback == 10_800.0
    assert load.declared is not None
    assert load.declared.max_lookback == dt.timedelta(hours=3)


def test_a_group_takes_what_the_operator_takes() -> None:
    more = {"catch_up": "missed", "max_lookback": 7200, "budget": 3, "on_skipped": "keep"}
    with new_dag():
        group = IncrementalLoad("group", **arguments(mode="stateful", **more))
    for stage in (group.plan, group.load, group.audit, group.publish):
        assert {name: getattr(stage, name) for name in more} == more


def whole_dag() -> DAG:
    with new_dag() as dag:
        IncrementalLoadOperator(
            task_id="fused",
            **arguments(
                process="fused",
                audits=ALL_AUDITS,
                initial={"adopt": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)},
                target=IcebergTarget("mart.a", event_time="ts", scope={"region": {"us", "eu", "ap"}}),
                transform=_function,
            ),
        )
        group = IncrementalLoad("group", **arguments(process="group", audits=ALL_AUDITS))
        with IncrementalLoad("own", **arguments(process="own", transform=None)) as own:

            @task
            def write(branch: str) -> None:
                del branch

            write(own.session["branch"])
        group >> own
        IncrementalLoadOperator.partial(
            task_id="mapped",
            mode="append",
            sources={"events": SOURCES["events"].as_dict()},
            transform=_function,
            audits=ALL_AUDITS,
        ).expand_kwargs([{"process": name, "target": IcebergTarget(f"mart.{name}").as_dict()} for name in "xy"])
    return dag


def stored() -> tuple[str, str]:
    """Return the hash by which Airflow tells versions of a DAG apart, and the text it is of."""
    form = DagSerialization.to_dict(whole_dag())
    return SerializedDagModel.hash(form), json.dumps(form)


def test_two_parses_give_one_form() -> None:
    """Also in two processes, where sets have another order and functions another address."""
    here, text = stored()
    assert stored()[0] == here
    assert " at 0x" not in text
    code = f"from {__name__} import stored; print(stored()[0])"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split()[-1] == here


def test_the_stored_form_comes_back() -> None:
    dag = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(whole_dag()))))
    fused = dag.get_task("fused")
    assert fused.target == {
        "table": "mart.a",
        "event_time": "ts",
        "scope": {"region": ["ap", "eu", "us"]},
        "create": False,
        "partition_by": None,
    }
    assert fused.audits == [audit.as_dict() for audit in ALL_AUDITS]
    assert fused.retries == 2
    assert [link.name for link in fused.operator_extra_links] == ["Session plan"]
    assert dag.get_task("group.publish").trigger_rule == "none_failed"
    assert [dag.get_task(f"group.{s}").inherits_from_skipmixin for s in ("plan", "load", "audit", "publish")] == [
        True,
        True,
        False,
        False,
    ]
