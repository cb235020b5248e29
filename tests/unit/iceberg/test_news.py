"""What is new on a branch: changes of data, whatever else was committed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg.lineage import position_of
from airflow_incremental.iceberg.news import News, news_since
from airflow_incremental.iceberg.state import published
from airflow_incremental.sessions import steps
from tests.support.tables import (
    append,
    at,
    commit_snapshot,
    compact,
    delete_rows_by_position,
    expire,
    head,
    live_files,
    make_table,
    overwrite_files,
    replace_table,
    roll_back,
    sql_catalog,
)
from tests.support.world import World


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """An empty table."""
    return make_table(sql_catalog(tmp_path))


def here(table: Table) -> SourcePosition:
    return position_of(table, table.refresh().current_snapshot())


def news(table: Table, place: SourcePosition | None) -> News | None:
    """Return what is new; the place that comes with it is the head, from where nothing is."""
    at_head, found = news_since(table.refresh(), "main", place)
    assert at_head == here(table)
    assert news_since(table, "main", at_head) == (at_head, None)
    return found


def test_an_append_is_news(table: Table) -> None:
    empty = here(table)
    assert news(table, empty) is None
    first = append(table, (1, at(1)), (2, at(2)))
    expected = News(
        from_snapshot_id=None, to_snapshot_id=first.snapshot_id, operations=("append",), rows_added=2, history_cut=False
    )
    assert news(table, empty) == expected
    place = here(table)
    append(table, (3, at(3)))
    last = append(table, (4, at(4)), (5, at(5)))
    assert news(table, place) == News(
        from_snapshot_id=first.snapshot_id, to_snapshot_id=last.snapshot_id, operations=("append",), rows_added=3
    )


def test_compaction_and_commits_without_files_are_none(table: Table) -> None:
    append(table, (1, at(1)))
    append(table, (2, at(2)))
    place = here(table)
    compact(table)
    assert news(table, place) is None
    commit_snapshot(table, Operation.APPEND)
    assert news(table, place) is None
    with table.transaction() as change:
        change.set_properties(owner="x")
    assert news(table, place) is None
    last = append(table, (3, at(3)))
    assert news(table, place) == News(
        from_snapshot_id=place.snapshot_id,
        to_snapshot_id=last.snapshot_id,
        operations=("append", "replace"),
        rows_added=1,
    )


def test_a_watermark_that_moves_without_rows_is_none(tmp_path: Path) -> None:
    world = World(home=tmp_path, mode="overwrite").set_up()
    world.land(1)
    steps.run(world.process())
    place, found = news_since(world.target, "main", None)
    assert found is not None
    commit_snapshot(world.source, Operation.APPEND)
    steps.run(world.process())
    last = published(world.target, world.name)
    assert last is not None
    assert news_since(world.target, "main", place)[1] is None
    world.land(2)
    steps.run(world.process())
    assert news_since(world.target, "main", place)[1] is not None


def test_what_changes_or_removes_rows_is_news(table: Table) -> None:
    append(table, (1, at(1)), (2, at(2)))
    append(table, (3, at(3)))
    place = here(table)
    delete_rows_by_position(table, [1])
    found = news(table, place)
    assert found is not None
    assert (found.operations, found.rows_added, found.history_cut) == (("delete",), 0, False)
    place = here(table)
    gone = live_files(table)[0].file_path
    overwrite_files(table, removed=[gone], rows=[(9, at(9))])
    found = news(table, place)
    assert found is not None
    assert (found.operations, found.rows_added) == (("overwrite",), 1)


def test_a_branch_that_is_set_back_is_none_but_what_comes_next_is(table: Table) -> None:
    first = append(table, (1, at(1)))
    second = append(table, (2, at(2)))
    place = here(table)
    roll_back(table, first.snapshot_id)
    assert news(table, place) is None
    last = append(table, (3, at(3)))
    assert news(table, place) == News(
        from_snapshot_id=second.snapshot_id,
        to_snapshot_id=last.snapshot_id,
        operations=("append",),
        rows_added=1,
        history_cut=True,
    ), "both came between two looks"


def test_history_that_is_cut_is_told(table: Table) -> None:
    append(table, (1, at(1)))
    place = here(table)
    append(table, (2, at(2)))
    append(table, (3, at(3)))
    expire(table, [s.snapshot_id for s in table.metadata.snapshots[:2]])
    last = head(table)
    cut = News(from_snapshot_id=place.snapshot_id, to_snapshot_id=last.snapshot_id, history_cut=True)
    assert news(table, place) == cut
    place = here(table)
    anew = replace_table(table, (4, at(4)))
    found = news(table, place)
    assert found is not None
    assert (found.to_snapshot_id, found.history_cut) == (anew.snapshot_id, True)


def test_a_place_that_is_not_known_makes_whatever_is_there_news(table: Table) -> None:
    assert news(table, None) is None, "nothing is there"
    first = append(table, (1, at(1)))
    assert news(table, None) == News(from_snapshot_id=None, to_snapshot_id=first.snapshot_id, history_cut=True)


def test_a_table_under_the_same_name_is_another_one(tmp_path: Path) -> None:
    catalog = sql_catalog(tmp_path)
    old = make_table(catalog)
    append(old, (1, at(1)))
    place = here(old)
    catalog.drop_table("raw.events")
    new = make_table(catalog)
    assert news(new, place) == News(from_snapshot_id=place.snapshot_id, to_snapshot_id=None, history_cut=True)
    empty = here(new)
    first = append(new, (2, at(2)))
    found = news(new, empty)
    assert found is not None
    assert (found.to_snapshot_id, found.rows_added, found.history_cut) == (first.snapshot_id, 1, False)


def test_another_branch_has_its_own_news(table: Table) -> None:
    first = append(table, (1, at(1)))
    table.manage_snapshots().create_branch(first.snapshot_id, "dev").commit()
    place, _ = news_since(table.refresh(), "dev", None)
    append(table, (2, at(2)))
    assert news_since(table.refresh(), "dev", place) == (place, None)
    last = append(table, (3, at(3)), branch="dev")
    found = news_since(table.refresh(), "dev", place)[1]
    assert found is not None
    assert (found.to_snapshot_id, found.rows_added) == (last.snapshot_id, 1)
    with pytest.raises(TableError, match="has no branch 'prod'"):
        news_since(table, "prod", place)
