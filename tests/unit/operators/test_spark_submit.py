"""What is handed to spark-submit, without a Spark: a program in its place writes down what it was given."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_incremental.core.errors import ArgumentError, TransformError
from airflow_incremental.core.spark import SparkTransform
from airflow_incremental.core.spark_job import SparkRunner
from airflow_incremental.operators.spark import runner_of
from airflow_incremental.operators.spark_submit import SubmitRunner

JOB = {
    "version": 1,
    "process": "proc",
    "session": "s1",
    "attempt": 2,
    "target": {"table": "mart.result", "branch": "b"},
}

#: Writes down its arguments and the files among them, says what the test wants, and ends as it wants.
PROGRAM = """#!{python}
import json, os, pathlib, sys, zipfile
home = pathlib.Path({home!r})
if sys.argv[1:] == ["--version"]:
    print("version 4.1.4\\nUsing Scala version 2.13.17")
    sys.exit(0)
job = sys.argv[sys.argv.index("--job") + 1]
py_files = sys.argv[sys.argv.index("--py-files") + 1].split(",")
found = {{
    "arguments": sys.argv[1:],
    "job": json.load(open(job)),
    "mode": oct(os.stat(job).st_mode & 0o777),
    "folder": oct(os.stat(os.path.dirname(job)).st_mode & 0o777),
    "modules": zipfile.ZipFile(py_files[0]).namelist(),
    "env": dict(os.environ),
}}
(home / "found.json").write_text(json.dumps(found))
print((home / "says").read_text() if (home / "says").exists() else "")
sys.exit(int((home / "code").read_text()) if (home / "code").exists() else 0)
"""


class Table:
    def location(self) -> str:
        return "s3://lake/mart/result"


class Catalog:
    name = "lake"
    properties: Mapping[str, str] = {"type": "rest", "uri": "http://catalog", "credential": "me:hidden-secret"}

    def load_table(self, _name: str) -> Table:
        return Table()


class Instance:
    task_id = "load"
    stats_tags: Mapping[str, str] = {}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "bin" / "spark-submit"
    path.parent.mkdir()
    path.write_text(PROGRAM.format(python=sys.executable, home=str(tmp_path)), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", os.pathsep.join([str(path.parent), os.environ["PATH"]]))
    connection(monkeypatch, {"conn_type": "spark", "host": "local[2]"})
    return tmp_path


def connection(monkeypatch: pytest.MonkeyPatch, value: Mapping[str, Any], name: str = "SPARK_DEFAULT") -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(value))


def runner(home: Path, sql: str | None = "SELECT 1", **given: Any) -> SubmitRunner:
    transform = SparkTransform(sql, **given)
    found = runner_of(transform, Catalog(), {"ti": Instance()}, folders=[str(home)])  # type: ignore[arg-type]
    assert isinstance(found, SubmitRunner)
    assert isinstance(found, SparkRunner)
    return found


def run(home: Path, sql: str | None = "SELECT 1", **given: Any) -> dict[str, Any]:
    """Run a job, and return what the program was given."""
    found = runner(home, sql, **given)
    found.run({**JOB, "catalog": found.catalog, "transform": found.transform})
    return dict(json.loads((home / "found.json").read_text()))


def values(found: Mapping[str, Any], option: str) -> list[str]:
    words = found["arguments"]
    return [words[i + 1] for i, word in enumerate(words) if word == option]


def test_the_command(home: Path) -> None:
    found = run(home)
    assert values(found, "--master") == ["local[2]"]
    assert values(found, "--name") == ["proc s1"]
    assert values(found, "--packages") == [
        "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0,org.apache.iceberg:iceberg-aws-bundle:1.11.0"
    ]
    assert [Path(word).name for word in found["arguments"][-3:]] == ["run_job.py", "--job", "incremental-s1-2.json"]
    assert "--files" not in found["arguments"]
    assert found["job"]["transform"] == {"kind": "sql", "text": "SELECT 1"}


def test_secrets_are_in_a_file_that_only_the_user_reads_and_that_is_gone_afterwards(home: Path) -> None:
    found = run(home)
    assert found["job"]["catalog"]["conf"]["credential"] == "me:hidden-secret"
    assert "hidden-secret" not in " ".join(found["arguments"])
    assert "hidden-secret" not in str(found["env"])
    assert (found["mode"], found["folder"]) == ("0o600", "0o700")
    assert not Path(values(found, "--job")[0]).exists()
    assert not Path(values(found, "--py-files")[0]).exists()


def test_a_secret_on_the_command_line_is_warned_of(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    conf = {"spark.hadoop.fs.s3a.secret.key": "abc", "spark.kubernetes.driver.secretKeyRef.A": "b:c", "spark.x": "1"}
    with caplog.at_level("WARNING"):
        run(home, conf=conf)
    (said,) = [r.getMessage() for r in caplog.records if "looks like a secret" in r.getMessage()]
    assert "spark.hadoop.fs.s3a.secret.key" in said
    assert "catalog_conf" in said


def test_audits_are_asked_by_the_packages_own_program(home: Path) -> None:
    (home / "app.py").write_text("import sys\n", encoding="utf-8")
    found = runner(home, None, application="app.py")
    found.run({**JOB, "what": "audit", "catalog": found.catalog})
    words = json.loads((home / "found.json").read_text())["arguments"]
    assert Path(words[words.index("--job") - 1]).name == "run_job.py"


def test_every_argument_arrives(home: Path) -> None:
    (home / "lib").mkdir()
    (home / "lib" / "own.zip").write_bytes(b"")
    found = run(
        home,
        conf={"spark.x": True, "spark.y": 2},
        py_files=["lib/own.zip"],
        jars=["/opt/a.jar", "/opt/b.jar"],
        files=["/opt/c.txt"],
        archives=["/opt/d.tgz#d"],
        repositories=["https://mirror"],
        packages=["auto", "g:a:1"],
        spark_version="3.5",
        env_vars={"REGION": "eu"},
        driver_memory="2g",
        executor_memory="3g",
        executor_cores="4",
        num_executors=5,
        submit_args={"name": "mine", "proxy_user": "etl"},
    )
    assert values(found, "--conf") == ["spark.x=true", "spark.y=2"]
    assert values(found, "--py-files")[0].split(",")[1:] == [str(home / "lib" / "own.zip")]
    assert values(found, "--jars") == ["/opt/a.jar,/opt/b.jar"]
    assert values(found, "--files") == ["/opt/c.txt"]
    assert values(found, "--archives") == ["/opt/d.tgz#d"]
    assert values(found, "--repositories") == ["https://mirror"]
    assert values(found, "--packages")[0].split(",")[0] == "org.apache.iceberg:iceberg-spark-runtime-3.5_2.12:1.11.0"
    assert values(found, "--packages")[0].split(",")[-1] == "g:a:1"
    assert found["env"]["REGION"] == "eu"
    sizes = ("--driver-memory", "--executor-memory", "--executor-cores", "--num-executors", "--name", "--proxy-user")
    assert [values(found, option)[0] for option in sizes] == ["2g", "3g", "4", "5", "mine", "etl"]


def test_packages_of_conf_and_of_the_load_are_one_list(home: Path) -> None:
    found = run(home, conf={"spark.jars.packages": "g:a:1,g:b:1"}, packages=["g:c:1", "g:a:1"])
    assert values(found, "--packages") == ["g:a:1,g:b:1,g:c:1"]
    assert values(found, "--conf") == []
    untouched = run(home, conf={"spark.jars.packages": "g:a:1"}, packages=None)
    assert values(untouched, "--packages") == []
    assert values(untouched, "--conf") == ["spark.jars.packages=g:a:1"]


def test_in_cluster_mode_the_job_is_shipped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, {"conn_type": "spark", "host": "yarn", "extra": {"deploy-mode": "cluster", "queue": "etl"}})
    found = run(home, files=["/opt/c.txt"])
    assert values(found, "--files")[0].split(",") == ["/opt/c.txt", values(found, "--job")[0]]
    assert values(found, "--deploy-mode") == ["cluster"]
    assert values(found, "--queue") == ["etl"]
    assert "--files" not in run(home, deploy_mode="client")["arguments"]


def test_a_function_and_an_application_are_shipped(home: Path) -> None:
    (home / "facts.py").write_text("def transform(spark, sources, plan):\n    pass\n", encoding="utf-8")
    (home / "app.py").write_text("import sys\n", encoding="utf-8")
    found = run(home, None, function="facts.py:transform")
    assert "facts.py" in found["modules"]
    assert "airflow_incremental_spark/run.py" in found["modules"]
    own = run(home, None, application="app.py", application_args=["x"])
    assert own["arguments"][-4] == str(home / "app.py")
    assert own["arguments"][-1] == "x"


def says(home: Path, text: str, code: int = 1) -> None:
    (home / "says").write_text(text, encoding="utf-8")
    (home / "code").write_text(str(code), encoding="utf-8")


def test_the_drivers_own_error_is_the_tasks(home: Path) -> None:
    says(
        home,
        'WARN x\nairflow-incremental: {"driver": "failed", "error": "ValueError: no", "where": "transform", "hint": "h"}',
    )
    with pytest.raises(TransformError, match="the driver failed in the transform: ValueError: no") as caught:
        run(home)
    assert caught.value.hint == "h"
    says(home, 'airflow-incremental: {"driver": "failed", "error": "ValueError: no", "where": "transform"}', code=0)
    with pytest.raises(TransformError, match="the driver failed in the transform: ValueError: no"):
        run(home)


def test_a_failure_without_a_reason_says_the_code_and_the_last_line(home: Path) -> None:
    says(home, "one\ntwo", code=3)
    with pytest.raises(TransformError) as caught:
        run(home)
    assert caught.value.found == "spark-submit failed: Error code is: 3. The last line of its log is: two"
    assert caught.value.retryable


def test_without_a_connection_nothing_is_submitted_anywhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SPARK_DEFAULT")
    with pytest.raises(ArgumentError, match="the Airflow connection 'spark_default' cannot be read"):
        run(home)
    assert not (home / "found.json").exists()


@pytest.mark.parametrize(
    "value",
    [
        {"conn_type": "spark", "host": "spark://master", "port": 7077, "extra": {"deploy-mode": "cluster"}},
        {"conn_type": "spark", "host": "master", "port": 7077, "extra": {"deploy-mode": "cluster"}},
    ],
)
def test_python_has_no_cluster_mode_on_a_standalone_cluster(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: Mapping[str, Any]
) -> None:
    connection(monkeypatch, value)
    with pytest.raises(ArgumentError, match="standalone cluster with deploy mode 'cluster'"):
        run(home)


def test_what_the_provider_does_not_take_is_an_argument_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, {"conn_type": "spark", "host": "local[2]", "extra": {"spark-binary": "rm"}})
    with pytest.raises(ArgumentError, match="spark-binary extra can be one of"):
        run(home, spark_version="4.1")
    connection(monkeypatch, {"conn_type": "spark", "host": "local[2]"})
    with pytest.raises(ArgumentError, match="'colour'"):
        run(home, submit_args={"colour": "red"})


def test_without_a_program_its_name_is_said(home: Path) -> None:
    (home / "bin" / "spark-submit").unlink()
    with pytest.raises(TransformError, match="the program 'spark-submit' is not there"):
        run(home, packages=None)


def test_a_catalog_that_cannot_be_shared_is_refused_before_anything_runs(home: Path) -> None:
    class Local(Catalog):
        properties: Mapping[str, str] = {"type": "sql", "uri": "sqlite:////lake.db"}

    with pytest.raises(ArgumentError, match="is an SQLite file"):
        runner_of(SparkTransform("SELECT 1"), Local(), {"ti": Instance()}, folders=[str(home)])  # type: ignore[arg-type]


def test_stopping_kills_what_runs(home: Path) -> None:
    import threading
    import time

    (home / "bin" / "spark-submit").write_text(f"#!/bin/sh\ntouch {home}/started\nexec sleep 60\n", encoding="utf-8")
    found = runner(home, packages=None)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            found.run({**JOB, "catalog": found.catalog, "transform": found.transform})
        except TransformError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not (home / "started").exists():
        time.sleep(0.02)
    end = time.monotonic() + 30
    while thread.is_alive() and time.monotonic() < end:
        found.stop()  # the provider may not have noted yet what it has started
        thread.join(timeout=0.1)
    assert not thread.is_alive()
    assert "spark-submit was killed (exit code -9)" in str(errors[0])
    found.stop()


def test_a_task_that_times_out_leaves_nothing_running(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow calls ``on_kill`` only after the timeout has passed through here."""
    import signal
    import time
    from types import FrameType

    class TimedOut(BaseException):
        pass

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimedOut

    program = f"#!/bin/sh\necho $$ > {home}/pid.new\nmv {home}/pid.new {home}/pid\nexec sleep 60\n"
    (home / "bin" / "spark-submit").write_text(program, encoding="utf-8")
    before = signal.signal(signal.SIGALRM, ring)
    started = SubmitRunner.say_what_stays

    def watched(self: SubmitRunner) -> None:
        started(self)
        signal.setitimer(signal.ITIMER_REAL, 3)

    monkeypatch.setattr(SubmitRunner, "say_what_stays", watched)
    try:
        with pytest.raises(TimedOut):
            run(home, packages=None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    pid = int((home / "pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not _is_over(pid):
        time.sleep(0.02)
    assert _is_over(pid)


def _is_over(pid: int) -> bool:
    """Say whether a process has ended, waited for or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"
