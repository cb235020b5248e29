"""Rows kept and dropped by event time: the same as a plain filter in Python keeps, for any ranges and any kind of time."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core.errors import IncrementalError, TransformError
from airflow_incremental.core.ranges import MAX_TIME, MICROSECOND, MIN_TIME, UTC, EventRanges, TimeRange
from airflow_incremental.core.reads import ReadPart, SourceRead
from airflow_incremental.engines.filters import FEW, EventTimeColumn, filtered
from airflow_incremental.engines.relations import bind, open_connection
from tests.unit.engines.support import HOUR, T0, hours, read_of, run

KINDS = {"date": pa.date32(), "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC")}
_names = (f"r{i}" for i in itertools.count())


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    home = tmp_path_factory.mktemp("filters")
    con = open_connection(home, threads=2)
    yield con, home
    con.close()


@st.composite
def moments(draw: st.DrawFn) -> dt.datetime:
    """Times that meet: hours and days around 1970 and 2024, give or take a microsecond."""
    base = draw(st.sampled_from([T0, dt.datetime(1970, 1, 1, tzinfo=UTC), dt.datetime(1969, 7, 20, tzinfo=UTC)]))
    return base + draw(st.integers(-60, 60)) * HOUR + draw(st.sampled_from([-1, 0, 0, 1])) * MICROSECOND


@st.composite
def event_ranges(draw: st.DrawFn) -> EventRanges:
    ends = draw(st.lists(st.tuples(moments(), moments()), max_size=3 * FEW))
    fixed = [(MIN_TIME, T0), (T0, MAX_TIME)] if draw(st.integers(0, 9)) == 0 else []
    found = [
        TimeRange(min(e), max(e)) for e in [*ends, *draw(st.sampled_from([[], fixed[:1], fixed[1:]]))] if e[0] != e[1]
    ]
    # Short pieces as well, so that many stay apart.
    spikes = draw(st.lists(moments(), max_size=3 * FEW))
    if draw(st.booleans()):
        found = [TimeRange(m, m + draw(st.sampled_from([MICROSECOND, HOUR]))) for m in spikes]
    return EventRanges(tuple(found), nulls=draw(st.booleans()))


def value(moment: dt.datetime | None, kind: str) -> Any:
    if moment is None or kind == "timestamptz":
        return moment
    return moment.date() if kind == "date" else moment.replace(tzinfo=None)


def moment_of(stored: Any) -> dt.datetime | None:
    """Return the moment a value stands for: a date is its midnight, a time without zone is UTC."""
    if stored is None or (isinstance(stored, dt.datetime) and stored.tzinfo):
        return stored
    if isinstance(stored, dt.datetime):
        return stored.replace(tzinfo=UTC)
    return dt.datetime.combine(stored, dt.time(), UTC)


@given(
    times=st.lists(st.none() | moments(), max_size=40),
    keep=st.none() | event_ranges(),
    drop=st.none() | event_ranges(),
    kind=st.sampled_from(sorted(KINDS)),
    by_path=st.booleans(),
)
def test_bound_rows_are_those_a_plain_filter_keeps(
    db: tuple[duckdb.DuckDBPyConnection, Path],
    times: list[dt.datetime | None],
    keep: EventRanges | None,
    drop: EventRanges | None,
    kind: str,
    *,
    by_path: bool,
) -> None:
    con, home = db
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), metadata={"PARQUET:field_id": "1"}),
            pa.field("at", KINDS[kind], metadata={"PARQUET:field_id": "2"}),
        ]
    )
    values = [value(t, kind) for t in times]
    rows = pa.table({"id": list(range(len(values))), "at": values}, schema=schema)
    name = next(_names)
    path = home / f"{name}.parquet"
    if by_path:
        pq.write_table(rows, path, row_group_size=8)
    part = ReadPart(paths=(str(path),) if by_path else None, batches=rows.to_reader, keep=keep, drop=drop)
    bind(con, SourceRead(name=name, schema=schema, field_ids=(1, 2), parts=(part,), event_time="at"))
    found = con.execute(f'SELECT id FROM "{name}" ORDER BY id').fetchall()
    con.execute(f'DROP VIEW "{name}"')
    assert [i for (i,) in found] == [
        i
        for i, v in enumerate(values)
        if (keep is None or keep.contains(moment_of(v))) and (drop is None or not drop.contains(moment_of(v)))
    ]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_everything_is_everything(kind: str) -> None:
    edges = [None, MIN_TIME, T0, MAX_TIME]
    rows = pa.table({"at": pa.array([value(m, kind) for m in edges], KINDS[kind])})
    everything = EventRanges.everything()
    assert run("FROM src", read_of(rows, event_time="at", keep=everything)).num_rows == len(edges)
    assert run("FROM src", read_of(rows, event_time="at", drop=everything)).num_rows == 0


def test_a_range_may_end_in_the_last_day_there_is() -> None:
    days = [dt.date(9999, 12, 30), dt.date(9999, 12, 31)]
    rows = pa.table({"at": pa.array(days, pa.date32())})
    for end, kept in ((MAX_TIME - HOUR, days), (MAX_TIME - 24 * HOUR, days[:1])):
        keep = EventRanges((TimeRange(T0, end),))
        assert run("FROM src", read_of(rows, event_time="at", keep=keep)).column("at").to_pylist() == kept


def test_forty_thousand_ranges_are_one_join(db: tuple[duckdb.DuckDBPyConnection, Path]) -> None:
    con, _ = db
    ranges = EventRanges(tuple(TimeRange(T0 + 2 * h * HOUR, T0 + (2 * h + 1) * HOUR) for h in range(40_000)))
    con.execute(
        "CREATE TABLE many AS SELECT i AS id, "
        "TIMESTAMPTZ '2024-01-01 00:00:00+00' + INTERVAL (30 * i) MINUTE AS at FROM range(200000) t(i)"
    )
    query = filtered(con, "many", ["id"], EventTimeColumn(name="at", kind="timestamptz"), ranges)
    assert len(query) < 3_000
    assert con.execute(f"SELECT count(*), sum(id % 4) FROM ({query})").fetchall() == [(80_000, 40_000)]


@pytest.mark.parametrize("ranges", [hours(5), hours(*range(0, 60, 2))], ids=["few", "many"])
def test_row_groups_outside_are_not_read(tmp_path: Path, ranges: EventRanges) -> None:
    """All row groups but those of the first days are destroyed, so a query that touches one of them fails."""
    times = [T0 + i * HOUR / 4 for i in range(4 * 24 * 30)]
    schema = pa.schema([pa.field("at", KINDS["timestamptz"], metadata={"PARQUET:field_id": "1"})])
    path = tmp_path / "groups.parquet"
    pq.write_table(pa.table({"at": times}, schema=schema), path, row_group_size=4 * 24)
    kept = 4
    footer = pq.read_metadata(path)
    with path.open("r+b") as file:
        for group in range(kept, footer.num_row_groups):
            chunk = footer.row_group(group).column(0)
            file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
            file.write(b"\xff" * chunk.total_compressed_size)

    def read(keep: EventRanges | None) -> SourceRead:
        part = ReadPart(paths=(str(path),), batches=pa.table({}).to_reader, keep=keep)
        return SourceRead(name="src", schema=schema, field_ids=(1,), parts=(part,), event_time="at")

    assert run("FROM src", read(ranges)).num_rows == sum(ranges.contains(t) for t in times)
    with pytest.raises(IncrementalError):
        run("FROM src", read(None))


def test_a_filter_needs_a_named_event_time() -> None:
    with pytest.raises(TransformError, match="filters by event time and names none"):
        run("FROM src", read_of(pa.table({"n": [1]}), keep=hours(1)))
