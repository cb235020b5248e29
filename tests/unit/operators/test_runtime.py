"""Between Airflow and a session: owners, runs that are over, announcements, metrics, links, and stopping the engine."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_incremental import IcebergSource, IcebergTarget, IncrementalLoadOperator, compat, iceberg_asset
from airflow_incremental.core.errors import AuditFailed, CatalogError, PlanExpired
from airflow_incremental.core.plan import Owner
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.core.watermark import Published, Watermark
from airflow_incremental.engines.worker import TransformInterrupted
from airflow_incremental.operators import metrics, reports, runtime, stages
from airflow_incremental.operators.announce import announce, is_unannounced, keep_quiet
from airflow_incremental.operators.links import SessionPlanLink
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from tests.support.world import World


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """Options of Airflow's configuration, as a test sets them."""
    options: dict[tuple[str, str], str] = {}
    stand_in = SimpleNamespace(get=lambda section, option, fallback=None: options.get((section, option), fallback))
    monkeypatch.setattr(runtime, "conf", stand_in)
    monkeypatch.setattr("airflow_incremental.operators.links.conf", stand_in)
    return options


def test_the_deployment_is_named_or_its_address(config: dict[tuple[str, str], str]) -> None:
    assert runtime.deployment() == "http://localhost:8080"
    config["api", "base_url"] = "https://airflow.example/eu/"
    assert runtime.deployment() == "https://airflow.example/eu"
    config["incremental", "deployment"] = "eu"
    assert runtime.deployment() == "eu"


def test_the_owner_is_the_same_for_all_stages_and_tries(config: dict[tuple[str, str], str]) -> None:
    config["incremental", "deployment"] = "here"
    ti = SimpleNamespace(dag_id="dag", run_id="run", map_index=-1, task_id="fact.plan")
    first = runtime.owner_of({"ti": ti, "dag_run": SimpleNamespace(clear_number=0)}, task_id="fact")
    cleared = runtime.owner_of({"ti": ti, "dag_run": SimpleNamespace(clear_number=2)}, task_id="fact")
    assert first == Owner(deployment="here", dag_id="dag", run_id="run", task_id="fact")
    assert cleared.clear_number == 2
    assert first.same_task(cleared)
    ti.map_index = 3
    assert not first.same_task(runtime.owner_of({"ti": ti, "dag_run": SimpleNamespace()}, task_id="fact"))


@pytest.mark.parametrize(("alive", "over"), [(0, True), (1, False)])
def test_a_run_is_over_when_none_of_that_id_is_alive(alive: int, over: bool) -> None:
    asked = []

    def count(**what: Any) -> int:
        asked.append(what)
        return alive

    assert runtime.run_is_over(count, Owner(deployment="here", dag_id="d", run_id="r")) is over
    assert asked == [{"dag_id": "d", "run_ids": ["r"], "states": ["queued", "running"]}]


def test_a_session_outside_airflow_never_counts_as_over() -> None:
    assert not runtime.run_is_over(lambda **_: 0, Owner(deployment="here"))


def operator(**changes: Any) -> IncrementalLoadOperator:
    return IncrementalLoadOperator(
        task_id="load",
        **{
            "sources": {"events": IcebergSource("raw.events", event_time="ts")},
            "target": IcebergTarget("mart.result", event_time="ts"),
            "mode": "append",
            "transform": "SELECT * FROM events",
            **changes,
        },
    )


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        (None, r"connection 'lake' cannot be read: .*lake.*Expected: .*'iceberg'.*AIRFLOW_CONN_LAKE"),
        ({"conn_type": "postgres", "host": "db"}, r"'lake' \(type 'postgres'\) leads to no catalog.*type 'iceberg'"),
        ({"conn_type": "iceberg", "extra": {"type": "sql"}}, r"leads to no catalog: ValueError: URI missing"),
        (
            {"conn_type": "iceberg", "host": "http://127.0.0.1:9"},
            r"leads to no catalog: ConnectionError.*catalog is up",
        ),
    ],
)
def test_a_connection_without_a_catalog(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any] | None, message: str
) -> None:
    if connection is not None:
        monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(connection))
    with pytest.raises(CatalogError, match=message) as refused:
        runtime.catalog_of("lake")
    assert refused.value.retryable, "what is asked may be away for a moment"


class Events(dict[Any, Any]):
    """Stands for ``outlet_events``."""

    def __missing__(self, key: Any) -> Any:
        self[key] = SimpleNamespace(extra=None)
        return self[key]


def test_an_event_is_emitted_or_not() -> None:
    load, events = operator(), Events()
    announce(load, {"outlet_events": events}, load.asset, {"session": "s"})
    assert load.outlets == [load.asset]
    assert events[load.asset].extra == {"session": "s"}
    other = iceberg_asset("mart.other")
    announce(load, {"outlet_events": events}, other, {"session": "s"})
    assert load.outlets == [load.asset, other]
    keep_quiet(load, load.asset)
    assert load.outlets == [other]


