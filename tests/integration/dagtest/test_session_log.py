"""What loads tell the store: the session log, and the signal of each publish, whatever happens in between."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa

from airflow_incremental import IncrementalLoad, IncrementalLoadOperator, RowCount
from airflow_incremental.core.errors import TransformError
from airflow_incremental.core.literals import default_audit_table
from airflow_incremental.hooks.store import IncrementalStoreHook
from airflow_incremental.operators.session_log import SessionLog, rewrite_log
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.entries import read_log
from airflow_incremental.store.database import Store
from airflow_incremental.store.schema import process, session
from airflow_incremental.store.searching import since
from tests.integration.dagtest.loads import CONN_ID, Worlds, arguments
from tests.integration.dagtest.runner import new_dag, run_dag
from tests.support.stores import address, say
from tests.support.world import TARGET

#: What only the log knows, and what is measured by another clock.
_ONLY_LIVE = {
    "plan",
    "late_ranges",
    "planned_at",
    "loaded_at",
    "audited_at",
    "published_at",
    "updated_at",
    "rebuilt",
    "verdict",
}


@pytest.fixture
def store_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a store of this test's own, in a folder that is there."""
    folder = tmp_path / "store"
    folder.mkdir()
    file = folder / "signals.db"
    connection = {"conn_type": "sqlite", "host": str(file)}
    monkeypatch.setenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", json.dumps(connection))
    return file


