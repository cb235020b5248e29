"""A preview of a target that does not exist yet: what the first run would do, which creates it; nothing is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from airflow_incremental.audits import NotNull
from airflow_incremental.core.errors import IncrementalError, TableError
from airflow_incremental.core.requests import RestateRequest
from airflow_incremental.core.spark_job import SparkRunner
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.preview import preview
from airflow_incremental.sessions.process import Process, Session
from tests.support.modes import MODES, world_of
from tests.support.world import World

NEW = "fresh.place"


def declared(world: World, *, create: bool = True, target: dict[str, Any] | None = None, **changes: Any) -> Process:
    """Return a process whose target is not there, nor the namespace that it is to be in."""
    process = world.process()
    to = attrs.evolve(process.spec.target, table=NEW, create=create, **(target or {}))
    policies = changes.pop("policies", {})
    return attrs.evolve(process, spec=attrs.evolve(process.spec, target=to, **policies), **changes)


def tree(home: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in home.rglob("*") if p.is_file()}


def world_with_rows(home: Path, mode: str) -> World:
    world = world_of(home, mode).set_up()
    world.land(0.1, 0.2, 1.5)
    world.land(1.1, 2.2, region="us")
    return world


@pytest.mark.parametrize("mode", [mode for mode in MODES if not mode.startswith("stateful")])
@pytest.mark.parametrize("start", ["all", "current", "snapshot"])
def test_it_is_the_plan_of_the_run_that_creates_it(tmp_path: Path, mode: str, start: str) -> None:
    world = world_with_rows(tmp_path, mode)
    if start == "snapshot" and mode == "append a union":
        return  # whose sources have no snapshot in common
    first = world.source.current_snapshot()
    assert first is not None
    world.land(3.3)
    process = declared(
        world,
        policies={"initial": first.snapshot_id if start == "snapshot" else start},
        owner=world.process("run").owner,
    )
    before = tree(tmp_path)

    seen = preview(process)

    assert tree(tmp_path) == before
    assert not process.catalog.table_exists(NEW)
    assert not process.catalog.namespace_exists("fresh")
    assert seen.creates
    assert f"the target does not exist; the run would create it first: CREATE TABLE {NEW} (\n" in seen.describe()
    done = steps.run(process)
    assert done.plan is not None
    assert seen.plan is not None
    assert plain(seen.plan) == plain(done.plan)
    assert not preview(process).creates


def plain(plan: Any) -> dict[str, Any]:
    """Return a plan without what each has of its own, and without the ids that a table has only when it is there."""
    found = dict(plan.to_json())
    for name in ("session", "created_at", "target_uuid", "main"):
        del found[name]
    found["watermark"] = {k: v for k, v in found["watermark"].items() if k not in ("event_field", "key_fields")}
    return found


@pytest.mark.parametrize("mode", ["append", "overwrite", "merge"])
def test_where_nobody_asked_for_it_the_statement_is_shown(tmp_path: Path, mode: str) -> None:
    world = world_with_rows(tmp_path, mode)
    with pytest.raises(TableError) as refused:
        preview(declared(world, create=False))
    said = str(refused.value)
    for words in (f"{NEW!r} does not exist", "IcebergTarget(create=True)", f"CREATE TABLE {NEW} (\n"):
        assert words in said
    with pytest.raises(TableError, match=r"does not exist.*IcebergTarget\(create=True\)"):
        preview(declared(world, create=False, transform=_never))


def _never(_relations: Any, _plan: Any) -> Any:
    pytest.fail("a preview runs nobody's function")


def test_a_function_is_not_run(tmp_path: Path) -> None:
    world = world_with_rows(tmp_path, "append")
    seen = preview(declared(world, transform=_never))
    assert "the target does not exist; the run would create it first: from what the function returns" in seen.describe()
    assert "5 rows added" in seen.describe()
    assert "at most 5 rows in 2 files" in seen.describe()
    assert seen.to_json()["creates"] == "from what the function returns"


def test_of_an_empty_source_nothing_would_come(tmp_path: Path) -> None:
    world = world_of(tmp_path, "overwrite").set_up()
    seen = preview(declared(world))
    assert seen.plan is None
    assert "nothing to do: no source has a row yet" in seen.describe()
    assert "would create it" in seen.describe()


BY_ID = {"partition_by": ("id",)}
UNPARTITIONED = {"partition_by": (), "event_time": None}
OF_EU = {"partition_by": ("hour(hour_ts)", "region"), "scope": {"region": ["eu"]}}
ASKED = RestateRequest.read("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", cause="form")


@pytest.mark.parametrize(
    ("mode", "changes", "said"),
    [
        ("stateful", {}, "reads its state"),
        ("append", {"transform": None}, "without a transform"),
        ("append", {"transform": SparkRunner.__new__(SparkRunner)}, "a transform on Spark"),
        ("append", {"transform": "SELECT id FROM events"}, "returns no column 'ts'"),
        ("append", {"transform": "SELECT id FROM events", "target": BY_ID}, "has no column 'ts'"),
        ("append", {"transform": "SELECT id, ts::VARCHAR AS ts FROM events", "target": BY_ID}, "is of type string"),
        (
            "append",
            {"transform": "SELECT ts, id::DOUBLE AS id FROM events", "target": BY_ID},
            "a column of type double",
        ),
        ("merge", {"transform": "SELECT 1 AS other FROM events", "target": UNPARTITIONED}, "which is a key"),
        (
            "overwrite",
            {"transform": "SELECT ts AS hour_ts, id AS region FROM events", "target": OF_EU},
            "asks column 'region'",
        ),
        ("append", {"transform": "SELECT id, ts, id FROM events"}, "returns 'id' more than once"),
        ("append", {"transform": """SELECT id, ts, v AS "Id" FROM events"""}, "returns 'Id', 'id' more than once"),
        ("append", {"transform": "SELECT * FROM nowhere"}, "nowhere"),
        ("append", {"audits": [NotNull("misspelt")]}, "misspelt"),
        ("append", {"restate": ASKED}, "nothing to restate"),
    ],
)
def test_what_would_fail_the_run_fails_the_preview(
    tmp_path: Path, mode: str, changes: dict[str, Any], said: str
) -> None:
    world = world_with_rows(tmp_path, mode)
    for look in (preview, steps.run):
        with pytest.raises(IncrementalError, match=said):
            look(declared(world, **changes))
    assert not world.catalog.table_exists(NEW)


def test_while_another_run_has_the_lock(tmp_path: Path) -> None:
    """Whether that run still goes on is not known here: a run would take its session over otherwise."""
    world = world_with_rows(tmp_path, "append")
    assert isinstance(plan(world.process("other")), Session)
    said = preview(world.process("mine")).describe()
    assert re.search(r"a run would wait until its run is over: session \S+ of run 'other' .*is open", said)
