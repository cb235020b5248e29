"""The same process in DuckDB and on Spark, and where the time of a Spark session goes.

Both read and write the same tables, of a REST catalog; both have two cores and 4 GiB, Spark as ``local[2]``. A session is a process
of its own, as a task is, and one on Spark is one ``spark-submit``, as in production. First a session of a single row, against what
Spark costs without this package: what is fixed, and what of it is ours. Then, for each size, a first load of everything and the
load of a tick: 1% more rows, of which a twentieth is late on three different days, so that mode ``overwrite`` computes 4% of the
table again.

Needs what ``make setup-spark`` makes.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs

from airflow_incremental.core.spec import Mode
from airflow_incremental.spark.packages import SparkVersion, coordinates
from benchmarks.report import Case, Report
from benchmarks.spark_session import ENGINES, MEMORY_GIB, SQL, open_catalog
from benchmarks.spark_world import World
from benchmarks.timing import Child, Timings, child, children_in_turn, ratio, timings_of
from demo.rest_catalog import RestCatalogServer
from demo.spark_home import spark_connection, spark_environment, spark_home

_PLAIN = Path(__file__).with_name("spark_plain.py")
#: Phases of a session on Spark, one after the other: the worker's (plan, seal, publish); until the application is there (version,
#: jars, JVM, Python); the driver's beside jobs; jobs; until ``spark-submit`` has ended.
_PHASES = ("worker", "start", "driver", "jobs", "stop")
#: What of the fixed cost may be ours.
_MOST_OURS = 0.5
#: The great sizes take minutes each.
_MOST_ROUNDS = 3


@attrs.frozen(kw_only=True)
class Size:
    """How much is loaded.

    :param rows: of the source, hundreds.
    """

    rows: tuple[int, ...]
    modes: tuple[Mode, ...] = tuple(SQL)


FULL = Size(rows=(1_000_000, 10_000_000, 50_000_000))
QUICK = Size(rows=(10_000,), modes=("overwrite",))


@attrs.frozen(kw_only=True)
class _Bench:
    """What all measurements share."""

    address: str
    environment: Mapping[str, str]
    home: Path

    def session(self, engine: str, mode: str, source: str, target: str) -> Child:
        """Run one session; its times are those without imports, its output is them as JSON."""
        used = child(
            *("-m", "benchmarks.spark_session", self.address, engine, mode, source, target),
            environment=self.environment,
        )
        (line,) = [line for line in used.output.splitlines() if line.startswith('{"wall"')]
        found = json.loads(line)
        return attrs.evolve(used, wall=found["wall"], cpu=found["cpu"], output=f"{line}\n")

    def submit(self, *arguments: str) -> Child:
        """Run ``spark-submit``."""
        program = spark_home() / "bin" / "spark-submit"
        return child(*arguments, program=str(program), environment=self.environment)


def run(report: Report, home: Path, size: Size) -> None:
    """Measure, print and judge."""
    lake = home / "lake"
    environment = {
        **spark_environment(home / "spark", {"spark.driver.memory": f"{MEMORY_GIB}g"}),
        **spark_connection(),
        "AIRFLOW_HOME": str(home / "airflow"),
    }
    database = f"sqlite:///{home / 'catalog.db'}"
    with RestCatalogServer(database=database, warehouse=lake, log=home / "catalog.log") as server:
        catalog = open_catalog(server.address)
        for namespace in ("raw", "mart"):
            catalog.create_namespace(namespace)
        bench = _Bench(address=server.address, environment=environment, home=home)
        _fixed(report, bench)
        for rows in size.rows:
            _sessions(report, bench, World(catalog=catalog, rows=rows), size.modes)


def _fixed(report: Report, bench: _Bench) -> None:
    """Measure a session of one row, and the steps that lead to it without this package."""
    report.doing("a session of one row")
    world = World(catalog=open_catalog(bench.address), rows=1, days=1)
    world.make()
    packages = ("--packages", ",".join(coordinates(SparkVersion.parse("4.1"), kind="rest", uri="", storage=())))
    number = itertools.count()

    def by_hand() -> Sequence[Child]:
        target = world.target(f"by_hand_{next(number)}", "append")
        statement = (bench.address, world.original, target, SQL["append"])
        used = bench.submit(*packages, str(_PLAIN), "by hand", *statement)
        world.check(target, ticked=False)
        return [used]

    def ours(engine: str) -> Sequence[Child]:
        name = f"one_{next(number)}"
        source, target = world.copy(name), world.target(name, "append")
        used = bench.session(engine, "append", source, target)
        world.check(target, ticked=False)
        world.drop(source, target)
        return [used]

    found = children_in_turn(
        {
            "spark-submit --version": lambda: [bench.submit("--version")],
            "empty application": lambda: [bench.submit(str(_PLAIN), "empty")],
            "... with Iceberg's jar": lambda: [bench.submit(*packages, str(_PLAIN), "empty")],
            "... that copies a row": by_hand,
            "session on Spark": partial(ours, "Spark"),
            "session in DuckDB": partial(ours, "DuckDB"),
        },
        rounds=report.rounds,
        warm_up=not report.quick,
    )
    cases = []
    for name, used in found.items():
        phases = _phases_of([json.loads(c.output) for c in used]) if name == "session on Spark" else {}
        cases.append(Case(labels={"what": name}, timings={"all": timings_of(used)}, counts=phases))
    report.table("A session of one row, and what comes before it (milliseconds: wall / CPU; phases in seconds)", cases)
    session, plain = (timings_of(found[name]).wall for name in ("session on Spark", "... that copies a row"))
    report.aim("our share of a session of one row", 1 - ratio(plain, session), most=_MOST_OURS, unit="of its time")


def _sessions(report: Report, bench: _Bench, world: World, modes: Sequence[Mode]) -> None:
    """Measure first load and tick of each mode with each engine."""
    report.doing(f"{world.rows:,} rows")
    world.make()
    cases = []
    number = itertools.count()

    def load(engine: str, mode: Mode) -> Sequence[Child]:
        name = f"{mode}_{engine.lower()}_{world.rows}_{next(number)}"
        source, target = world.copy(name), world.target(name, mode)
        first = bench.session(engine, mode, source, target)
        world.check(target, ticked=False)
        world.tick(source)
        tick = bench.session(engine, mode, source, target)
        world.check(target, ticked=True)
        world.drop(source, target)
        return [first, tick]

    for mode in modes:
        found = children_in_turn(
            {engine: partial(load, engine, mode) for engine in ENGINES},
            rounds=min(report.rounds, _MOST_ROUNDS),
            # Sessions are long, and each is a process that starts from nothing.
            warm_up=False,
        )
        for position, what in enumerate(("first load", "tick")):
            used = {
                engine: [json.loads(c.output.splitlines()[position]) for c in children]
                for engine, children in found.items()
            }
            timings = {
                engine: Timings(wall=tuple(u["wall"] for u in each), cpu=tuple(u["cpu"] for u in each))
                for engine, each in used.items()
            }
            cases.append(
                Case(
                    labels={"mode": mode, "load": what},
                    timings=timings,
                    ratios={"Spark / DuckDB": ratio(timings["Spark"].wall, timings["DuckDB"].wall)},
                    counts=_phases_of(used["Spark"]),
                )
            )
    report.table(f"Sessions over {world.rows:,} rows (milliseconds: wall / CPU; phases of Spark's in seconds)", cases)


def _phases_of(sessions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each phase, and of what executors worked."""
    return {name: statistics.median(s[name] for s in sessions) for name in (*_PHASES, "executors")}
