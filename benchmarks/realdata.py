"""Change detection against reading data: what one does without metadata is to read the event times of every row.

Here every data file is real: so many appends, each of one file whose rows lie in an hour of their own. ``DuckDB`` and
``pyiceberg`` read the one column and count rows by hour, to be compared with the target's; DuckDB gets the paths for
nothing.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile, clear_manifest_cache
from pyiceberg.table import Table

from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import position_of
from benchmarks.histories import FIRST_HOUR, HOUR_MICROS, SCHEMA, History, data_file, make_table, new_catalog
from benchmarks.report import Case, Report
from benchmarks.timing import Contender, in_turn, ratio
from benchmarks.worlds import SOURCE

_WINDOWS = (1, 10, 100)


def against_data(report: Report, home: Path, appends: int, rows: int) -> list[Case]:
    """Measure.

    :param appends: data files, one per append.
    :param rows: rows in each.
    """
    report.doing("real data files")
    catalog = new_catalog(home / "real")
    folder = home / "real" / "files"
    folder.mkdir()
    made = {n: _real_file(folder, n, rows) for n in range(1, appends + 1)}
    make_table(catalog, SOURCE, History(snapshots=appends, files=appends, files_of=lambda n: [made[n]], write_all=True))
    paths = [f.file_path.removeprefix("file://") for f in made.values()]

    def load() -> Table:
        clear_manifest_cache()
        return catalog.load_table(SOURCE)

    def changed(table: Table, length: int) -> int:
        snapshots = table.metadata.snapshots
        base = position_of(table, snapshots[-1 - length])
        return len(detect(table, base, snapshots[-1].snapshot_id, event_time="ts", mode="append").added)

    def with_duckdb(_: Table) -> int:
        query = f"""
            SELECT epoch_us(ts) // {HOUR_MICROS} AS hour, count(*) FROM read_parquet($1, hive_partitioning = false)
            GROUP BY ALL
        """  # noqa: S608  (a number)
        with duckdb.connect() as con:
            return len(con.execute(query, [paths]).fetchall())

    def with_pyiceberg(table: Table) -> int:
        hours = pc.divide(table.scan(selected_fields=("ts",)).to_arrow()["ts"].cast(pa.int64()), HOUR_MICROS)
        return len(pc.value_counts(hours))

    windows = [w for w in _WINDOWS if w < appends]
    assert [changed(load(), w) for w in windows] == windows
    assert with_duckdb(load()) == with_pyiceberg(load()) == appends
    timings = in_turn(
        {
            **{f"window {w}": Contender(partial(changed, length=w), load) for w in windows},
            "DuckDB": Contender(with_duckdb, load),
            "pyiceberg": Contender(with_pyiceberg, load),
        },
        rounds=report.rounds,
        # All have just run, to compare what they find.
        warm_up=False,
    )
    widest = f"window {windows[-1]}"
    return [
        Case(
            labels={"rows": appends * rows, "files": appends},
            timings=timings,
            ratios={
                f"{name} / {widest}": ratio(timings[name].wall, timings[widest].wall)
                for name in ("DuckDB", "pyiceberg")
            },
        )
    ]


def _real_file(folder: Path, number: int, rows: int) -> DataFile:
    """Write a data file whose rows lie in one hour."""
    path = folder / f"{number}.parquet"
    first = (FIRST_HOUR + number) * HOUR_MICROS
    step = HOUR_MICROS // rows
    table = pa.table(
        [
            pa.array(range(number * rows, (number + 1) * rows), pa.int64()),
            pa.array(range(first, first + step * rows, step), pa.int64()).cast(pa.timestamp("us", "UTC")),
            pa.array(["eu", "us"] * (rows // 2), pa.string()),
            pa.array([n % 101 for n in range(rows)], pa.int64()),
        ],
        schema=schema_to_pyarrow(SCHEMA),
    )
    pq.write_table(table, path, compression="zstd")
    return data_file(f"file://{path}", number, rows=rows)
