"""What a DAG author may declare, and what the errors say."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.spec import Initial, ProcessSpec, check_process_name, initial_as_plain
from airflow_incremental.core.tables import IcebergSource, IcebergTarget, scope_within, scopes_overlap

UTC = dt.timezone.utc


def spec(**changes: Any) -> ProcessSpec:
    values: dict[str, Any] = {
        "process": "p",
        "sources": {"s": IcebergSource("raw.s", event_time="ts")},
        "target": IcebergTarget("mart.t", event_time="ts"),
        "mode": "append",
    }
    return ProcessSpec(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process": "a b"}, "process name is 'a b'.*letters"),
        ({"process": "wm_x"}, "not with 'wm_'"),
        ({"process": ""}, "process name is ''"),
        ({"mode": "stateless"}, "mode is 'stateless'.*'append', 'overwrite'"),
        ({"on_rewrite": "skip"}, "on_rewrite is 'skip'.*'fail', 'ignore', 'overwrite'"),
        ({"mode": "overwrite", "on_rewrite": "ignore"}, "'ignore' in mode 'overwrite'.*leave on_rewrite out"),
        ({"on_null_event_time": "drop"}, "on_null_event_time is 'drop'"),
        ({"on_lost_watermark": "retry"}, "on_lost_watermark is 'retry'"),
        ({"sources": {}}, "no sources"),
        ({"sources": {"a-b": IcebergSource("raw.s")}}, "named 'a-b'"),
        ({"target": IcebergTarget("raw.s")}, "reads and writes 'raw.s'"),
        ({"mode": "overwrite", "target": IcebergTarget("mart.t")}, "target.*no event_time"),
        ({"mode": "overwrite", "sources": {"s": IcebergSource("raw.s")}}, "source 's'.*no event_time"),
        ({"on_rewrite": "overwrite", "target": IcebergTarget("mart.t", event_time="other")}, "different event times"),
        ({"initial": "yesterday"}, "initial is 'yesterday'"),
        ({"initial": dt.datetime(2024, 1, 1)}, "naive datetime"),  # noqa: DTZ001
        ({"initial": {"keep": 1}}, "one key 'adopt'"),
        ({"initial": None}, "initial is None"),
        ({"initial": "adopt"}, r"initial is 'adopt'.*'all', 'current'.*write \{'adopt': 'current'\}"),
        ({"sources": {1: IcebergSource("raw.s")}}, "named 1.*without quotes"),
        ({"sources": {"plan_ranges": IcebergSource("raw.s")}}, "'plan_ranges' of process 'p' is taken.*rename"),
        (
            {
                "mode": "overwrite",
                "sources": {"s": IcebergSource("raw.s", event_time="ts"), "S": IcebergSource("raw.t", event_time="ts")},
            },
            "'S' of process 'p' is taken.*more than case",
        ),
        (
            {
                "mode": "overwrite",
                "target": IcebergTarget("mart.t", event_time="ts", create=True, partition_by="region"),
            },
            r"without a partition of its event_time 'ts'.*write partition_by=\['day\(ts\)', 'region'\]",
        ),
        (
            {"target": IcebergTarget("mart.t", event_time="ts", create=True, scope={"region": "eu"})},
            r"its scope's \['region'\].*write partition_by=\['day\(ts\)', 'region'\]",
        ),
    ],
)
def test_bad_declarations_say_what_was_found_and_expected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        spec(**changes)


@pytest.mark.parametrize("table", ["", None, "events", "."])
def test_table_names_need_a_namespace(table: Any) -> None:
    with pytest.raises(ArgumentError, match=r"namespace\.table"):
        IcebergSource(table)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: IcebergSource("raw.s", event_time=7), "event_time of source 'raw.s' is 7"),  # type: ignore[arg-type]
        (lambda: IcebergSource("raw.s", branch=""), "branch of source 'raw.s' is ''"),
        (lambda: IcebergTarget("mart.t", event_time=""), "event_time of target 'mart.t' is ''"),
        (lambda: IcebergTarget("mart.t", create="False"), "create of a table is 'False'.*would count as true"),  # type: ignore[arg-type]
        (lambda: IcebergTarget("mart.t", partition_by=5), "partition_by holds 5"),  # type: ignore[arg-type]
        (lambda: IcebergTarget("mart.t", partition_by=["days(ts)"]), r"partition_by holds 'days\(ts\)'.*day\(col\)"),
        (
            lambda: IcebergTarget("mart.t", create=True, partition_by=["day(ts)", "hour(ts)"]),
            "names 'ts' more than once.*keep the finest",
        ),
    ],
)
def test_bad_tables_say_what_was_found_and_expected(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        build()


def test_what_a_templated_mode_needs_is_not_known_yet() -> None:
    assert spec(mode="{{ params.mode }}", target=IcebergTarget("mart.t")).target.event_time is None


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "stateful", "state": "{{ params.state }}", "step": "{{ params.step }}"},
        {"mode": "{{ params.mode }}", "state": "latest_by(customer)", "step": "hour"},
        {"mode": "{{ params.mode }}", "catch_up": "missed"},
        {"mode": "stateful", "catch_up": "{{ params.catch_up }}"},
    ],
)
def test_what_a_stateful_process_is_given_may_be_a_template(changes: dict[str, Any]) -> None:
    found = spec(**changes)
    assert {name: getattr(found, name) for name in changes if name != "state"} == {
        name: value for name, value in changes.items() if name != "state"
    }
    assert str(found.state) == str(changes.get("state"))


def test_a_created_target_that_can_be_loaded() -> None:
    for partition_by in (None, ["hour(ts)", "region"], ["ts", "region"], ["{{ params.by }}"]):
        target = IcebergTarget("mart.t", event_time="ts", create=True, partition_by=partition_by)
        assert spec(mode="overwrite", target=target).target is target


def test_templates_pass_until_they_are_rendered() -> None:
    found = spec(
        process="{{ params.p }}", target=IcebergTarget("{{ params.t }}", event_time="ts"), initial="{{ params.i }}"
    )
    assert found.process == "{{ params.p }}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("all", Initial(position="all")),
        (7, Initial(position=7)),
        ("7", Initial(position=7)),
        ("2024-01-01T00:00:00Z", Initial(position=dt.datetime(2024, 1, 1, tzinfo=UTC))),
        ({"adopt": "current"}, Initial(position="current", adopt=True)),
        ({"adopt": "all"}, Initial(position="all", adopt=True)),
    ],
)
def test_initial(value: Any, expected: Initial) -> None:
    assert Initial.parse(value) == expected


def test_initial_serialises_the_same_in_every_parse() -> None:
    assert initial_as_plain({"adopt": dt.datetime(2024, 1, 1, tzinfo=UTC)}) == {"adopt": "2024-01-01T00:00:00Z"}


def test_scopes_overlap_unless_a_column_tells_them_apart() -> None:
    eu, us = {"region": ("eu",)}, {"region": ("us", "ca")}
    assert not scopes_overlap(eu, us)
    assert scopes_overlap(eu, None)
    assert scopes_overlap(eu, {"tenant": (1,)})
    assert not scopes_overlap({**eu, "tenant": (1,)}, {"region": ("eu", "us"), "tenant": (2,)})


def test_a_scope_within_another() -> None:
    eu, both = {"region": ("eu",)}, {"region": ("us", "eu")}
    assert scope_within(eu, eu)
    assert scope_within(eu, both)
    assert not scope_within(both, eu)
    assert scope_within(eu, None)
    assert not scope_within(None, eu)
    assert scope_within({**eu, "tenant": (1,)}, eu)
    assert not scope_within(eu, {**eu, "tenant": (1,)}), "rows of every tenant are asked for"
    assert not scope_within({"tenant": (1,)}, eu)


def test_scope_values() -> None:
    with pytest.raises(ArgumentError, match="lists no value for 'region'"):
        IcebergTarget("mart.t", scope={"region": []})
    assert IcebergTarget("mart.t", scope={"region": "eu"}).scope == {"region": ("eu",)}
    with pytest.raises(ArgumentError, match=r"scope asks 'x' to be 1\.5"):
        IcebergTarget("mart.t", scope={"x": 1.5})
    with pytest.raises(ArgumentError, match="scope is"):
        IcebergTarget("mart.t", scope={})


def test_partitioning_of_a_created_target() -> None:
    assert IcebergTarget("m.t", event_time="ts").partition_fields() == (("day", "ts"),)
    assert IcebergTarget("m.t", event_time="ts", partition_by=["hour(ts)", "region"]).partition_fields() == (
        ("hour", "ts"),
        ("identity", "region"),
    )
    with pytest.raises(ArgumentError, match="partition_by holds 'week"):
        IcebergTarget("m.t", partition_by=["week(ts)"])


def test_a_process_name_may_be_a_table_identifier() -> None:
    assert check_process_name("membership.signup_fact") == "membership.signup_fact"