def rows(store: Store, table: sa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table, oldest first; ids of sessions of one second are in no order."""
    with store.read() as conn:
        found = [dict(row) for row in conn.execute(sa.select(table)).mappings()]
    return sorted(found, key=lambda row: row.get("planned_at") or row["published_at"])


def signals(store: Store) -> list[Any]:
    with store.read() as conn:
        return since(conn, {TARGET: 0}, limit=100)


@pytest.mark.parametrize("grouped", [False, True])
def test_sessions_are_logged_and_announced(make_world: Worlds, dag_id: str, store_file: Path, *, grouped: bool) -> None:
    world = make_world(mode="overwrite")
    with new_dag(dag_id) as dag:
        if grouped:
            IncrementalLoad("load", **arguments(world, audits=[RowCount(min=1)]))
        else:
            IncrementalLoadOperator(task_id="load", **arguments(world, audits=[RowCount(min=1)]))
    world.land(1, 2, 3)
    run_dag(dag)
    world.land(2.5, 4)
    run = run_dag(dag)
    run_dag(dag)  # has nothing to do
    store = Store.open(f"sqlite:///{store_file}")

    first, second = rows(store, session)
    assert (first["state"], second["state"]) == ("published", "published")
    assert (second["dag_id"], second["run_id"], second["task_id"]) == (dag_id, run.run_id, "load")
    assert (second["rows"], second["late_rows"], second["verdict"]) == (2, 1, "passed")
    assert second["ranges"] == [
        "2024-01-01T02:00:00Z/2024-01-01T03:00:00Z",
        "2024-01-01T04:00:00Z/2024-01-01T05:00:00Z",
    ]
    assert second["late_ranges"] == ["2024-01-01T02:00:00Z/2024-01-01T03:00:00Z"]
    assert second["plan"]["session"] == second["session"]
    times = [second[name] for name in ("planned_at", "loaded_at", "audited_at", "published_at")]
    assert times == sorted(times)
    assert second["previous_watermark"] == first["watermark"]["positions"]
    (now,) = rows(store, process)
    assert (now["session"], now["snapshot_id"]) == (second["session"], world.target.current_snapshot().snapshot_id)
    assert (now["watermark"], now["previous_watermark"]) == (second["watermark"], second["previous_watermark"])

    one, other = signals(store)
    assert [one.identity, other.identity] == [first["session"], second["session"]]
    assert other.params == {
        "process": "proc",
        "iceberg_conn_id": CONN_ID,
        "kind": "load",
        "snapshot_id": second["snapshot_id"],
        "complete_through": second["complete_through"],
        "changed_from": other.params["changed_from"],
        "changed_to": other.params["changed_to"],
    }
    assert (other.params["changed_from"].hour, other.params["changed_to"].hour) == (2, 5)
    assert other.payload["late_rows"] == 1
    assert (other.emitter.source, other.emitter.run_id) == ("session", run.run_id)

    other_store = Store.open(f"sqlite:///{store_file.parent / 'other.db'}")
    for _ in range(2):
        found = read_log(world.catalog, world.target, audit_table=default_audit_table(TARGET))
        emitted = rewrite_log(other_store, iceberg_conn_id=CONN_ID, target=TARGET, found=found, signals=True)
    assert emitted == 0, "the first time emitted them"
    assert [s.identity for s in signals(other_store)] == [first["session"], second["session"]]
    assert {row["verdict"] for row in rows(other_store, session)} == {"passed"}
    assert known(rows(other_store, session)) == known([first, second])
    assert known(rows(other_store, process)) == known([now])
    (rebuilt,) = (row for row in rows(other_store, session) if row["session"] == second["session"])
    assert second["audited_at"] - dt.timedelta(milliseconds=1) < rebuilt["published_at"] <= second["published_at"]
    # Over a log that was written as things happened, a rebuilt one takes nothing away.
    rewrite_log(store, iceberg_conn_id=CONN_ID, target=TARGET, found=found, signals=False)
    assert [row["plan"] for row in rows(store, session)] == [first["plan"], second["plan"]]
    assert known(rows(store, session)) == known([first, second])


def known(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in _ONLY_LIVE} for row in found]


def test_a_failed_session_says_what_was_wrong(make_world: Worlds, dag_id: str, store_file: Path) -> None:
    world = make_world(mode="append")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, audits=[RowCount(min=3)]))
    world.land(1)
    assert run_dag(dag).state == "failed"
    world.land(2, 3)
    assert run_dag(dag).state == "success"

    failed, published = rows(Store.open(f"sqlite:///{store_file}"), session)

    assert (failed["state"], published["state"]) == ("failed", "published")
    assert "row_count" in failed["error"]
    assert published["error"] is None
    assert [s.identity for s in signals(Store.open(f"sqlite:///{store_file}"))] == [published["session"]]


def test_a_store_that_is_down_loses_no_signal_and_holds_no_load_back(
    make_world: Worlds, dag_id: str, store_file: Path
) -> None:
    world = make_world(mode="append")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, retries=1))
    store_file.parent.rmdir()
    world.land(1)
    down = run_dag(dag)
    world.land(2)
    still_down = run_dag(dag)
    world.check()
    assert (down.state, still_down.state) == ("failed", "failed")
    assert still_down.tries == {"load": 2}
    store_file.parent.mkdir()
    world.land(3)

    assert run_dag(dag).state == "success"

    world.check()
    store = Store.open(f"sqlite:///{store_file}")
    on_main = [
        s.summary["incremental.session"] for s in world.target.snapshots() if s.summary.get("incremental.session")
    ]
    assert [s.identity for s in signals(store)] == on_main
    assert len(on_main) == 3


def test_a_store_that_comes_back_while_the_next_session_runs_hears_of_the_one_it_missed_first(
    make_world: Worlds, dag_id: str, store_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(mode="append")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, retries=0))
    store_file.parent.rmdir()
    world.land(1)
    assert run_dag(dag).state == "failed"
    monkeypatch.setattr(SessionLog, "loaded", lambda *_: store_file.parent.mkdir())
    world.land(2, 3)

    assert run_dag(dag).state == "success"

    assert [s.payload["rows"] for s in signals(Store.open(f"sqlite:///{store_file}"))] == [1, 2]


def test_a_publish_that_died_before_it_was_announced_is_announced_by_the_next_plan(
    make_world: Worlds, dag_id: str, store_file: Path
) -> None:
    world = make_world(mode="append")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, retries=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SessionLog, "announce", dies)
        patch.setattr(SessionLog, "announce_missed", lambda *_, **__: None)
        for n in (1, 2):
            world.land(n)
            assert run_dag(dag).state == "failed"

    for _ in range(2):
        assert run_dag(dag).state == "success"

    world.check()
    assert [s.payload["rows"] for s in signals(Store.open(f"sqlite:///{store_file}"))] == [1, 1]


def test_an_error_that_a_database_cannot_keep_is_kept_as_far_as_it_can(
    make_world: Worlds, dag_id: str, postgresql_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "generic", "extra": {"url": address(postgresql_store)}}
    monkeypatch.setenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", json.dumps(connection))

    def fails(_relations: Any, _plan: Any) -> Any:
        msg = "a row holds a NUL (\0) and half a pair (\udcff), and ü"
        raise TransformError(msg)

    world = make_world(mode="append")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, transform=fails))
    world.land(1)
    run_dag(dag)

    (failed,) = rows(postgresql_store, session)
    assert failed["state"] == "failed"
    assert r"a NUL (\x00) and half a pair (\udcff), and ü" in failed["error"]


def test_a_late_try_does_not_say_of_its_publish_that_it_is_the_last_one(
    make_world: Worlds, dag_id: str, store_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try publishes and dies; before the second one finds that publish, another run has published."""
    world = make_world(mode="append")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, retries=1, audits=[RowCount(min=1)]))
    published = SessionLog.published
    first: list[dict[str, Any]] = []

    def dies_and_is_overtaken(self: SessionLog, *args: Any, **kwargs: Any) -> None:
        published(self, *args, **kwargs)
        first.extend(rows(Store.open(f"sqlite:///{store_file}"), session))
        monkeypatch.setattr(SessionLog, "published", published)
        world.land(2)
        other = steps.run(world.process())
        assert other.published is not None
        published(attrs.evolve(self, plan=other.plan), other.published, verdict="none")
        raise RuntimeError

    monkeypatch.setattr(SessionLog, "published", dies_and_is_overtaken)
    world.land(1)
    run = run_dag(dag)
    assert (run.state, run.tries) == ("success", {"load": 2})

    store = Store.open(f"sqlite:///{store_file}")
    one, other = rows(store, session)
    (now,) = rows(store, process)
    assert (now["session"], now["snapshot_id"]) == (other["session"], world.target.current_snapshot().snapshot_id)
    assert now["previous_watermark"] == one["watermark"]["positions"]
    assert known([one]) == known(first)
    assert one["verdict"] == first[0]["verdict"] == "passed"
    assert one["published_at"] <= first[0]["published_at"] < other["published_at"]


