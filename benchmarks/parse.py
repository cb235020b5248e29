"""What importing the package adds to parsing a DAG file.

Airflow's DAG processor parses each file in a process of its own that has Airflow imported already, so what a file costs
is what it imports beyond ``airflow.sdk``. Measured in a process each: ``airflow.sdk`` with the names a DAG file needs;
then every public name of the package, or a DAG without the package, or one of the example DAGs. ``inside`` is taken in
the process, after ``airflow.sdk`` was imported; the whole processes are compared too.
"""

from __future__ import annotations

import json
import statistics
from functools import partial
from pathlib import Path

from benchmarks.report import Case, Report
from benchmarks.timing import ROOT, Child, child, children_in_turn, ratio, timings_of

#: DAG files to read besides importing the package.
FULL = tuple(sorted((ROOT / "dags").glob("*.py")))
QUICK = FULL[:1]
_MOST_MS = 50

_SDK = "from airflow.sdk import DAG, Asset, BaseOperator, TaskGroup, XComArg"
_TIMED = """
import json, sys, time
{before}
before, wall, cpu = len(sys.modules), time.perf_counter(), time.process_time()
{code}
print(json.dumps({{"wall": (time.perf_counter() - wall) * 1000, "cpu": (time.process_time() - cpu) * 1000,
                  "modules": len(sys.modules) - before}}))
"""
_PACKAGE = """
import airflow_incremental
for name in airflow_incremental.__all__:
    getattr(airflow_incremental, name)
"""
_FOUR_TASKS = """
with DAG("plain", schedule=None):
    for number in range(4):
        BaseOperator(task_id=f"task_{number}")
"""
_EXAMPLE = "import runpy; runpy.run_path({path!r})"


def run(report: Report, home: Path, files: tuple[Path, ...]) -> None:
    """Measure, print and judge."""
    environment = {"AIRFLOW_HOME": str(home / "airflow")}

    def python(before: str, code: str) -> list[Child]:
        return [child("-c", _TIMED.format(before=before, code=code), environment=environment)]

    codes = {
        "airflow.sdk": ("", _SDK),
        "the package": (_SDK, _PACKAGE),
        "a DAG of four bare operators": (_SDK, _FOUR_TASKS),
        **{f"dags/{f.name}": (_SDK, _EXAMPLE.format(path=str(f))) for f in files},
    }
    found = children_in_turn(
        {name: partial(python, *c) for name, c in codes.items()}, rounds=report.rounds, warm_up=not report.quick
    )
    base = timings_of(found["airflow.sdk"])
    cases = []
    for name, used in found.items():
        inside = [json.loads(c.output) for c in used]
        process = timings_of(used)
        cases.append(
            Case(
                labels={"import": name},
                timings={"process": process},
                ratios={} if name == "airflow.sdk" else {"process CPU": ratio(process.cpu, base.cpu)},
                counts={
                    "inside, wall ms": statistics.median(i["wall"] for i in inside),
                    "inside, CPU ms": statistics.median(i["cpu"] for i in inside),
                    "modules": statistics.median(i["modules"] for i in inside),
                },
            )
        )
    report.table("Imports, each in a process of its own (inside: between the imports, beyond airflow.sdk)", cases)
    report.aim(
        "what importing the package adds to airflow.sdk (CPU)",
        cases[1].counts["inside, CPU ms"],
        most=_MOST_MS,
        unit="ms",
    )
