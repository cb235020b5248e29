"""What a commit leaves: the table as the catalog has it, and no more old metadata than the table asks for."""

from __future__ import annotations

from pathlib import Path

from pyiceberg.table import Table
from pyiceberg.table.update import SetPropertiesUpdate

from airflow_incremental.iceberg.commits import Change, commit
from tests.support.tables import make_table, sql_catalog


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
