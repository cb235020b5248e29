"""What people do by hand, through a REST catalog: undo, set, reset, abandon and maintenance; Spark reads the table after each."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental.core.errors import RollbackRefused, TargetNotEmpty
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from airflow_incremental.sessions.undoing import preview
from airflow_incremental.sessions.watermarks import reset_watermark, show
from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.fault_proxy import Fault, FaultProxy
from tests.spark.support.spark_process import SparkProcess
from tests.spark.support.victims import snapshots_of_main
from tests.spark.test_faults import FAULTS
from tests.support.by_hand import ACT, last_of, loaded_twice, rolled_back, set_back
from tests.support.maintaining import maintained
from tests.support.world import SOURCE, TARGET, World
from tests.unit.cli.test_by_hand import CatalogLine

Rows = Counter[tuple[Any, ...]]


class Spark:
    """Reads the target of a world as Spark does."""

    def __init__(self, world: World, spark: SparkProcess, catalog: SharedCatalog) -> None:
        self.world, self.spark, self.catalog = world, spark, catalog
        self.columns = ", ".join(world.target_schema.names)

    def rows(self, at: int | None = None) -> Rows:
        version = "" if at is None else f" VERSION AS OF {at}"
        found = self.spark.sql(self.catalog, f"SELECT {self.columns} FROM {TARGET}{version}")
        return Counter(tuple(row.values()) for row in found.to_pylist())

    def changed(self, start: int, end: int | None = None) -> tuple[Rows, Rows]:
        """Return the rows that came and went between two snapshots, as Spark's changelog tells."""
        until = "" if end is None else f", 'end-snapshot-id', '{end}'"
        found = self.spark.sql(
            self.catalog,
            f"CALL {self.catalog.name}.system.create_changelog_view(table => '{TARGET}', changelog_view => 'changes', "
            f"net_changes => true, options => map('start-snapshot-id', '{start}'{until}))",
            f"SELECT _change_type, {self.columns} FROM changes",
        )
        came, went = Rows(), Rows()
        for row in found.to_pylist():
            kind, *values = row.values()
            (came if kind == "INSERT" else went)[tuple(values)] += 1
        return came - went, went - came

    def lineage(self) -> list[int]:
        """Return the snapshots that the head descends from, newest first, as Spark knows them."""
        found = self.spark.sql(self.catalog, f"SELECT snapshot_id, parent_id FROM {TARGET}.snapshots").to_pylist()
        parents = {row["snapshot_id"]: row["parent_id"] for row in found}
        (at,) = self.spark.sql(self.catalog, f"SELECT snapshot_id FROM {TARGET}.refs WHERE name = 'main'")[
            "snapshot_id"
        ].to_pylist()
        listed = []
        while at in parents:
            listed.append(at)
            at = parents[at]
        return listed


MODES = pytest.mark.parametrize("mode", ["append", "overwrite", "merge"])


@MODES
def test_an_undo_is_one_more_snapshot_for_spark(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog, mode: str
) -> None:
    world, (one, two) = loaded_twice(tmp_path, mode, opens=rest_catalog.load)
    seen = Spark(world, spark, rest_catalog)
    first, both = seen.rows(one.snapshot_id), seen.rows()
    assert both == world.target_rows()
    lineage = seen.lineage()
    assert preview(world.catalog, TARGET, None, two.session).outcome == "planned"
    assert seen.lineage() == lineage

    done = rolled_back(world, two.session)

    assert seen.lineage() == [done.snapshot_id, *lineage]
    assert seen.rows() == world.target_rows() == first
    assert seen.rows(two.snapshot_id) == both
    # Read incrementally, it is that change and no other.
    assert seen.changed(two.snapshot_id) == (first - both, both - first)
    assert seen.changed(one.snapshot_id) == (Rows(), Rows())
    assert last_of(world).watermark == one.watermark
    assert rolled_back(world, two.session).outcome == "already_done"
    # Compacted by Spark, it is loaded again.
    spark.sql(
        rest_catalog,
        f"CALL {rest_catalog.name}.system.rewrite_data_files(table => '{TARGET}', options => map('rewrite-all', 'true'))",
    )
    assert steps.run(world.process()).did_publish
    world.check()
    assert seen.rows() == both


