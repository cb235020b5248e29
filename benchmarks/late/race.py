"""All contenders through all ticks, in turn, each on the same events; what each spent, and what it got wrong."""

from __future__ import annotations

import csv
import time
from contextlib import ExitStack, closing
from pathlib import Path

import attrs

from benchmarks.histories import new_catalog
from benchmarks.late.arrivals import Arrivals, arrive, make_events
from benchmarks.late.truth import Truth
from benchmarks.late.worker import Remote, Spent
from benchmarks.report import Report

#: Rows a day from which on DuckDB is told how much memory it may take.
_LARGE = 50_000
_LIMIT = "6GB"


@attrs.frozen(kw_only=True)
class Scale:
    """How large it is.

    :param late: which rows come late: one of :data:`~benchmarks.late.arrivals.LATE`.
    """

    contenders: tuple[str, ...]
    late: str = "mix"
    history: int = 365
    daily_rows: int = 2_000
    ticks: int = 10


@attrs.frozen(kw_only=True)
class Line:
    """One hop of one tick of one contender: a line of the CSV."""

    tick: int
    contender: str
    spent: Spent
    #: Days on which rows of this tick fell.
    days: int
    #: Partitions that differ from what they should hold, after the tick; of a table without partitions, rows.
    wrong: int
    peak_mib: float

    def values(self) -> dict[str, object]:
        """Return what is in the file."""
        spent = attrs.asdict(self.spent, filter=lambda attribute, _: attribute.name != "files")
        shown = {name: round(v, 4) if isinstance(v, float) else v for name, v in spent.items()}
        return {
            "tick": self.tick,
            "days_arrived": self.days,
            "contender": self.contender,
            **shown,
            "wrong": self.wrong,
            "peak_mib": round(self.peak_mib, 1),
        }


def race(report: Report, home: Path, scale: Scale) -> list[Line]:
    """Run all ticks; lines go to the CSV as they come."""
    arrivals = Arrivals(history=scale.history, daily_rows=scale.daily_rows, late=scale.late)
    limit = _LIMIT if scale.daily_rows >= _LARGE else None
    found: list[Line] = []
    with ExitStack() as stack:
        workers = [
            stack.enter_context(closing(Remote(name, home / name.replace(" ", "-"), limit)))
            for name in scale.contenders
        ]
        report.doing(f"{scale.history} days of {scale.daily_rows:,} rows")
        events = make_events(new_catalog(home / "events"), arrivals)
        truth = Truth.at(home / "truth", limit)
        stack.callback(truth.con.close)
        path = report.beside("csv")
        out = stack.enter_context(path.open("w", newline=""))
        writer: csv.DictWriter[str] | None = None
        for tick in range(scale.ticks + 1):
            started = time.perf_counter()
            days = arrive(events, arrivals.of_tick(tick), through=arrivals.day(tick)) if tick else scale.history
            turn = tick % len(workers)
            done = {
                worker.name: worker.tick(events.metadata_location, arrivals.day(tick))
                for worker in (*workers[turn:], *workers[:turn])
            }
            truth.compute(events)
            lines = [
                Line(
                    tick=tick,
                    contender=name,
                    spent=spent,
                    days=days,
                    wrong=truth.wrong(spent.hop, spent.files),
                    peak_mib=done[name].peak_mib,
                )
                for name in scale.contenders
                for spent in done[name].hops
            ]
            found += lines
            for line in lines:
                values = line.values()
                if writer is None:
                    writer = csv.DictWriter(out, list(values))
                    writer.writeheader()
                writer.writerow(values)
            out.flush()
            report.doing(f"tick {tick} of {scale.ticks}, {time.perf_counter() - started:.1f} s")
    return found
