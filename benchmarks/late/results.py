"""What came out of a race: costs by contender and by hop, what was asked for, and where the package loses."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from benchmarks.late.hops import HOPS
from benchmarks.late.race import Line
from benchmarks.report import Case, Report
from benchmarks.timing import Timings, ratio

#: What is compared, with its unit.
MEASURES: Mapping[str, Callable[[Line], float]] = {
    "rows read": lambda line: line.spent.rows_read,
    "MB read": lambda line: line.spent.bytes_read / 1e6,
    "rows written": lambda line: line.spent.rows_written,
    "partitions rewritten": lambda line: line.spent.partitions_rewritten,
    "engine ms": lambda line: line.spent.engine_s * 1000,
    "wall ms": lambda line: line.spent.wall_s * 1000,
}
#: In partitions; what is wrong in a table without them is counted in rows, which is another thing.
_PARTITIONED = [hop.name for hop in HOPS.values() if hop.event_time]
ALL = "all"
#: Less than this is noise.
_WORSE = 1.1


@attrs.frozen
class Results:
    """All lines of a race but those of tick 0, which loads the history and is nobody's everyday."""

    lines: Sequence[Line]

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Results:
        """Take the lines of a race."""
        return cls([line for line in lines if line.tick])

    @property
    def contenders(self) -> list[str]:
        """Who took part."""
        return list(dict.fromkeys(line.contender for line in self.lines))

    def series(self, contender: str, hop: str, measure: Callable[[Line], float]) -> list[float]:
        """Return one figure for each tick, over one hop or all of them."""
        found: dict[int, float] = {}
        for line in self.lines:
            if line.contender == contender and hop in (ALL, line.spent.hop):
                found[line.tick] = found.get(line.tick, 0.0) + measure(line)
        return list(found.values())

    def times(self, contender: str, other: str, hop: str, measure: str) -> float:
        """Return how many times as much a contender needs as another: the median of the ratios within the ticks."""
        of, to = (self.series(name, hop, MEASURES[measure]) for name in (contender, other))
        return ratio(of, to)

    def wrong(self, contender: str, hop: str) -> list[int]:
        """Return what is wrong after each tick: partitions, or rows of a table without them."""
        hops = _PARTITIONED if hop == ALL else [hop]
        found: dict[int, int] = {}
        for line in self.lines:
            if line.contender == contender and line.spent.hop in hops:
                found[line.tick] = found.get(line.tick, 0) + line.wrong
        return list(found.values())

    def case(self, contender: str, hop: str) -> Case:
        """Return the line of a table: medians over the ticks."""
        wrong = self.wrong(contender, hop)
        wall = self.series(contender, hop, MEASURES["wall ms"])
        cpu = self.series(contender, hop, lambda line: line.spent.cpu_s)
        counts: dict[str, float] = {"wrong at the end": wrong[-1], "ticks wrong": sum(count > 0 for count in wrong)}
        for name, measure in MEASURES.items():
            if name != "wall ms":
                counts[name] = statistics.median(self.series(contender, hop, measure))
        if hop == ALL:
            counts["peak MiB"] = statistics.median(line.peak_mib for line in self.lines if line.contender == contender)
        return Case(
            labels={"contender": contender} | ({} if hop == ALL else {"hop": hop}),
            timings={"tick" if hop == ALL else "hop": Timings(wall=tuple(ms / 1000 for ms in wall), cpu=tuple(cpu))},
            counts=counts,
        )

    def tables(self, report: Report) -> None:
        """Print what each contender costs, and what each hop of it costs."""
        ticks = len({line.tick for line in self.lines})
        report.table(
            f"Medians of {ticks} ticks, all hops (milliseconds: wall / CPU; wrong partitions of facts and states)",
            [self.case(name, ALL) for name in self.contenders],
        )
        report.table(
            "Medians by hop (wrong partitions; of customers, which has none, wrong rows)",
            [self.case(name, hop) for hop in HOPS for name in self.contenders],
        )

    def lost(self) -> Iterator[Case]:
        """Yield every comparison in which the package needs more, also than contenders that are wrong."""
        for other in self.contenders[1:]:
            for hop in (*HOPS, ALL):
                worse = {name: self.times("ours", other, hop, name) for name in MEASURES}
                worse = {name: times for name, times in worse.items() if times > _WORSE}
                if worse:
                    yield Case(
                        labels={"against": other, "hop": hop},
                        ratios=worse,
                        counts={"which is wrong by": max(self.wrong(other, hop))},
                    )

    def besides_the_engine(self, other: str) -> Iterator[Case]:
        """Yield what each hop costs outside of DuckDB: planning, writing, committing."""
        for hop in (*HOPS, ALL):
            took = {
                name: self.series(name, hop, lambda line: (line.spent.wall_s - line.spent.engine_s) * 1000)
                for name in ("ours", other)
            }
            more = [a - b for a, b in zip(took["ours"], took[other], strict=True)]
            yield Case(
                labels={"hop": hop},
                ratios={f"engine, ours / {other}": self.times("ours", other, hop, "engine ms")},
                counts={f"{name} ms": statistics.median(ms) for name, ms in took.items()}
                | {"ms more": statistics.median(more)},
            )

    def by_days(self, other: str) -> Iterator[Case]:
        """Yield how many times as much another contender needs, by the days on which rows of a tick fell."""
        for days in sorted({line.days for line in self.lines}):
            some = Results([line for line in self.lines if line.days == days])
            yield Case(
                labels={"days": days},
                ratios={
                    f"{measure}, {hop}": some.times(other, "ours", hop, measure)
                    for measure in ("rows read", "engine ms", "wall ms")
                    for hop in (*HOPS, ALL)
                },
            )
