from __future__ import annotations

import json
from collections.abc import Iterator

import attrs
import pytest
from sqlalchemy import Connection, Engine, insert, select, text

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.signals import Emitter, SignalDependency
from airflow_incremental.store.lineage import Step, lineage
from airflow_incremental.store.matches import claim
from airflow_incremental.store.schema import signal_name, wait, wait_signal
from airflow_incremental.store.subscriptions import advance, subscribe
from airflow_incremental.store.views import VIEWS, create_view
from tests.support.signal_store import NOW, a_run, put

GATED = Emitter(source="task", dag_id="gated", run_id="r", task_id="gate")


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    """a 1 released a task of ``gated``, which emitted b 1, which started a run of ``started``, which emitted c 1."""
    with engine.begin() as conn:
        put(conn, "a", {"day": 1})
        _release(conn, "w", "a", GATED)
        subscribe(conn, "s", [SignalDependency("b")])
        put(conn, "b", emitter=attrs.evolve(GATED, task_id="emit"))
        advance(conn, "s")
        claim(conn, "s", a_run("one"))
        put(conn, "c", emitter=attrs.evolve(a_run("one"), task_id="emit"))
        yield conn


def _release(conn: Connection, id_: str, name: str, task: Emitter) -> None:
    values = attrs.asdict(task) | {
        "id": id_,
        "dependencies": [],
        "state": "released",
        "opened_at": NOW,
        "closed_at": NOW,
    }
    del values["source"]
    conn.execute(insert(wait).values(values))
    name_id = conn.execute(select(signal_name.c.id).where(signal_name.c.name == name)).scalar_one()
    conn.execute(insert(wait_signal).values(wait_id=id_, position=0, name_id=name_id, seq=1))


def _titles(step: Step) -> list[str]:
    return [line.split(",")[0] for line in step.describe()]


def test_down_leads_to_tasks_and_runs_and_to_what_they_emitted(conn: Connection) -> None:
    assert list(lineage(conn, "a", 1).describe()) == [
        "signal a 1 (day=1)",
        "  wait w released, gated r gate",
        "    signal b 1, gated r emit",
        "      match s 1, started one claim",
        "        signal c 1, started one emit",
    ]


def test_up_leads_to_where_it_came_from(conn: Connection) -> None:
    assert _titles(lineage(conn, "c", 1, direction="up")) == [
        "signal c 1",
        "  match s 1",
        "    signal b 1",
        "      wait w released",
        "        signal a 1 (day=1)",
    ]


def test_a_cycle_ends_where_it_began(conn: Connection) -> None:
    _release(conn, "back", "c", GATED)
    lines = _titles(lineage(conn, "b", 1))
    assert lines[-1] == "        signal b 1"
    assert list(lineage(conn, "b", 1).describe())[-1].endswith(" ...")


def test_limits_cut_the_tree_and_say_so(conn: Connection) -> None:
    assert _titles(lineage(conn, "a", 1, depth=1))[-1] == "    signal b 1"
    short = lineage(conn, "a", 1, limit=2)
    assert _titles(short) == ["signal a 1 (day=1)", "  wait w released"]
    assert short.next[0].cut


def test_it_is_plain_values_for_programs(conn: Connection) -> None:
    plain = json.loads(json.dumps(lineage(conn, "a", 1).to_json()))
    assert plain["next"][0]["task"]["dag_id"] == "gated"


def test_a_signal_that_is_not_there_and_limits_of_nothing_are_refused(conn: Connection) -> None:
    with pytest.raises(ArgumentError, match="no signal 'a' 9"):
        lineage(conn, "a", 9)
    with pytest.raises(ArgumentError, match="at least 1"):
        lineage(conn, "a", 1, depth=0)


def test_views_say_the_same_in_sql(conn: Connection) -> None:
    for name in VIEWS:
        conn.execute(text(create_view(name)))
    rows = conn.execute(
        text("SELECT signal, seq, kind, state, to_dag, to_run FROM incremental_signal_lineage ORDER BY signal")
    )
    assert [tuple(row) for row in rows] == [
        ("a", 1, "wait", "released", "gated", "r"),
        ("b", 1, "match", "claimed", "started", "one"),
    ]
    state = conn.execute(
        text("SELECT subscription, looked_through, ahead, waiting FROM incremental_subscription_state")
    ).all()
    assert [tuple(row) for row in state] == [("s", 1, 0, 0)]
