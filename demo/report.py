"""What the demonstration found: numbers for a machine, a table for a person, and whether it all was as it should be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from pyiceberg.manifest import ManifestEntryStatus

from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.state import is_publish_of
from demo.recompute import compare

if TYPE_CHECKING:
    import datetime as dt

    import pyarrow as pa
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot


@attrs.frozen(kw_only=True)
class TargetReport:
    """What the sessions of a process did to its target, and whether the target is right.

    :param rows: rows in the target now.
    :param sessions: sessions that were published.
    :param late_rows: rows that came for event times which were complete before, over all sessions.
    :param partitions_written: partitions touched, over all sessions; one that is touched by two sessions counts twice.
    :param partitions_total: partitions in the target now; a full load per session would have written about
        ``sessions * partitions_total``.
    :param missing: rows of the full recompute that are not in the target.
    :param unexpected: rows of the target that are not in the full recompute.
    """

    rows: int
    sessions: int
    late_rows: int
    partitions_written: int
    partitions_total: int
    missing: int
    unexpected: int

    @property
    def matches_full_recompute(self) -> bool:
        """Whether the target holds exactly what a computation from scratch gives."""
        return self.missing == 0 and self.unexpected == 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with the verdict."""
        return {**attrs.asdict(self), "matches_full_recompute": self.matches_full_recompute}


@attrs.frozen(kw_only=True)
class AuditBlocked:
    """A delivery with rows that violate an audit, and what became of it.

    :param tick: number of the delivery.
    :param run_id: run that failed.
    :param failed_task: task in which it failed.
    :param bad_rows: rows that were spoiled.
    :param published_nothing: whether ``main`` of the target stayed as it was.
    :param loaded_after_repair: whether the next run, after the delivery was sent again, succeeded.
    """

    tick: int
    run_id: str
    failed_task: str
    bad_rows: int
    published_nothing: bool
    loaded_after_repair: bool


@attrs.frozen(kw_only=True)
class Killed:
    """A process that was killed while the session it worked for was open, and how the run came through.

    :param tick: number of the delivery.
    :param task: task whose process, or whose Spark driver, was killed with SIGKILL.
    :param pid: that process.
    :param session: session that was open.
    :param published_session: session that the run published in the end; the same one if it was resumed.
    :param tries: tries the task needed.
    :param state: state of the run in the end.
    :param what: what the process is called where people read of it.
    """

    tick: int
    run_id: str
    task: str
    pid: int
    session: str
    published_session: str | None
    tries: int
    state: str
    what: str = "process"

    @property
    def recovered(self) -> bool:
        """Whether a later try finished the run."""
        return self.state == "success" and self.tries > 1 and self.published_session is not None


@attrs.frozen(kw_only=True)
class Announced:
    """What became of the signals of publishes, in the DAG that they start.

    :param pairs: pairs of signals that were found.
    :param claimed: pairs that a run took.
    :param until: hour up to which the newest pair is complete, as ISO 8601.
    :param ready: hour of the newest signal that the DAG emitted in the end; None if there is none.
    """

    pairs: int
    claimed: int
    until: str | None
    ready: str | None

    @property
    def right(self) -> bool:
        """Whether no pair was left over, and the last one was announced."""
        return self.pairs > 0 and self.claimed == self.pairs and self.ready == self.until


@attrs.frozen(kw_only=True)
class TickReport:
    """One delivery: what it brought, and how the runs after it went."""

    number: int
    until: str
    flights: int
    late: int
    seconds: float
    note: str = ""


