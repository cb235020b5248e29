"""What it costs to find out what changed, against pyiceberg's own incremental scan and against reading the event times of all rows.

Made by hand, see :mod:`benchmarks.histories`: tables of 100, 1,000 and 10,000 appends with 10,000 and 100,000 data files. Real to
the last byte: one table of which every data file is written, for the comparison with reading data.

Every contender gets a newly loaded table, pyiceberg's cache of manifests is emptied before each, and the time to load the table is
shown apart, because all of them pay it. ``detect`` finds the changes; ``draft`` is a whole plan: it loads the source, reads the
watermark, detects, counts what is late and decides.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import clear_manifest_cache
from pyiceberg.table import Table

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import position_of
from airflow_incremental.sessions.planner import draft
from benchmarks.histories import History, make_table, new_catalog
from benchmarks.probes import reads_of
from benchmarks.realdata import against_data
from benchmarks.report import Case, Report
from benchmarks.timing import Contender, in_turn, ratio
from benchmarks.worlds import SOURCE, TARGET, make_target, process_of, publish_watermark


@attrs.frozen(kw_only=True)
class Size:
    """Tables and windows to measure."""

    snapshots: tuple[int, ...]
    files: tuple[int, ...]
    windows: tuple[int, ...]
    #: Snapshots, files and window of cases that are left out.
    skip: frozenset[tuple[int, int, int]] = frozenset()
    #: Snapshots of the tables in which the same files changed among few and among many.
    same_changes: int
    #: The real table: appends, and rows in each.
    real: int
    real_rows: int


FULL = Size(
    snapshots=(100, 1_000, 10_000),
    files=(10_000, 100_000),
    windows=(1, 10, 100),
    # The first is a whole table, no window; the second says what its neighbour with more files says, and takes minutes.
    skip=frozenset({(100, 100_000, 100), (10_000, 10_000, 100)}),
    same_changes=1_000,
    real=1_000,
    real_rows=10_000,
)
QUICK = Size(snapshots=(20, 120), files=(240, 480), windows=(1, 10), same_changes=120, real=20, real_rows=200)


def run(report: Report, home: Path, size: Size) -> None:
    """Measure, print and judge."""
    grid: list[Case] = []
    for snapshots in size.snapshots:
        for files in size.files:
            report.doing(f"{snapshots:,} snapshots, {files:,} files")
            place = home / f"{snapshots}-{files}"
            bench = _Bench.make(place, History(snapshots=snapshots, files=files))
            grid += [
                bench.case(w, report.rounds, {"snapshots": snapshots, "files": files, "manifests": snapshots})
                for w in size.windows
                if (snapshots, files, w) not in size.skip
            ]
    # What a table looks like whose writer, or whose owner, merges manifests.
    snapshots, files = size.snapshots[-1], size.files[-1]
    manifests = max(1, snapshots // 100)
    report.doing("merged manifests")
    bench = _Bench.make(home / "merged", History(snapshots=snapshots, files=files, manifests=manifests))
    grid += [
        bench.case(w, report.rounds, {"snapshots": snapshots, "files": files, "manifests": manifests + bench.kept})
        for w in size.windows
    ]
    report.table("Planning, by snapshots in the window (milliseconds: wall / CPU)", grid)
    report.table("Planning: the same changed files in a smaller and a larger table", _same_changes(report, home, size))
    report.table(
        "Planning: against reading the event-time column of every file",
        against_data(report, home, size.real, size.real_rows),
    )
    _judge(report, grid, size)


def _judge(report: Report, grid: list[Case], size: Size) -> None:
    wide = max(size.windows)
    for snapshots, least in ((1_000, 8.0), (10_000, 50.0)):
        for case in grid:
            labels = case.labels
            if labels["snapshots"] == snapshots == labels["manifests"] and labels["window"] == wide:
                report.aim(
                    f"append scan / detect, window {wide}, {snapshots:,} snapshots, {labels['files']:,} files",
                    case.ratios["scan/detect"],
                    least=least,
                    unit="times",
                )
    same = report.tables["Planning: the same changed files in a smaller and a larger table"]
    report.aim(
        f"the same changed files in {size.files[-1]:,} files / in {size.files[0]:,}",
        statistics.median(c.ratios["larger/smaller"] for c in same),
        most=1.3,
        unit="times",
    )


@attrs.frozen(kw_only=True)
class _Bench:
    """One source table, and a target whose watermarks stand at the start of each window."""

    catalog: Catalog
    home: Path
    kept: int

    @classmethod
    def make(cls, home: Path, history: History) -> _Bench:
        """Make the tables."""
        catalog = new_catalog(home)
        make_table(catalog, SOURCE, history)
        return cls(catalog=catalog, home=home, kept=history.kept)

    def load(self) -> Table:
        """Load the source anew, with nothing of it cached."""
        clear_manifest_cache()
        return self.catalog.load_table(SOURCE)

    def window(self, length: int) -> tuple[SourcePosition, int]:
        """Return the position before the last ``length`` snapshots, and the head's id."""
        table = self.load()
        snapshots = table.metadata.snapshots
        return position_of(table, snapshots[-1 - length]), snapshots[-1].snapshot_id

    def detector(self, length: int) -> Callable[[Table], ChangeSet]:
        """Return our change detection over a window."""
        base, head = self.window(length)
        return lambda table: detect(table, base, head, event_time="ts", mode="append")

    def case(self, length: int, rounds: int, labels: dict[str, Any]) -> Case:
        """Measure one window."""
        base, head = self.window(length)
        detector = self.detector(length)
        process = process_of(self.catalog, name=f"window_{length}")
        make_target(self.catalog)
        target = publish_watermark(process, base)

        def scan(table: Table) -> list[Any]:
            return list(
                table.incremental_append_scan(
                    from_snapshot_id_exclusive=base.snapshot_id, to_snapshot_id_inclusive=head
                ).plan_files()
            )

        def plan(_: Table) -> Plan:
            found = draft(process, target)
            assert isinstance(found, Plan)
            return found

        detect_reads, changes = reads_of(self.home, SOURCE, detector)
        scan_reads, scanned_files = reads_of(self.home, SOURCE, scan)
        assert {c.path for c in changes.added} == {t.file.file_path for t in scanned_files}
        assert plan(target).sources[0].files_added == len(changes.added)
        timings = in_turn(
            {
                "load": Contender(lambda _: self.catalog.load_table(SOURCE)),
                "detect": Contender(detector, self.load),
                "draft": Contender(plan, self.load),
                "scan": Contender(scan, self.load),
            },
            rounds=rounds,
            # All have just run, to compare what they find.
            warm_up=False,
        )
        self.catalog.drop_table(TARGET)
        load, scanned = timings["load"], timings["scan"]
        whole = [a + b for a, b in zip(load.wall, scanned.wall, strict=True)]
        return Case(
            labels={**labels, "window": length, "changed": len(changes.added)},
            timings=timings,
            ratios={
                "scan/detect": ratio(scanned.wall, timings["detect"].wall),
                "CPU": ratio(scanned.cpu, timings["detect"].cpu),
                "load+scan/draft": ratio(whole, timings["draft"].wall),
            },
            counts={"reads detect": detect_reads, "reads scan": scan_reads},
        )


def _same_changes(report: Report, home: Path, size: Size) -> list[Case]:
    """Measure windows that change the same number of files, in tables of few and of many."""
    report.doing("the same changes among few and many files")
    snapshots = size.same_changes
    each = max(1, size.files[0] // snapshots)
    small, large = (
        _Bench.make(home / f"same-{files}", History(snapshots=snapshots, files=files, window_files=each))
        for files in (size.files[0], size.files[-1])
    )
    cases = []
    for length in size.windows:
        timings = in_turn(
            {
                "smaller": Contender(small.detector(length), small.load),
                "larger": Contender(large.detector(length), large.load),
            },
            rounds=2 * report.rounds,
        )
        cases.append(
            Case(
                labels={"snapshots": snapshots, "window": length, "changed": each * length},
                timings=timings,
                ratios={
                    "larger/smaller": ratio(timings["larger"].wall, timings["smaller"].wall),
                    "CPU": ratio(timings["larger"].cpu, timings["smaller"].cpu),
                },
            )
        )
    return cases