@pytest.mark.parametrize(
    ("state", "unheard"),
    [
        ("failed", True),
        ("upstream_failed", True),
        ("success", False),
        ("running", False),
        ("up_for_retry", False),
        (None, False),
    ],
)
def test_a_publish_is_unannounced_when_its_task_gave_up(
    config: dict[tuple[str, str], str], state: str | None, unheard: bool
) -> None:
    config["incremental", "deployment"] = "here"
    owner = Owner(deployment="here", dag_id="d", run_id="r", task_id="fact", map_index=2)
    last = Published(session="s", snapshot_id=1, watermark=Watermark(positions={}), owner=owner.to_json())
    asked = []

    def states(**what: Any) -> dict[str, dict[str, str]]:
        asked.append(what)
        return {} if state is None else {"r": {"fact.publish_2": state}}

    context = {"ti": SimpleNamespace(get_task_states=states)}
    assert is_unannounced(context, last, task_id="fact.publish") is unheard
    assert asked == [{"dag_id": "d", "map_index": 2, "task_ids": ["fact.publish"], "run_ids": ["r"]}]
    config["incremental", "deployment"] = "elsewhere"
    assert not is_unannounced(context, last, task_id="fact.publish")
    assert not is_unannounced(context, None, task_id="fact.publish")


@pytest.mark.parametrize(
    ("base", "map_index", "expected"),
    [
        (
            "https://airflow.example/eu/",
            -1,
            "https://airflow.example/eu/dags/d/runs/a%2Bb/tasks/fact.plan/rendered_templates",
        ),
        (None, 3, "/dags/d/runs/a%2Bb/tasks/fact.plan/mapped/3/rendered_templates"),
    ],
)
def test_the_link_leads_to_the_plan(
    config: dict[tuple[str, str], str], base: str | None, map_index: int, expected: str
) -> None:
    if base is not None:
        config["api", "base_url"] = base
    stage = SimpleNamespace(stage_task_ids={"plan": "fact.plan"})
    key: Any = SimpleNamespace(dag_id="d", run_id="a+b", task_id="fact.audit", map_index=map_index)
    assert SessionPlanLink().get_link(stage, ti_key=key) == expected
    fused = SimpleNamespace(stage_task_ids={})
    assert "/tasks/fact.audit/" in SessionPlanLink().get_link(fused, ti_key=key)
    # A chunk's task is mapped, and the one that planned it is not.
    chunk = SimpleNamespace(stage_task_ids={"plan": "fact.plan", "chunk": "fact.load"})
    assert SessionPlanLink().get_link(chunk, ti_key=key).endswith("/tasks/fact.plan/rendered_templates")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any, dict[str, str] | None]]:
    """What was sent to Airflow's metrics."""
    found: list[tuple[str, str, Any, dict[str, str] | None]] = []

    def recorder(kind: str) -> Any:
        return lambda name, value, tags=None: found.append((kind, name, value, tags))

    stats = SimpleNamespace(incr=recorder("incr"), gauge=recorder("gauge"), timing=recorder("timing"))
    monkeypatch.setattr(metrics, "Stats", stats)
    return found


def test_metrics_per_process_with_and_without_tags(sent: list[Any]) -> None:
    summary = {"process": "p", "rows": 5, "late_rows": 0, "complete_through": None}
    metrics.session_published(summary, dag_id="d", seconds=1.5)
    metrics.lag(summary, dag_id="d")
    metrics.audit_failed("p", dag_id="d")
    tags = {"process": "p", "dag_id": "d"}
    assert sent == [
        ("incr", "incremental.rows", 5, tags),
        ("incr", "incremental.rows.p", 5, None),
        ("timing", "incremental.session_seconds", dt.timedelta(seconds=1.5), tags),
        ("timing", "incremental.session_seconds.p", dt.timedelta(seconds=1.5), None),
        ("incr", "incremental.audit_failures", 1, tags),
        ("incr", "incremental.audit_failures.p", 1, None),
    ]


def test_the_lag_is_in_event_time(sent: list[Any]) -> None:
    hour_ago = dt.datetime.now(dt.timezone.utc) - dt.timedelta(hours=1)
    metrics.lag({"process": "p", "complete_through": hour_ago.isoformat()}, dag_id="d")
    assert sent[0][:2] == ("gauge", "incremental.watermark_lag_seconds")
    assert sent[0][2] == pytest.approx(3600, abs=5)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (AuditFailed("1 of 1 audits failed", hint="look"), compat.AirflowFailException),
        (PlanExpired("gone"), PlanExpired),
    ],
)
def test_only_what_a_retry_can_mend_is_retried(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(stages, "run_stage", fail)
    with pytest.raises(raised) as caught:
        IncrementalLoadOperator.execute.__wrapped__(operator(), {})  # type: ignore[attr-defined]
    assert str(caught.value) == str(error)


def test_killing_the_task_stops_the_engine(tmp_path: Any) -> None:
    world = World(home=tmp_path).set_up()
    world.land(1)
    load = operator(memory_limit="1GB", threads=1)
    load.on_kill()  # before there is an engine there is nothing to stop
    engine = load.make_engine()
    assert (engine.memory_limit, engine.threads) == ("1GB", 1)
    endless = "SELECT id, ts, region, v AS v10 FROM events, range(1_000_000_000_000) WHERE hash(range) = 7"
    session: Any = plan(world.process(transform=endless, engine=engine))
    timer = threading.Timer(1, load.on_kill)
    timer.start()
    began = time.monotonic()
    with pytest.raises(TransformInterrupted):
        steps.load(session)
    assert time.monotonic() - began < 60
    found: Any = steps.resume(session.process, session.plan.session, again=False)
    assert found.begin == session.begin


def test_a_summary_holds_a_bounded_number_of_ranges(tmp_path: Any) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(0)
    steps.run(world.process())
    world.land(*[2 * n for n in range(1, 200)])
    summary = reports.summarise(steps.run(world.process()), process="proc", target="mart.result")
    assert summary["rows"] == 199
    assert len(summary["ranges"]) == reports.RANGES_IN_SUMMARY
    assert EventRanges.from_json(summary["ranges"]).span() is not None
    assert "published 199 rows (0 late) to mart.result" in reports.describe(summary)
