"""``python -m demo``: the demonstration, from the first delivery to the verdict; with ``--spark``, on Spark."""

from __future__ import annotations

import argparse
import datetime as dt
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import attrs

from demo.config import USER
from demo.flights import cut_into_ticks, departing, load_flights
from demo.landing import Lakehouse
from demo.rest import AirflowError
from demo.rest_catalog import RestCatalogServer
from demo.runner import Demo, DemoError
from demo.spark import CONNECTION_ID, SparkDemo
from demo.spark_home import SparkMissing, spark_connection, spark_environment
from demo.stack import AirflowStack, StackError

ROOT = Path(__file__).resolve().parent.parent
#: Midnight in New York, where the first of the flights leave.
FIRST = dt.datetime(2013, 1, 1, 5, tzinfo=dt.timezone.utc)


@attrs.frozen(kw_only=True)
class _Stage:
    """Where a demonstration takes place, and which it is.

    :param environment: of Airflow, and so of its tasks.
    """

    demo: type[Demo]
    lakehouse: Lakehouse
    environment: Mapping[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration and return the exit status: 0 only if everything was as it should be."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, _leave)
    options.output.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.output)).resolve()
    try:
        with (_on_spark if options.spark else _on_duckdb)(folder) as stage:
            return _demonstrate(options, folder, stage)
    except (DemoError, StackError, AirflowError, SparkMissing) as error:
        _say(f"\nThe demonstration failed: {error}\nAll logs: {folder}")
        return 1
    except KeyboardInterrupt:
        _say("Stopped.")
        return 128 + signal.SIGINT


@contextmanager
def _on_duckdb(folder: Path) -> Iterator[_Stage]:
    lakehouse = Lakehouse(folder / "lakehouse")
    yield _Stage(demo=Demo, lakehouse=lakehouse, environment=lakehouse.connection())


@contextmanager
def _on_spark(folder: Path) -> Iterator[_Stage]:
    place = folder / "lakehouse"
    place.mkdir()
    spark = {**spark_environment(folder / "spark"), **spark_connection()}
    database = f"sqlite:///{place / 'catalog.db'}"
    with RestCatalogServer(database=database, warehouse=place / "warehouse", log=place / "catalog.log") as server:
        lakehouse = Lakehouse(place, uri=server.address, connection_id=CONNECTION_ID)
        yield _Stage(demo=SparkDemo, lakehouse=lakehouse, environment={**spark, **lakehouse.connection()})


def _demonstrate(options: argparse.Namespace, folder: Path, stage: _Stage) -> int:
    flights = departing(load_flights(), FIRST, FIRST + dt.timedelta(days=options.days))
    ticks = cut_into_ticks(flights, options.ticks)
    stack = AirflowStack(home=folder / "airflow", dags=ROOT / "dags", environment=stage.environment, port=options.port)
    login = f"{stack.config.url} (user {USER}, password {stack.config.password})"
    began = time.monotonic()
    _say(f"{flights.num_rows:,} flights of {options.days} days in January 2013 will land in {len(ticks)} deliveries.")
    _say("Starting Airflow: scheduler, DAG processor, triggerer, API server ...")
    with stack:
        _say(f"Airflow is up after {time.monotonic() - began:.0f} s. Watch it at {login}")
        report = stage.demo(stack=stack, lakehouse=stage.lakehouse, ticks=ticks, say=_say).run()
        report.write(options.output / "report.json")
        _say(f"\n{report.describe()}\n\n{'All is right.' if report.good else 'NOT ALL IS RIGHT.'}")
        _say(f"Report: {options.output / 'report.json'}. Logs and tables: {folder}")
        if options.serve:
            _say(f"Airflow stays at {login} until Ctrl-C.")
            with suppress(KeyboardInterrupt):
                signal.pause()
    return 0 if report.good else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--spark", action="store_true", help="run the loads on Spark (make setup-spark), two tables in two hops"
    )
    parser.add_argument("--serve", action="store_true", help="leave Airflow and its UI running until Ctrl-C")
    parser.add_argument("--port", type=int, default=None, help="port of Airflow's UI on loopback (a free one)")
    parser.add_argument("--ticks", type=int, help="deliveries, 10 or more (10); with --spark 4 or more (5)")
    parser.add_argument("--days", type=int, default=10, help="days of flights, from 1 January 2013 (10)")
    parser.add_argument(
        "--output", type=Path, help="folder for the report, logs and tables (build/demo, build/demo-spark)"
    )
    options = parser.parse_args(arguments)
    least, usual, name = (4, 5, "demo-spark") if options.spark else (10, 10, "demo")
    options.ticks = usual if options.ticks is None else options.ticks
    options.output = options.output or ROOT / "build" / name
    if options.ticks < least:
        parser.error(
            f"--ticks must be {least} or more, to hold a bad delivery and a killed task and some without either"
        )
    return options


def _say(line: str) -> None:
    print(line, flush=True)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into an exit that runs what stops Airflow."""
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
