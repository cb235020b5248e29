"""The driver as programs that spark-submit starts, with nothing shipped but the package, the document and Iceberg's jar."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyspark
import pytest

from tests.spark.driver.lake import Lake, packages

PACKAGE = Path(__file__).parents[3] / "airflow_incremental_spark"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "driver.zip"
    with zipfile.ZipFile(path, "w") as file:
        for module in PACKAGE.glob("*.py"):
            file.write(module, f"{PACKAGE.name}/{module.name}")
    return path


class Submitted:
    """A job that spark-submit runs."""

    def __init__(self, home: Path, archive: Path, program: Path, document: dict[str, Any], *arguments: str) -> None:
        home.mkdir()
        home_of_spark = Path(pyspark.__file__).parent
        own = {**os.environ, "SPARK_HOME": str(home_of_spark), "PYSPARK_PYTHON": sys.executable}
        job = home / "job.json"
        job.write_text(json.dumps(document))
        command = [
            str(home_of_spark / "bin" / "spark-submit"),
            *("--master", "local[1]", "--packages", packages(), "--py-files", str(archive), "--files", str(job)),
            *("--conf", "spark.ui.enabled=false", "--conf", "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1"),
            *("--conf", "spark.sql.codegen.wholeStage=false", str(program), *arguments),
            # Where nothing is: as in cluster mode, the driver has to look among the files that were shipped.
            *("--job", "/nowhere/job.json"),
        ]
        self._process = subprocess.Popen(
            command, cwd=home, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def stop(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.wait()

    def result(self) -> tuple[int, list[dict[str, Any]], str]:
        """Return the exit code, what the driver said of its end, and all output, as the driver's errors may go to either."""
        try:
            out, err = self._process.communicate(timeout=300)
        finally:
            self.stop()
        lines = [
            line[len("airflow-incremental: ") :]
            for line in out.splitlines()
            if line.startswith("airflow-incremental: {")
        ]
        return self._process.returncode, [json.loads(line) for line in lines], f"{err}\n{out}"


APPLICATION = """
import sys
from airflow_incremental_spark import open_job

with open_job() as job:
    assert sys.argv[1:3] == ["--mine", "7"], sys.argv
    if job.plan["session"] == "good":
        job.write(job.source("orders").selectExpr("id + 1 AS id"))
        job.write(job.sources["orders"].limit(0))
    else:
        job.write(job.source("orders").selectExpr("CAST(100 DIV id AS bigint) AS id"))
"""


def test_programs_end_as_they_should(lake: Lake, tmp_path: Path, archive: Path) -> None:
    for table in ("one", "two", "three", "four"):
        lake.create(table, "id bigint")
        lake.insert(table, "VALUES (0L)")
        lake.branch(table)
    source = {"orders": lake.lookup("one")}
    mine = tmp_path / "application.py"
    mine.write_text(APPLICATION)
    own = {"kind": "application"}
    sql = lake.document("one", "SELECT id + 5 AS id FROM orders", sources=source)
    good = lake.document("two", own, sources=source, plan_more={"session": "good"})
    bad = lake.document("three", own, sources=source, plan_more={"session": "bad"})
    late = lake.document("four", "SELECT 1L AS id", branch="no_more")
    program, more = PACKAGE / "run_job.py", ("--mine", "7")
    jobs = [(program, sql, ()), (mine, good, more), (mine, bad, more), (program, late, ())]
    ends: list[tuple[int, list[dict[str, Any]], str]] = []
    for number in (0, 2):  # two at a time
        pair = [
            Submitted(tmp_path / f"{number}{i}", archive, p, d, *a)
            for i, (p, d, a) in enumerate(jobs[number : number + 2])
        ]
        ends += [submitted.result() for submitted in pair]
    assert [code for code, _, _ in ends] == [0, 0, 1, 1], [err[-2000:] for _, _, err in ends]
    assert [[line["driver"] for line in lines] for _, lines, _ in ends] == [["done"], ["done"], ["failed"], ["failed"]]
    assert lake.rows("one.branch_attempt") == [(0,), (5,)]
    assert lake.rows("two.branch_attempt") == [(0,), (1,)]
    assert lake.marks("two")[1]["rows"] == 1
    mark, report = lake.marks("three")
    assert mark == "failed"
    assert "DIVIDE_BY_ZERO" in report["error"]
    assert lake.rows("three.branch_attempt") == [(0,)]
    assert ends[3][1][0]["code"] == "late"
    # The error comes last, and none of the JVM's stack with it.
    last = ends[3][2].rpartition("the branch 'no_more' of ")[2]
    assert "is gone. Expected: the branch that was made for this attempt" in last
    assert "\tat " not in last
