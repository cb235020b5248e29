"""What a commit leaves: the table as the catalog has it, no more old metadata than it asks for, and every file it refers to."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, ServiceUnavailableError
from pyiceberg.table import Table
from pyiceberg.table.update import SetPropertiesUpdate

from airflow_incremental.core.errors import CatalogError
from airflow_incremental.iceberg.commits import Change, commit, wait_for_table
from airflow_incremental.sessions import steps
from tests.support.tables import make_table, sql_catalog
from tests.support.world import World


def setting(value: str) -> Change:
    return Change(updates=(SetPropertiesUpdate(updates={"owner": value}),), requirements=())


def metadata_files(table: Table) -> list[Path]:
    return sorted(Path(table.location().removeprefix("file://")).rglob("*.metadata.json"))


def test_the_table_it_returns_is_the_catalogs(tmp_path: Path) -> None:
    catalog = sql_catalog(tmp_path)
    make_table(catalog)
    done = commit(catalog, "raw.events", lambda _: setting("us"), what="a property")
    again = catalog.load_table("raw.events")
    assert done.metadata == again.metadata
    assert done.metadata_location == again.metadata_location
    assert done.properties["owner"] == "us"


def test_old_metadata_stays_unless_the_table_asks_for_less(tmp_path: Path) -> None:
    catalog = sql_catalog(tmp_path)
    table = make_table(catalog)
    before = len(metadata_files(table))
    for number in range(5):
        commit(catalog, "raw.events", lambda _, n=number: setting(str(n)), what="a property")
    assert len(metadata_files(table)) == before + 5


def test_old_metadata_is_deleted_where_the_table_asks_for_it(tmp_path: Path) -> None:
    catalog = sql_catalog(tmp_path)
    table = make_table(
        catalog,
        properties={"write.metadata.delete-after-commit.enabled": "true", "write.metadata.previous-versions-max": "2"},
    )
    for number in range(5):
        commit(catalog, "raw.events", lambda _, n=number: setting(str(n)), what="a property")
    now = catalog.load_table("raw.events")
    left = metadata_files(table)
    assert len(left) <= 2 + 1 + 1  # what make_table wrote before the log was full may stay
    assert {entry.metadata_file.rsplit("/", 1)[-1] for entry in now.metadata.metadata_log} <= {p.name for p in left}


@pytest.mark.parametrize("which", ["lock", "seal", "publish", "positions"])
@pytest.mark.parametrize("landed", [True, False])
def test_a_refusal_is_not_believed_before_the_table_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, landed: bool
) -> None:
    """A client that sends a commit again when no answer came is refused because of its own first request.

    What the commit wrote is then part of the table and must stay; what was really refused goes.
    """
    monkeypatch.setattr(time, "sleep", lambda _: None)
    world = World(home=tmp_path, policies={"initial": "current"}).set_up()
    world.land(0)
    if which != "positions":
        steps.run(world.process())
        world.land(1)
    number = {"lock": 1, "seal": 2, "publish": 3, "positions": 2}[
        which
    ]  # before the positions comes the first snapshot
    real = SqlCatalog.commit_table
    made: list[int] = []

    def refused(self: Any, *args: Any) -> Any:
        made.append(1)
        if len(made) != number:
            return real(self, *args)
        if landed:
            real(self, *args)
        raise CommitFailedException

    monkeypatch.setattr(SqlCatalog, "commit_table", refused)
    steps.run(world.process())
    assert len(world.target_rows()) == (0 if which == "positions" else 1)
    known = {s.manifest_list for s in world.target.metadata.snapshots}
    lists = {f"file://{p}" for p in Path(world.target.location().removeprefix("file://")).rglob("snap-*.avro")}
    assert known == lists


def test_after_much_work_a_catalog_that_does_not_answer_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = sql_catalog(tmp_path)
    table = make_table(catalog)
    load, looks = catalog.load_table, iter([ConnectionError("reset"), ServiceUnavailableError("busy")])

    def answer(identifier: str) -> Table:
        for error in looks:
            raise error
        return load(identifier)

    monkeypatch.setattr(catalog, "load_table", answer)
    assert wait_for_table(catalog, "raw.events").metadata == table.metadata


def test_a_catalog_that_does_not_answer_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = sql_catalog(tmp_path)
    slept: list[float] = []

    def answer(_: str) -> Table:
        raise ServiceUnavailableError("busy")

    monkeypatch.setattr(catalog, "load_table", answer)
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(CatalogError, match=r"did not answer .* the last answer was: busy"):
        wait_for_table(catalog, "raw.events")
    assert 10 < sum(slept) < 90
