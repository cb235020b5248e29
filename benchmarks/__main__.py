"""The door: ``python -m benchmarks [NAME ...] [--quick] [--rounds N] [--daily-rows N] [--ticks N]``."""

from __future__ import annotations

import argparse
import importlib
import logging
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import attrs

from benchmarks.report import OUTPUT, Report
from benchmarks.timing import ROOT

#: Benchmark -> what it says.
NAMES = {
    "planning": "finding out what changed",
    "commits": "a session against the length of history",
    "maintenance": "thousands of sessions, with maintenance now and then",
    "noop": "a run with nothing to do",
    "parse": "importing the package in a DAG file",
    "memory": "a load larger than memory",
    "audits": "checks over many rows, and statistics of many files",
    "signals": "emitting signals, and ten thousand waits for them",
    "triggerer": "waits in Airflow's triggerer, against those of ExternalTaskSensor",
    "late": "a chain of tables while rows come late",
    "late-none": "the same chain while none does",
    "late-dense": "the same chain while they come on ever more days",
}
#: Those that run only when they are named: they need more than ``make setup`` makes, or a whole Airflow for many minutes.
ON_REQUEST = {
    "backfills": "five years by the hour: one run in chunks, against Airflow's own backfills",
    "spark": "sessions in DuckDB and on Spark (make bench-spark)",
}
_ROUNDS, _QUICK_ROUNDS = 5, 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run benchmarks, print their tables and write ``build/bench/<name>.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(NAMES)}; default is all of these; and {', '.join(ON_REQUEST)}",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few rounds: whether it runs, not how fast")
    parser.add_argument("--rounds", type=int, help=f"rounds of each contender; default {_ROUNDS}")
    parser.add_argument(
        "--daily-rows", type=int, help="late...: events of a day; 200000 is the whole benchmark, see there"
    )
    parser.add_argument("--ticks", type=int, help="late...: days that arrive one after the other")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="directory of the results")
    options = parser.parse_args(arguments)
    known = NAMES | ON_REQUEST
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    names = options.names or list(NAMES)
    scale = {name: value for name in ("daily_rows", "ticks") if (value := getattr(options, name)) is not None}
    if scale and not all(name.startswith("late") for name in names):
        parser.error("--daily-rows and --ticks are for late, late-none and late-dense")
    for name in names:
        started = time.perf_counter()
        print(f"\n== {name}: {known[name]}")
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        report = Report(
            name=name,
            quick=options.quick,
            rounds=options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS),
            directory=options.output,
        )
        with tempfile.TemporaryDirectory(prefix="bench-") as home:
            size = module.QUICK if options.quick else module.FULL
            module.run(report, Path(home), attrs.evolve(size, **scale) if scale else size)
            # Before a hundred thousand files are removed, which may take minutes.
            path = report.finish()
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        print(f"  {shown}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    # What sessions and pyiceberg say to people on call would be between the tables. Here: it is a process's choice.
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    main()
