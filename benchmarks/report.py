"""Tables for people, ``build/bench/<name>.json`` for everything else, and which aims were met."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs

from benchmarks.timing import ROOT, Timings

#: Where the results go.
OUTPUT = ROOT / "build" / "bench"
_PACKAGES = ("apache-airflow", "duckdb", "pyarrow", "pyiceberg")
_MOST_DIGITS = 100


@attrs.frozen(kw_only=True)
class Case:
    """One line of a table: what was measured under which conditions."""

    labels: Mapping[str, Any]
    timings: Mapping[str, Timings] = attrs.field(factory=dict)
    #: How many times as long (or as much), by name.
    ratios: Mapping[str, float] = attrs.field(factory=dict)
    #: Counts and sizes, which do not depend on how busy the machine is.
    counts: Mapping[str, float] = attrs.field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "labels": dict(self.labels),
            "timings": {name: t.to_json() for name, t in self.timings.items()},
            "ratios": {name: round(r, 3) for name, r in self.ratios.items()},
            "counts": {name: round(c, 3) for name, c in self.counts.items()},
        }


@attrs.frozen(kw_only=True)
class Aim:
    """What was to be reached, and what was."""

    text: str
    value: float
    #: The bound, and whether it is a least or a most.
    limit: float
    at_least: bool
    unit: str

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "text": self.text,
            "value": round(self.value, 3),
            "limit": self.limit,
            "at_least": self.at_least,
            "unit": self.unit,
            "met": self.met,
        }


@attrs.define(kw_only=True)
class Report:
    """The results of one benchmark, printed as they come."""

    name: str
    quick: bool
    rounds: int
    #: Where the results go.
    directory: Path = OUTPUT
    tables: dict[str, list[Case]] = attrs.field(factory=dict)
    aims: list[Aim] = attrs.field(factory=list)

    def doing(self, what: str) -> None:
        """Say what is being measured, where a person waits for it."""
        print(f"  {self.name}: {what} ...", file=sys.stderr, flush=True)

    def table(self, title: str, cases: Iterable[Case]) -> None:
        """Take cases as a table and print it."""
        found = list(cases)
        self.tables[title] = found
        print(f"\n{title}")
        for line in lines_of(found):
            print(f"  {line}")

    def aim(self, text: str, value: float, *, least: float | None = None, most: float | None = None, unit: str) -> None:
        """Say whether an aim was met; exactly one of ``least`` and ``most`` is its bound."""
        limit = least if least is not None else most
        if limit is None:
            raise ValueError("an aim has a bound")
        self.aims.append(Aim(text=text, value=value, limit=limit, at_least=least is not None, unit=unit))

    def beside(self, suffix: str) -> Path:
        """Return the path of a further file of results, such as all single figures as CSV."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory / f"{self.name}.{suffix}"

    def finish(self) -> Path:
        """Print the aims, write the JSON and return its path."""
        for aim in self.aims:
            word = "at least" if aim.at_least else "at most"
            print(
                f"  {'met    ' if aim.met else 'NOT met'}  {aim.text}: {number(aim.value)} {aim.unit}, {word} {number(aim.limit)}"
            )
        path = self.beside("json")
        value = {
            "benchmark": self.name,
            "quick": self.quick,
            "rounds": self.rounds,
            "environment": environment(),
            "tables": {title: [c.to_json() for c in cases] for title, cases in self.tables.items()},
            "aims": [a.to_json() for a in self.aims],
        }
        path.write_text(json.dumps(value, indent=1) + "\n")
        return path


def environment() -> dict[str, Any]:
    """Say what the figures were taken on, as far as it decides about them."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": [round(v, 2) for v in os.getloadavg()],
        **{name: version(name) for name in _PACKAGES},
    }


def number(value: float) -> str:
    """Write a number with about three digits."""
    if value == int(value) and abs(value) < 1e15:  # noqa: PLR2004  (beyond it every float is whole)
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= _MOST_DIGITS else f"{value:.3g}"


def lines_of(cases: Iterable[Case]) -> list[str]:
    """Lay cases out in columns: labels, median milliseconds (wall / CPU) of each contender, ratios, counts."""
    rows = []
    for case in cases:
        row = {name: str(value) if isinstance(value, str) else number(value) for name, value in case.labels.items()}
        row |= {f"{name} ms": f"{number(t.wall_ms)} / {number(t.cpu_ms)}" for name, t in case.timings.items()}
        row |= {name: f"{number(r)}x" for name, r in case.ratios.items()}
        row |= {name: number(c) for name, c in case.counts.items()}
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    widths = {c: max(len(c), *(len(row.get(c, "")) for row in rows)) for c in columns}
    head = "  ".join(c.rjust(widths[c]) for c in columns)
    return [head, *("  ".join(row.get(c, "").rjust(widths[c]) for c in columns) for row in rows)]