@MODES
def test_set_reset_ended_and_maintained(
    tmp_path: Path, spark: SparkProcess, rest_catalog: SharedCatalog, mode: str
) -> None:
    world, (one, _) = loaded_twice(tmp_path, mode, opens=rest_catalog.load)
    seen = Spark(world, spark, rest_catalog)
    world.land(5.5, 0.9)
    (source,) = show(world.catalog, TARGET, None)["sources"]
    assert (source["state"], source["behind"]) == ("behind", 1)
    if mode == "append":
        # Back, its rows would come twice: on, and undone.
        set_back(world, "current")
        assert show(world.catalog, TARGET, None)["by_hand"] == "anna set the watermark: a bad delivery"
        rolled_back(world, last_of(world).session)
    else:
        set_back(world, "start")
    steps.run(world.process())
    world.check()

    reset = reset_watermark(world.catalog, TARGET, None, act=ACT)
    assert published(world.target, world.name) is None
    world.land(1.25)
    with pytest.raises(TargetNotEmpty):
        steps.run(world.process())
    rolled_back(world, reset.session or "")
    # A session that nobody works on is in the way until it is ended.
    opened = plan(world.process())
    assert isinstance(opened, Session)
    assert steps.abandon(world.catalog, TARGET, world.name, reason="gone") == opened.plan.session
    steps.run(world.process())
    world.check()

    assert maintained(world.catalog, TARGET).counts["snapshots_expired"]
    maintained(world.catalog, SOURCE, consumers=[TARGET])
    assert seen.rows() == world.target_rows()
    with pytest.raises(RollbackRefused):
        rolled_back(world, one.session)
    # What came since can be undone.
    world.land(7, 2.75)
    steps.run(world.process())
    before = seen.rows()
    rolled_back(world, last_of(world).session)
    assert seen.rows() == world.target_rows() != before
    steps.run(world.process())
    world.check()
    assert seen.rows() == before
    assert steps.run(world.process()).outcome == "nothing_to_do"


@pytest.mark.parametrize("name", ["landed, 500", "landed, 409", "landed, no answer", "lost, 500", "lost, no answer"])
def test_each_is_done_once_whatever_the_catalog_answers(
    tmp_path: Path, rest_catalog: SharedCatalog, proxy: FaultProxy, name: str
) -> None:
    world, (one, two) = loaded_twice(tmp_path, "overwrite", opens=rest_catalog.load)
    world.opens = rest_catalog.all_through(proxy.address).load

    def suffering(act: Any) -> Any:
        before = snapshots_of_main(world)
        fault = proxy.add(Fault(**FAULTS[name]))
        done = act()
        assert fault.reached.is_set()
        assert done.outcome == "done"
        assert snapshots_of_main(world) == before + 1
        return done

    suffering(lambda: rolled_back(world, two.session))
    assert last_of(world).watermark == one.watermark
    steps.run(world.process())
    suffering(lambda: set_back(world, "start"))
    reset = suffering(lambda: reset_watermark(world.catalog, TARGET, None, act=ACT))
    suffering(lambda: rolled_back(world, reset.session))
    steps.run(world.process())
    world.check()


def test_the_commands_reach_it_through_a_connection(
    tmp_path: Path, rest_catalog: SharedCatalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        logging, "raiseExceptions", False
    )  # Airflow's handlers write to an earlier test's standard error
    monkeypatch.setenv(
        "AIRFLOW_CONN_TEST", json.dumps({"conn_type": "iceberg", "host": rest_catalog.properties["uri"]})
    )
    store = {"conn_type": "sqlite", "host": str(tmp_path / "store.db")}
    monkeypatch.setenv("AIRFLOW_CONN_INCREMENTAL_DEFAULT", json.dumps(store))
    line, why = CatalogLine(monkeypatch, capsys), ("--by", "anna", "--reason", "a bad delivery")
    world, (one, two) = loaded_twice(tmp_path, "overwrite", opens=rest_catalog.load)

    assert "would undo 1 session" in line("rollback", TARGET, "--to", two.session, *why, "--dry-run")
    assert f"is again where session {one.session} left it" in line("rollback", TARGET, "--to", two.session, *why)
    assert "is undone already" in line("rollback", TARGET, "--to", two.session, *why)
    assert line.json("watermark", "show", TARGET, "--json")["sources"][0]["behind"] == 2
    assert "the next run takes" in line("watermark", "set", TARGET, "--source", "events=start", *why)
    assert "there is no watermark any more" in line("watermark", "reset", TARGET, *why)
    assert line.json("watermark", "reset", TARGET, *why, "--json")["outcome"] == "unchanged"
    listed = line.json("session", "list", TARGET, "--json")
    assert [row["kind"] for row in listed] == ["reset", "set", "rollback", "load", "load"]
    line("rollback", TARGET, "--to", listed[0]["session"], *why)
    opened = plan(world.process())
    assert isinstance(opened, Session)
    assert f"session {opened.plan.session} of process" in line("session", "abandon", TARGET, *why)
    steps.run(world.process())
    world.check()