def test_the_log_is_told_of_a_publish_that_only_a_later_try_finds(
    make_world: Worlds, dag_id: str, store_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(mode="append")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, retries=1))
    world.land(1)
    run_dag(dag)
    monkeypatch.setattr(SessionLog, "published", dies)
    world.land(2, 3)
    assert run_dag(dag).tries == {"load": 2}

    store = Store.open(f"sqlite:///{store_file}")
    live = rows(store, session), rows(store, process)
    rewrite_log(
        store,
        iceberg_conn_id=CONN_ID,
        target=TARGET,
        found=read_log(world.catalog, world.target, audit_table=None),
        signals=False,
    )
    assert (known(rows(store, session)), known(rows(store, process))) == (known(live[0]), known(live[1]))
    assert [row["state"] for row in live[0]] == ["published", "published"]
    assert live[1][0]["previous_watermark"] == live[0][0]["watermark"]["positions"]


def test_signals_of_somebody_else_under_the_targets_name_do_not_fail_loads(
    make_world: Worlds, dag_id: str, store_file: Path
) -> None:
    world = make_world(mode="append")
    say(Store.open(f"sqlite:///{store_file}"), TARGET, process=7)
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world))
    world.land(1)

    assert run_dag(dag).state == "success"

    world.check()
    store = Store.open(f"sqlite:///{store_file}")
    assert len(signals(store)) == 1
    found = read_log(world.catalog, world.target, audit_table=None)
    assert rewrite_log(store, iceberg_conn_id=CONN_ID, target=TARGET, found=found, signals=True) == 0
    assert [row["rebuilt"] for row in rows(store, session)] == [False]
    assert rewrite_log(store, iceberg_conn_id="other", target=TARGET, found=found, signals=True) == 0
    assert [row["iceberg_conn_id"] for row in rows(store, process)] == [CONN_ID, "other"]


def test_a_target_whose_name_is_no_signals_is_loaded(
    make_world: Worlds, dag_id: str, store_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_incremental.core.signals.NAME_LIMIT", len(TARGET) - 1)
    world = make_world(mode="append")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world))
    for n in (1, 2):
        world.land(n)
        assert run_dag(dag).state == "success"
    world.check()
    assert [row["state"] for row in rows(Store.open(f"sqlite:///{store_file}"), session)] == ["published"] * 2


def dies(*_: Any) -> None:
    msg = "the machine was switched off"
    raise RuntimeError(msg)


def test_a_store_that_nobody_asked_for_holds_nothing_up(
    make_world: Worlds, dag_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", raising=False)
    monkeypatch.setattr(
        "airflow_incremental.hooks.store.default_file", lambda: tmp_path / "read only" / "incremental.db"
    )
    world = make_world(mode="append")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world))
    world.land(1)

    assert run_dag(dag).state == "success"

    world.check()


def test_without_a_connection_nothing_is_kept(make_world: Worlds, dag_id: str, store_file: Path) -> None:
    world = make_world(mode="append")
    with new_dag(dag_id) as dag:
        IncrementalLoadOperator(task_id="load", **arguments(world, incremental_conn_id=None))
    world.land(1)

    assert run_dag(dag).state == "success"

    assert not store_file.exists()
    assert IncrementalStoreHook().url().database == str(store_file)