@attrs.frozen(kw_only=True)
class Report:
    """Everything the demonstration found."""

    flights: int
    ticks: Sequence[TickReport]
    targets: Mapping[str, TargetReport]
    blocked: AuditBlocked | None
    killed: Killed | None
    seconds: float
    #: None where no DAG is started by signals.
    announced: Announced | None = None

    @property
    def audit_blocked(self) -> bool:
        """Whether a blocking audit kept bad rows out, and the repaired ones came in."""
        return self.blocked is not None and self.blocked.published_nothing and self.blocked.loaded_after_repair

    @property
    def killed_and_recovered(self) -> bool:
        """Whether a killed task process changed nothing but the time it took."""
        return self.killed is not None and self.killed.recovered

    @property
    def good(self) -> bool:
        """Whether everything was as it should be."""
        right = bool(self.targets) and all(t.matches_full_recompute for t in self.targets.values())
        announced = self.announced is None or self.announced.right
        return right and self.audit_blocked and self.killed_and_recovered and announced

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "flights": self.flights,
            "ticks": [attrs.asdict(t) for t in self.ticks],
            "targets": {name: t.to_json() for name, t in self.targets.items()},
            "audit_blocked": self.audit_blocked,
            "audit_blocked_details": None if self.blocked is None else attrs.asdict(self.blocked),
            "killed_and_recovered": self.killed_and_recovered,
            "killed_and_recovered_details": None if self.killed is None else attrs.asdict(self.killed),
            "announced": None if self.announced is None else attrs.asdict(self.announced),
            "seconds": round(self.seconds, 1),
        }

    def write(self, path: Path) -> None:
        """Write the report as JSON; the folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    def describe(self) -> str:
        """Return the report for people."""
        lines = [
            f"{self.flights:,} flights landed in {len(self.ticks)} deliveries; {self.seconds:.0f} s with Airflow.",
            "",
            *_table(
                ("target", "rows", "sessions", "late rows", "partitions written", "of", "full recompute"),
                [
                    (
                        name,
                        f"{t.rows:,}",
                        f"{t.sessions}",
                        f"{t.late_rows:,}",
                        f"{t.partitions_written}",
                        f"{t.partitions_total} x {t.sessions}",
                        "matches" if t.matches_full_recompute else f"{t.missing:,} missing, {t.unexpected:,} too many",
                    )
                    for name, t in self.targets.items()
                ],
            ),
            "Late: older than what was complete before; a delivery that is sent again is late for who had loaded it.",
            "",
            f"Bad delivery: {self._blocked_line()}",
            f"Killed task:  {self._killed_line()}",
            *([] if self.announced is None else [f"Signals:      {self._announced_line(self.announced)}"]),
        ]
        return "\n".join(lines)

    def _blocked_line(self) -> str:
        if self.blocked is None:
            return "NOT SEEN: no audit stopped a run."
        b = self.blocked
        kept_out = "nothing was published" if b.published_nothing else "BUT SOMETHING WAS PUBLISHED"
        then = "sent again, it was loaded" if b.loaded_after_repair else "SENT AGAIN, IT WAS NOT LOADED"
        return f"delivery {b.tick} held {b.bad_rows} bad rows, task {b.failed_task} failed and {kept_out}; {then}."

    @staticmethod
    def _announced_line(a: Announced) -> str:
        end = (
            f"flights are announced as ready until {a.ready}"
            if a.right
            else f"BUT READY UNTIL {a.ready}, NOT {a.until}"
        )
        return f"{a.pairs} pairs of publishes started runs, {a.claimed} were taken, each once; {end}."

    def _killed_line(self) -> str:
        if self.killed is None:
            return "NOT SEEN: no task could be killed in time."
        k = self.killed
        how = "resumed and published" if k.session == k.published_session else "replaced by one that published"
        end = f"its session was {how} in try {k.tries}" if k.recovered else f"THE RUN ENDED {k.state.upper()}"
        return f"{k.what} {k.pid} of task {k.task} was killed in delivery {k.tick}; {end}."


def report_target(table: Table, *, process: str, landed: pa.Table, through: dt.datetime | None = None) -> TargetReport:
    """Read from a target's history what the sessions of a process did, and compare its rows with a full recompute.

    :param table: the target, just loaded.
    :param process: name of the process that writes it.
    :param landed: all flights that have landed.
    :param through: event hour before which the target is processed, where later flights have to wait; None: all are.
    """
    published = [s for s in main_lineage(table) if is_publish_of(s, process)]
    found = compare(".".join(table.name()), table.scan().to_arrow(), landed, through=through)
    return TargetReport(
        rows=found.rows,
        sessions=len(published),
        late_rows=sum(int(s.summary[naming.LATE_ROWS] or 0) for s in published if s.summary is not None),
        partitions_written=sum(len(_partitions(table, s)) for s in published),
        partitions_total=len(table.inspect.partitions()),
        missing=found.missing,
        unexpected=found.unexpected,
    )


def _partitions(table: Table, snapshot: Snapshot) -> set[tuple[Any, ...]]:
    """Return the partitions in which a snapshot added or removed files."""
    return {
        (manifest.partition_spec_id, *(entry.data_file.partition[i] for i in range(len(entry.data_file.partition))))
        for manifest in snapshot.manifests(table.io)
        if manifest.added_snapshot_id == snapshot.snapshot_id
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
        if entry.status != ManifestEntryStatus.EXISTING and entry.snapshot_id == snapshot.snapshot_id
    }


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return an aligned table; the first and the last column are text, those between numbers."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    last = len(header) - 1

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(w) if i in {0, last} else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [line(header), line(["-" * w for w in widths]), *(line(row) for row in rows)]
